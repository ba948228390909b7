//! Why partitions are not archived or trimmed as they should be, and when that is an alarm: not while a generation that is
//! being built has yet to read what would be trimmed, and gets on, as that ends by itself; but then too if memory may run out
//! before it does.

use std::collections::BTreeMap;

use shared::limits::{STANDSTILL_MAX, TRIM_HELD_MAX, TRIM_HELD_MEMORY_PERCENT};
use shared::ports::LogMemory;
use tokio::time::Instant;

/// Why a partition was not trimmed.
pub(super) struct Held {
    pub(super) why: String,
    /// Whose group holds it up, if it is that.
    pub(super) generation: Option<u32>,
}

impl From<String> for Held {
    fn from(why: String) -> Self {
        Self { why, generation: None }
    }
}

/// Of this projector's partitions, and of the generations that are being built.
#[derive(Default)]
pub(super) struct Holds {
    partitions: BTreeMap<u16, Hold>,
    /// Events that each has applied, and since when it has no more.
    built: BTreeMap<u32, (u64, Instant)>,
}

struct Hold {
    why: String,
    began: Instant,
    /// Since when nothing says that it will end by itself.
    since: Instant,
}

impl Holds {
    pub(super) fn retain(&mut self, is_own: impl Fn(&u16) -> bool) {
        self.partitions.retain(|partition, _| is_own(partition));
    }

    pub(super) fn count(&self) -> usize {
        self.partitions.len()
    }

    /// Of all generations that are being built now, how many events they have applied.
    pub(super) fn note_built(&mut self, built: &[(u32, u64)], now: Instant) {
        self.built.retain(|number, _| built.iter().any(|(built, _)| built == number));
        for &(number, applied) in built {
            let known = self.built.entry(number).or_insert((applied, now));
            if known.0 != applied {
                *known = (applied, now);
            }
        }
    }

    pub(super) fn note(&mut self, partition: u16, held: Option<Held>, now: Instant) {
        let Some(Held { mut why, generation }) = held else {
            self.partitions.remove(&partition);
            return;
        };
        let gets_on = generation.is_some_and(|number| self.gets_on(number, now));
        if gets_on {
            why += " yet: it is being built and gets on; the log grows meanwhile";
        }
        let hold =
            self.partitions.entry(partition).or_insert(Hold { why: String::new(), began: now, since: now });
        if gets_on {
            hold.since = now;
        }
        if hold.why != why {
            tracing::warn!(partition, why, "a partition is not archived or not trimmed as it should be");
            hold.why = why;
        }
    }

    fn gets_on(&self, generation: u32, now: Instant) -> bool {
        let built = self.built.get(&generation);
        built.is_some_and(|(_, since)| now.saturating_duration_since(*since) < STANDSTILL_MAX)
    }

    /// What has been so for too long; while memory is short, also where a generation gets on.
    pub(super) fn alarm(&self, memory: Option<LogMemory>, now: Instant) -> Option<String> {
        let percent = memory.map(LogMemory::percent).filter(|percent| *percent >= TRIM_HELD_MEMORY_PERCENT);
        let since = |hold: &Hold| if percent.is_some() { hold.began } else { hold.since };
        let (partition, hold) = self.partitions.iter().min_by_key(|(_, hold)| since(hold))?;
        if now.saturating_duration_since(since(hold)) <= TRIM_HELD_MAX {
            return None;
        }
        let why = format!("partition {partition}: {}", hold.why);
        Some(match percent {
            Some(percent) => format!("{why}; {percent} % of the memory that the log may take is in use"),
            None => why,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const LONG: Duration = TRIM_HELD_MAX.saturating_add(Duration::from_secs(1));

    #[test]
    fn a_hold_is_as_old_as_it_began_and_ends_when_it_goes_on() {
        let (mut holds, start) = (Holds::default(), Instant::now());
        let why = |text: &str| Some(Held::from(text.to_owned()));
        holds.note(3, why("one"), start);
        holds.note(3, why("another"), start + TRIM_HELD_MAX);
        assert_eq!(holds.alarm(None, start + TRIM_HELD_MAX), None);
        assert_eq!(holds.alarm(None, start + LONG).as_deref(), Some("partition 3: another"));
        holds.note(3, None, start + LONG);
        assert_eq!((holds.alarm(None, start + LONG), holds.count()), (None, 0));
    }

    #[test]
    fn a_generation_that_is_built_and_gets_on_is_no_alarm_until_it_does_not() {
        let (mut holds, start) = (Holds::default(), Instant::now());
        let by = |generation| Some(Held { why: "group".to_owned(), generation: Some(generation) });
        let mut now = start;
        for applied in 0..4 {
            now += STANDSTILL_MAX;
            holds.note_built(&[(2, applied)], now);
            holds.note(3, by(2), now);
            assert_eq!((holds.alarm(None, now), holds.count()), (None, 1), "it is told, and no alarm");
        }
        for _ in 0..2 {
            now += LONG;
            holds.note_built(&[(2, 3)], now);
            holds.note(3, by(2), now);
        }
        assert_eq!(holds.alarm(None, now).as_deref(), Some("partition 3: group"), "it stands still");
        holds.note_built(&[(2, 4)], now);
        holds.note(3, by(2), now);
        assert_eq!(holds.alarm(None, now), None, "it gets on again");
        for _ in 0..2 {
            now += LONG;
            holds.note_built(&[], now);
            holds.note(3, by(2), now);
        }
        assert!(holds.alarm(None, now).is_some(), "it is not built any more");
    }

    #[test]
    fn while_memory_is_short_a_hold_is_an_alarm_whoever_gets_on() {
        let (mut holds, start) = (Holds::default(), Instant::now());
        let with = |used| Some(LogMemory { used, max: 1_000 });
        assert_eq!(holds.alarm(with(1_000), start), None, "nothing is held up");
        let now = start + LONG;
        for (applied, at) in [(7, start), (8, now)] {
            holds.note_built(&[(2, applied)], at);
            holds.note(3, Some(Held { why: "group g2".to_owned(), generation: Some(2) }), at);
            assert_eq!((holds.alarm(None, at), holds.alarm(with(799), at)), (None, None));
        }
        assert_eq!(holds.alarm(with(800), start), None, "that may be over soon");
        let said = "partition 3: group g2 yet: it is being built and gets on; the log grows meanwhile; 80 % of the \
                    memory that the log may take is in use";
        assert_eq!(holds.alarm(with(800), now).as_deref(), Some(said));
    }
}
