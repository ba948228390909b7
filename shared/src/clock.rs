//! The only place that reads the time or makes ids. A test passes a clock that it moves itself.

use std::cell::RefCell;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use chrono::{DateTime, Datelike, SecondsFormat, Timelike, Utc};
use serde::{Serialize, Serializer};
use ulid::Ulid;

use crate::ids::{EventId, TraceId};

/// A point in time: milliseconds since the Unix epoch, UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub u64);

impl Timestamp {
    #[must_use]
    pub fn plus(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(millis(duration)))
    }

    /// Zero when `earlier` is not: clocks differ.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }

    #[must_use]
    pub fn minus(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(millis(duration)))
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// RFC 3339, UTC, milliseconds: `2026-11-22T09:30:00.125Z`.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text())
    }
}

impl Timestamp {
    fn text(self) -> String {
        let time = i64::try_from(self.0).ok().and_then(DateTime::<Utc>::from_timestamp_millis);
        let time = time.unwrap_or(DateTime::<Utc>::MAX_UTC).naive_utc();
        let Ok(year @ 0..=9_999) = u32::try_from(time.year()) else {
            return time.and_utc().to_rfc3339_opts(SecondsFormat::Millis, true);
        };
        // Every message has a time, and chrono's own writing takes ten times as long.
        let mut text = *b"0000-00-00T00:00:00.000Z";
        let millis = time.nanosecond() / 1_000_000;
        for (end, mut number) in [
            (4, year),
            (7, time.month()),
            (10, time.day()),
            (13, time.hour()),
            (16, time.minute()),
            (19, time.second()),
            (23, millis),
        ] {
            for digit in text[..end].iter_mut().rev().take_while(|byte| byte.is_ascii_digit()) {
                *digit += u8::try_from(number % 10).expect("one digit");
                number /= 10;
            }
        }
        String::from_utf8(text.to_vec()).expect("digits are ASCII")
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text())
    }
}

/// Where time and ids come from.
#[derive(Debug, Clone, Default)]
pub struct Clock {
    /// Milliseconds; `None` is the system's clock.
    set: Option<Arc<AtomicU64>>,
}

impl Clock {
    #[must_use]
    pub fn system() -> Self {
        Self::default()
    }

    /// A clock that stands at `now` until it is moved. Clones share it.
    #[must_use]
    pub fn standing_at(now: Timestamp) -> Self {
        Self { set: Some(Arc::new(AtomicU64::new(now.0))) }
    }

    /// Moves a standing clock forward; the system's clock is left alone.
    pub fn advance(&self, by: Duration) {
        if let Some(set) = &self.set {
            set.fetch_add(millis(by), Ordering::SeqCst);
        }
    }

    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "this is the place that reads the time")]
    pub fn now(&self) -> Timestamp {
        match &self.set {
            Some(set) => Timestamp(set.load(Ordering::SeqCst)),
            None => Timestamp(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, millis)),
        }
    }

    /// A new id with this clock's time in it and 80 random bits.
    ///
    /// # Panics
    /// When the system has no source of randomness: nothing safe can be made without one.
    #[must_use]
    pub fn new_id(&self) -> EventId {
        let mut bytes = [0; 16];
        RANDOM.with_borrow_mut(|random| random.fill(&mut bytes[6..]));
        EventId(Ulid::from_parts(self.now().0, u128::from_be_bytes(bytes)))
    }

    /// A new trace: random bits.
    ///
    /// # Panics
    /// When the system has no source of randomness: nothing safe can be made without one.
    #[must_use]
    pub fn new_trace_id(&self) -> TraceId {
        let mut bytes = [0; 16];
        RANDOM.with_borrow_mut(|random| random.fill(&mut bytes));
        // All zeros are no trace.
        bytes[15] |= 1;
        TraceId::from_bytes(bytes).expect("one bit is set")
    }
}

/// Random bytes of the system, asked for many at a time: three ids are made per request, and asking costs more than
/// all else about them. Not for secrets, which should not lie in memory before they are needed.
struct Random {
    bytes: [u8; 640],
    used: usize,
}

thread_local! {
    static RANDOM: RefCell<Random> = const { RefCell::new(Random { bytes: [0; 640], used: 640 }) };
}

impl Random {
    fn fill(&mut self, into: &mut [u8]) {
        if self.bytes.len() - self.used < into.len() {
            getrandom::fill(&mut self.bytes).expect("the system gives random bytes");
            self.used = 0;
        }
        into.copy_from_slice(&self.bytes[self.used..][..into.len()]);
        self.used += into.len();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_read_as_rfc_3339() {
        assert_eq!(Timestamp(1_795_339_800_125).to_string(), "2026-11-22T09:30:00.125Z");
        assert_eq!(Timestamp(0).to_string(), "1970-01-01T00:00:00.000Z");
        assert!(Timestamp(u64::MAX).to_string().ends_with('Z'), "far out, but no panic");
    }

    #[test]
    fn timestamps_are_written_as_chrono_does() {
        let year_10_000 = 253_402_300_800_000;
        for ms in (0..year_10_000).step_by(86_399_999_989).chain([year_10_000 - 1, year_10_000]) {
            let time = DateTime::<Utc>::from_timestamp_millis(ms).unwrap();
            let text = Timestamp(u64::try_from(ms).unwrap()).to_string();
            assert_eq!(text, time.to_rfc3339_opts(SecondsFormat::Millis, true));
        }
    }

    #[test]
    fn ids_carry_the_clock() {
        let clock = Clock::standing_at(Timestamp(1_000));
        clock.advance(Duration::from_secs(1));
        assert_eq!(clock.new_id().timestamp_ms(), 2_000);
        let ids: std::collections::HashSet<_> = (0..1_000).map(|_| clock.new_id()).collect();
        assert_eq!(ids.len(), 1_000, "also when random bytes are asked for again");
    }
}
