//! Whether the log holds what was seen of it. Of each partition only the surroundings of the last entry that was seen
//! are read: ids and numbers rise together, so before it stand lower numbers and behind it higher ones, and a log
//! that was put back, and has gone on or not, shows it there.

use redis::{FromRedisValue, Pipeline, RedisResult, Value};
use shared::ids::Position;
use shared::limits::ENTRY_BYTES_MAX;
use shared::ports::{Delivery, Epoch, LogPlace, Loss, Seen};

use super::entry;
use super::keys::{Keys, LAST_OFFSET, LOG_EPOCH};
use super::server::unexpected;

/// What was asked of each partition.
const COMMANDS: usize = 3;

/// KEYS: events. ARGV: id, bytes. Answers the last entry up to the id and the first behind it. Of one that is larger, as no
/// event is, only the id: it is asked again and again.
const AROUND: &str = "#!lua flags=no-writes
local function bounded(entries)
  for _, entry in ipairs(entries) do
    local bytes = 0
    for _, word in ipairs(entry[2]) do bytes = bytes + #word end
    if bytes > tonumber(ARGV[2]) then entry[2] = {} end
  end
  return entries
end
return {
  bounded(redis.call('XREVRANGE', KEYS[1], ARGV[1], '-', 'COUNT', 1)),
  bounded(redis.call('XRANGE', KEYS[1], '(' .. ARGV[1], '+', 'COUNT', 1)),
}
";

/// What is known of each partition before anything is.
pub(super) fn unknown(partitions: u16) -> Vec<Seen> {
    (0..partitions)
        .map(|partition| Seen { partition, epoch: None, last: None, is_told_lost: false })
        .collect()
}

/// `known` with what was heard of it. What was seen in an earlier epoch counts no more.
pub(super) fn learn(known: &mut [Seen], heard: Vec<Seen>) {
    for heard in heard {
        let Some(known) = known.get_mut(usize::from(heard.partition)) else { continue };
        known.is_told_lost = heard.is_told_lost;
        if known.epoch != heard.epoch {
            *known = heard;
        } else if known.last.map(|last| last.offset) < heard.last.map(|last| last.offset) {
            known.last = heard.last;
        }
    }
}

/// About all partitions.
pub(super) fn question(keys: &Keys, known: &[Seen]) -> Pipeline {
    let mut pipeline = Pipeline::with_capacity(1 + COMMANDS * known.len());
    pipeline.cmd("HGET").arg(keys.log()).arg(LOG_EPOCH);
    for Seen { partition, last, .. } in known {
        let events = keys.events(*partition);
        let first = Position { partition: *partition, ms: 0, counter: 0 };
        let id = entry::id(&last.map_or(first, |last| last.position));
        pipeline.cmd("HGET").arg(keys.heads(*partition)).arg(LAST_OFFSET);
        pipeline.cmd("EXISTS").arg(&events);
        pipeline.cmd("EVAL").arg(AROUND).arg(1).arg(&events).arg(&id).arg(ENTRY_BYTES_MAX);
    }
    pipeline
}

/// What stands where the epoch does, and what each partition has lost.
pub(super) fn answer(
    known: &[Seen],
    answers: Vec<Value>,
) -> RedisResult<(Option<String>, Vec<Option<Loss>>)> {
    let mut answers = answers.into_iter();
    let text: Option<String> = read(answers.next())?;
    let epoch: Option<Epoch> = text.as_ref().and_then(|text| text.parse().ok());
    let mut losses = Vec::with_capacity(known.len());
    for seen in known {
        let head: Option<String> = read(answers.next())?;
        let head = head.map(|head| head.parse().unwrap_or(0));
        let is_there = read(answers.next())?;
        let (before, behind): (Value, Value) = read(answers.next())?;
        let around = [entry(seen.partition, before)?, entry(seen.partition, behind)?];
        let found = Found { head, is_there, around };
        losses.push(found.loss(seen, epoch.as_ref()));
    }
    Ok((text, losses))
}

fn read<T: FromRedisValue>(answer: Option<Value>) -> RedisResult<T> {
    Ok(redis::from_redis_value(answer.ok_or_else(unexpected)?)?)
}

fn entry(partition: u16, answer: Value) -> RedisResult<Option<Delivery>> {
    Ok(entry::deliveries(partition, answer).ok_or_else(unexpected)?.pop())
}

/// What there is of a partition.
struct Found {
    /// The last offset. `None`: there never was an event.
    head: Option<u64>,
    is_there: bool,
    /// The last entry up to the place that was seen, and the first behind it.
    around: [Option<Delivery>; 2],
}

impl Found {
    fn loss(&self, seen: &Seen, epoch: Option<&Epoch>) -> Option<Loss> {
        if self.head.is_some() && !self.is_there {
            return Some(Loss::Gone);
        }
        let other = match (epoch, &seen.epoch) {
            (Some(is), Some(seen)) if is != seen => Some(Loss::Other { is: is.clone(), seen: seen.clone() }),
            (Some(_) | None, _) => None,
        };
        match seen.last {
            Some(last) if !self.holds(&last) && !other.as_ref().is_some_and(Loss::is_repaired) => {
                Some(Loss::Back { ends: self.head.unwrap_or(0), seen: last.offset })
            }
            Some(_) | None => other,
        }
    }

