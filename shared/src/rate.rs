//! How often something may be done, and who is counted. The arithmetic is the generic cell rate algorithm: all that
//! is kept of a subject is when it will have all its permits again.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use sha2::{Digest, Sha256};

use crate::ids::Username;
use crate::limits::{
    LOGIN_DELAY_MAX, LOGIN_DELAY_MIN, LOGIN_FAILURES_FREE, RATE_FILL_TIME_MAX, RATE_PERMITS_MAX,
};
use crate::network::Network;

/// A number of permits per time, and how many may be used at once: `20/s:40`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    permits: u32,
    unit: Unit,
    burst: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    Second,
    Minute,
    Hour,
}

impl Unit {
    const ALL: [Self; 3] = [Self::Second, Self::Minute, Self::Hour];

    fn name(self) -> &'static str {
        match self {
            Self::Second => "s",
            Self::Minute => "min",
            Self::Hour => "h",
        }
    }

    const fn micros(self) -> u64 {
        match self {
            Self::Second => 1_000_000,
            Self::Minute => 60_000_000,
            Self::Hour => 3_600_000_000,
        }
    }
}

/// What a store answers to a request for permits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Taken {
    pub granted: u32,
    /// Free still.
    pub remaining: u32,
    /// Until there is a free one again; zero while there is.
    pub next: Duration,
}

impl Rate {
    /// # Panics
    /// When a number is none of `1..=RATE_PERMITS_MAX`.
    #[must_use]
    pub const fn new(permits: u32, unit: Unit, burst: u32) -> Self {
        assert!(permits >= 1 && permits <= RATE_PERMITS_MAX && burst >= 1 && burst <= RATE_PERMITS_MAX);
        Self { permits, unit, burst }
    }

    #[must_use]
    pub fn burst(self) -> u32 {
        self.burst
    }

    /// From one permit to the next: whole microseconds, rounded down, so that the rate is at least what was asked
    /// for.
    #[must_use]
    pub fn spacing_us(self) -> u64 {
        self.unit.micros() / u64::from(self.permits)
    }

    /// Until so many permits have come back.
    #[must_use]
    pub fn time_of(self, permits: u32) -> Duration {
        Duration::from_micros(self.spacing_us() * u64::from(permits))
    }

    /// How many permits come back within a time.
    #[must_use]
    pub fn permits_in(self, time: Duration) -> u32 {
        u32::try_from(time.as_micros() / u128::from(self.spacing_us())).unwrap_or(u32::MAX)
    }

    /// Takes as many permits as are free, at most `wanted`. `full_at` is when all are free again, as the last call
    /// left it; what it says is over when it is past. All times in µs of one clock. `take.lua` does the same.
    #[must_use]
    pub fn take(self, full_at: u64, now: u64, wanted: u32) -> (Taken, u64) {
        let (spacing, burst) = (self.spacing_us(), u64::from(self.burst));
        let window = spacing * burst;
        // Beyond the window is what a clock that was set back, or another rate before, has left.
        let full_at = full_at.clamp(now, now + window);
        let free = (now + window - full_at) / spacing;
        let granted = free.min(u64::from(wanted));
        let (remaining, full_at) = (free - granted, full_at + granted * spacing);
        let next = if remaining > 0 { 0 } else { full_at + spacing - window - now };
        let count = |permits: u64| u32::try_from(permits).expect("at most the burst");
        let (granted, remaining) = (count(granted), count(remaining));
        (Taken { granted, remaining, next: Duration::from_micros(next) }, full_at)
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}:{}", self.permits, self.unit.name(), self.burst)
    }
}

/// Why a text is not a [`Rate`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "RATE/s, /min or /h and the burst, such as 20/s:40; numbers from 1 to {RATE_PERMITS_MAX}, and a burst that fills within a day"
)]
pub struct InvalidRate;

impl FromStr for Rate {
    type Err = InvalidRate;
    fn from_str(text: &str) -> Result<Self, InvalidRate> {
        let number = |text: &str| {
            let digits = text.bytes().all(|byte| byte.is_ascii_digit());
            text.parse()
                .ok()
                .filter(|number| digits && (1..=RATE_PERMITS_MAX).contains(number))
                .ok_or(InvalidRate)
        };
        let (permits, rest) = text.split_once('/').ok_or(InvalidRate)?;
        let (unit, burst) = rest.split_once(':').ok_or(InvalidRate)?;
        let unit = Unit::ALL.into_iter().find(|known| known.name() == unit).ok_or(InvalidRate)?;
        let rate = Self { permits: number(permits)?, unit, burst: number(burst)? };
        if rate.time_of(rate.burst) <= RATE_FILL_TIME_MAX { Ok(rate) } else { Err(InvalidRate) }
    }
}

/// What is limited, and whose: each has permits of its own.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Counted {
    Sends(Username),
    Logins(Network),
    Registrations(Network),
}

/// `send:samer`, `login:203.0.113.7`: names and parsed addresses only.
impl fmt::Display for Counted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sends(user) => write!(f, "send:{user}"),
            Self::Logins(client) => write!(f, "login:{client}"),
            Self::Registrations(client) => write!(f, "register:{client}"),
        }
    }
}

