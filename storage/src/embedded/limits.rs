//! The port `RateLimits`, in memory: what clients did of late is worth no write, and a restart may forget it. The
//! tables are bounded: a subject that has all its permits again makes room, and if there is none, a new one is
//! refused as busy. Each policy has a table of its own, so that a flood of addresses refuses no sends.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use shared::clock::Timestamp;
use shared::limits::{COUNTED_MAX, LOGIN_DELAY_MAX, LOGIN_FAILURES_REMEMBERED};
use shared::ports::{RateLimits, StoreError};
use shared::rate::{Counted, LoginKey, Rate, Taken, login_delay};

use super::Embedded;

const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

#[derive(Default)]
pub(super) struct Limits {
    sends: Table<Counted, u64>,
    logins: Table<Counted, u64>,
    registrations: Table<Counted, u64>,
    failed: Table<LoginKey, Failed>,
}

#[derive(Debug, Clone, Copy)]
struct Failed {
    failures: u32,
    waits_until: Timestamp,
}

#[async_trait]
impl RateLimits for Embedded {
    async fn take(&self, counted: &Counted, rate: Rate, wanted: u32) -> Result<Taken, StoreError> {
        let limits = self.limits();
        let table = match counted {
            Counted::Sends(_) => &limits.sends,
            Counted::Logins(_) => &limits.logins,
            Counted::Registrations(_) => &limits.registrations,
        };
        let now = self.now();
        table.change(counted, now, |full_at| {
            let (taken, full_at) = rate.take(full_at.unwrap_or(0), now.0 * 1_000, wanted);
            (taken, (taken.granted > 0).then(|| (full_at, Timestamp(full_at.div_ceil(1_000)))))
        })
    }

    async fn try_login(&self, login: &LoginKey) -> Result<Duration, StoreError> {
        let now = self.now();
        self.limits().failed.change(login, now, |failed| {
            let Failed { failures, waits_until } = failed.unwrap_or(Failed { failures: 0, waits_until: now });
            if waits_until > now {
                // A clock that was set back makes nobody wait for longer than the longest.
                return (Duration::from_millis(waits_until.0 - now.0).min(LOGIN_DELAY_MAX), None);
            }
            let failures = failures.saturating_add(1);
            let failed = Failed { failures, waits_until: now.plus(login_delay(failures)) };
            (Duration::ZERO, Some((failed, now.plus(LOGIN_FAILURES_REMEMBERED))))
        })
    }

    async fn forget_failures(&self, login: &LoginKey) -> Result<(), StoreError> {
        self.limits().failed.remove(login);
        Ok(())
    }
}

/// Values that end: after its end a value is as good as absent.
struct Table<K, V>(Mutex<Rows<K, V>>);

struct Rows<K, V> {
    by_key: HashMap<K, (V, Timestamp)>,
    swept: Timestamp,
}

impl<K, V> Default for Table<K, V> {
    fn default() -> Self {
        Self(Mutex::new(Rows { by_key: HashMap::new(), swept: Timestamp(0) }))
    }
}

impl<K: Clone + Eq + Hash, V: Copy> Table<K, V> {
    /// `change` gets what is there and says what is to be there, until when; `None` leaves it as it is.
    fn change<T>(
        &self,
        key: &K,
        now: Timestamp,
        change: impl FnOnce(Option<V>) -> (T, Option<(V, Timestamp)>),
    ) -> Result<T, StoreError> {
        let rows = &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(row) = rows.by_key.get_mut(key) {
            let (answer, changed) = change(Some(row.0).filter(|_| now < row.1));
            *row = changed.unwrap_or(*row);
            return Ok(answer);
        }
        rows.make_room(now)?;
        let (answer, changed) = change(None);
        if let Some(row) = changed {
            rows.by_key.insert(key.clone(), row);
        }
        Ok(answer)
    }

    fn remove(&self, key: &K) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).by_key.remove(key);
    }
}

impl<K: Eq + Hash, V> Rows<K, V> {
    fn make_room(&mut self, now: Timestamp) -> Result<(), StoreError> {
        // A table that stays full is not looked through for every newcomer.
        if self.by_key.len() >= COUNTED_MAX && self.swept.plus(SWEEP_INTERVAL) <= now {
            self.by_key.retain(|_, (_, end)| now < *end);
            self.swept = now;
        }
        if self.by_key.len() < COUNTED_MAX {
            Ok(())
        } else {
            Err(StoreError::Busy { queue: "a table of limits" })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_table_takes_a_newcomer_when_somebody_is_forgotten() {
        let table = Table::default();
        let put =
            |key: usize, now, end| table.change(&key, Timestamp(now), |_| ((), Some(((), Timestamp(end)))));
        for key in 0..COUNTED_MAX {
            put(key, 0, 10_000 + u64::from(key == 0)).unwrap();
        }
        assert!(matches!(put(COUNTED_MAX, 9_000, 20_000), Err(StoreError::Busy { .. })), "all are in use");
        assert!(put(COUNTED_MAX, 9_999, 20_000).is_err(), "and are not looked through again at once");
        put(1, 9_999, 20_000).expect("who is counted already is counted on");
        put(COUNTED_MAX, 10_000, 20_000).unwrap();
        let found =
            |key: usize, now| table.change(&key, Timestamp(now), |found| (found.is_some(), None)).unwrap();
        assert!(found(0, 10_000) && found(1, 10_000) && found(COUNTED_MAX, 10_000));
        assert!(!found(2, 10_000) && !found(0, 10_001), "what has ended is not there");
    }
}