    /// An entry that cannot be read proves nothing, and one that is not there may have been removed since: then the
    /// partition goes on behind it.
    fn holds(&self, last: &LogPlace) -> bool {
        let around = || self.around.iter().flatten();
        let is_at_its_place = around().any(|delivery| delivery.position == last.position);
        around().filter_map(LogPlace::of).all(|place| last.agrees(&place))
            && (is_at_its_place || self.head >= Some(last.offset))
    }
}

#[cfg(test)]
mod tests {
    use shared::event::{Event, Malformed, RecordedEvent, UserRegistered};
    use shared::ids::EventId;
    use shared::ports::Unreadable;
    use shared::{Clock, Timestamp};

    use super::*;

    fn place(ms: u64, offset: u64) -> LogPlace {
        LogPlace { position: Position { partition: 0, ms, counter: 0 }, offset }
    }

    fn delivery(ms: u64, offset: u64) -> Delivery {
        let id: EventId = Clock::system().new_id();
        let registered = UserRegistered { username: "anna".parse().unwrap(), password_hash: String::new() };
        let LogPlace { position, offset } = place(ms, offset);
        let recorded = RecordedEvent {
            position,
            offset,
            seq: 1,
            id,
            at: Timestamp(ms),
            trace: None,
            event: Event::UserRegistered(registered),
        };
        Delivery { position, content: Ok(recorded) }
    }

    fn unreadable(ms: u64) -> Delivery {
        let cause = Malformed::Field("seq");
        let content = Err(Unreadable { cause, place: None, bytes: Vec::new(), length: 0 });
        Delivery { position: place(ms, 0).position, content }
    }

    fn epoch(text: &str) -> Option<Epoch> {
        Some(text.parse().unwrap())
    }

    fn seen(partition: u16, text: &str, last: Option<LogPlace>) -> Seen {
        Seen { partition, epoch: epoch(text), last, is_told_lost: false }
    }

    /// Seen up to number 5, at 50.
    fn loss(head: Option<u64>, around: [Option<Delivery>; 2]) -> Option<Loss> {
        let seen = seen(0, "a", Some(place(50, 5)));
        Found { head, is_there: head.is_some(), around }.loss(&seen, epoch("a").as_ref())
    }

    #[test]
    fn a_log_that_goes_on_has_lost_nothing() {
        for (around, what) in [
            ([Some(delivery(50, 5)), None], "its end"),
            ([Some(delivery(50, 5)), Some(delivery(60, 6))], "in the middle"),
            ([None, Some(delivery(70, 7))], "all before it is trimmed"),
            ([None, None], "all of it is trimmed"),
            ([Some(delivery(40, 4)), Some(delivery(60, 6))], "it was deleted"),
            ([Some(unreadable(50)), None], "it cannot be read"),
            ([Some(unreadable(40)), Some(unreadable(60))], "nothing can be read"),
        ] {
            assert_eq!(loss(Some(7), around), None, "{what}");
        }
        let head_is_damaged = loss(Some(0), [Some(delivery(50, 5)), None]);
        assert_eq!(head_is_damaged, None);
    }

    #[test]
    fn a_log_that_was_put_back_shows() {
        let back = |ends| Some(Loss::Back { ends, seen: 5 });
        assert_eq!(loss(Some(3), [Some(delivery(30, 3)), None]), back(3), "as it was");
        assert_eq!(loss(None, [None, None]), back(0), "empty");
        let gone_on = [(4, 60), (5, 60), (1, 60)];
        for (offset, ms) in gone_on {
            let around = [Some(delivery(30, 3)), Some(delivery(ms, offset))];
            assert_eq!(loss(Some(9), around), back(9), "number {offset} again");
        }
        let by_a_clock_set_back = [Some(delivery(45, 7)), None];
        assert_eq!(loss(Some(7), by_a_clock_set_back), back(7));
        assert_eq!(loss(Some(7), [Some(delivery(50, 4)), None]), back(7), "another number at its place");
    }

    #[test]
    fn another_log_is_not_followed() {
        let seen = seen(0, "a.1", None);
        let found = Found { head: None, is_there: false, around: [None, None] };
        for (is, followed) in [("a.1", true), ("a", false), ("a.2", false), ("b", false)] {
            assert_eq!(found.loss(&seen, epoch(is).as_ref()).is_none(), followed, "{is}");
        }
        assert_eq!(found.loss(&seen, None), None, "nothing was seen, and nothing is there");
        let new = Seen { epoch: None, ..seen };
        assert_eq!(found.loss(&new, epoch("b").as_ref()), None);
        let gone = Found { head: Some(5), is_there: false, around: [None, None] };
        assert_eq!(gone.loss(&new, epoch("b").as_ref()), Some(Loss::Gone));
    }

    #[test]
    fn the_highest_counts_within_an_epoch() {
        let seen = |text: &str, last| seen(1, text, last);
        let mut known = unknown(2);
        let mut learned = |heard: Seen| {
            learn(&mut known, vec![heard]);
            known[1].clone()
        };
        for (heard, expected) in [
            (seen("a", Some(place(50, 5))), seen("a", Some(place(50, 5)))),
            (seen("a", Some(place(40, 4))), seen("a", Some(place(50, 5)))),
            (seen("a", None), seen("a", Some(place(50, 5)))),
            (seen("a.1", Some(place(45, 4))), seen("a.1", Some(place(45, 4)))),
        ] {
            assert_eq!(learned(heard), expected);
        }
    }
}