/// Logins into one account from one address: a digest, because the account may be any text.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct LoginKey(pub [u8; 32]);

impl LoginKey {
    /// Names are compared in lower case.
    #[must_use]
    pub fn new(account: &str, client: Network) -> Self {
        // No address holds a line feed, so no two pairs are written alike.
        let digest =
            Sha256::new().chain_update(format!("{client}\n")).chain_update(account.to_ascii_lowercase());
        Self(digest.finalize().into())
    }
}

impl fmt::Debug for LoginKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LoginKey(..)")
    }
}

/// How long the next login has to wait after so many failed ones: nothing at first, then twice as long each time.
/// `login.lua` does the same.
#[must_use]
pub fn login_delay(failures: u32) -> Duration {
    let Some(beyond) = failures.checked_sub(LOGIN_FAILURES_FREE) else { return Duration::ZERO };
    2_u32
        .checked_pow(beyond)
        .map_or(LOGIN_DELAY_MAX, |times| LOGIN_DELAY_MIN.saturating_mul(times).min(LOGIN_DELAY_MAX))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn rates_have_one_spelling() {
        for text in ["20/s:40", "10/min:10", "1/h:1", "1000000/s:1000000", "1/h:24"] {
            assert_eq!(text.parse::<Rate>().unwrap().to_string(), text);
        }
        for text in [
            "",
            "20",
            "20/s",
            "20/s:",
            "20:40",
            "/s:40",
            "0/s:40",
            "20/s:0",
            "20/d:40",
            "20/S:40",
            "20/s:40:1",
            "-1/s:1",
            "+1/s:1",
            "1.5/s:1",
            " 1/s:1",
            "1000001/s:1",
            "1/s:1000001",
            "1/h:25",
            "99999999999/s:1",
        ] {
            assert_eq!(text.parse::<Rate>(), Err(InvalidRate), "{text}");
        }
    }

    #[test]
    fn a_burst_then_one_by_one() {
        let rate = Rate::new(20, Unit::Second, 40);
        let now = 1_000_000_000;
        let taken =
            |granted, remaining, next| Taken { granted, remaining, next: Duration::from_micros(next) };
        let (first, full_at) = rate.take(0, now, 10);
        assert_eq!((first, full_at), (taken(10, 30, 0), now + 500_000));
        let (rest, full_at) = rate.take(full_at, now, 100);
        assert_eq!((rest, full_at), (taken(30, 0, 50_000), now + 2_000_000));
        assert_eq!(rate.take(full_at, now, 1), (taken(0, 0, 50_000), full_at));
        assert_eq!(rate.take(full_at, now + 49_999, 1).0, taken(0, 0, 1));
        assert_eq!(rate.take(full_at, now + 50_000, 2).0, taken(1, 0, 50_000));
        assert_eq!(rate.take(full_at, now + 2_000_000, 1).0, taken(1, 39, 0));
        assert_eq!(
            rate.take(u64::MAX / 2, now, 1).0,
            taken(0, 0, 50_000),
            "no wait is longer than the rate's"
        );
    }

    #[test]
    fn failures_are_delayed_more_and_more() {
        let seconds = |failures| login_delay(failures).as_secs();
        assert_eq!(
            [0, 1, 9, 10, 11, 12, 15, 16, 17, 41, 42, 43, u32::MAX].map(seconds),
            [0, 0, 0, 1, 2, 4, 32, 60, 60, 60, 60, 60, 60]
        );
    }

    #[test]
    fn a_login_is_counted_by_account_and_address() {
        let client = |text: &str| Network::of_client(text.parse().unwrap());
        let key = LoginKey::new("samer", client("10.0.0.1"));
        assert_eq!(LoginKey::new("SAMER", client("10.0.0.1")), key);
        for other in [LoginKey::new("lena", client("10.0.0.1")), LoginKey::new("samer", client("10.0.0.2"))] {
            assert_ne!(other, key);
        }
        assert_eq!(format!("{key:?}"), "LoginKey(..)");
    }

    proptest! {
        /// Over any stretch of time, no more than the burst and what came back in it.
        #[test]
        fn never_more_than_the_burst_and_the_rate(
            permits in 1..2_000_u32,
            burst in 1..2_000_u32,
            steps in prop::collection::vec((0..5_000_000_u64, 0..100_u32), 1..60),
        ) {
            let rate = Rate::new(permits, Unit::Second, burst);
            let (start, mut now, mut full_at, mut granted) = (5_000_000_u64, 5_000_000_u64, 0, 0_u64);
            for (pause, wanted) in steps {
                now += pause;
                let (taken, next_full_at) = rate.take(full_at, now, wanted);
                full_at = next_full_at;
                granted += u64::from(taken.granted);
                prop_assert!(taken.granted <= wanted && taken.granted + taken.remaining <= burst);
                prop_assert!(granted <= u64::from(burst) + (now - start) / rate.spacing_us());
                // What it says of the next one is true to the microsecond.
                let next = u64::try_from(taken.next.as_micros()).unwrap();
                prop_assert_eq!(rate.take(full_at, now + next, 1).0.granted, 1);
                if next > 0 {
                    prop_assert_eq!(rate.take(full_at, now + next - 1, 1).0.granted, 0);
                }
            }
        }
    }
}
