//! Permits of one policy, taken from the store in blocks: a request costs no round trip while its subject's lease
//! lasts, and requests of one subject that find none share one call.
//!
//! The price: an instance may use the rest of a lease for [`LEASE_LIFETIME`], so over all instances a subject is
//! overshot by at most a block for each; and a block that one instance holds is one that another refuses. A subject
//! that has to make room for others in this bounded memory loses what was left of its lease: it is never given more
//! for it, only asked for again.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use quick_cache::sync::Cache;
use tokio::time::Instant;

use super::quota::Wording;
use super::{LimitMetrics, Policy, Quota, away, refusal};
use crate::limits::{LEASE_LIFETIME, LEASES_MAX};
use crate::ports::{RateLimits, StoreError};
use crate::process::problem::Problem;
use crate::rate::{Counted, Rate};

pub(super) struct Leases {
    rate: Rate,
    /// Permits of a lease.
    block: u32,
    store: Arc<dyn RateLimits>,
    subjects: Cache<Counted, Arc<Subject>>,
    wording: Wording,
    leased: Counter,
    refused: Counter,
    cached: Gauge,
}

#[derive(Default)]
struct Subject {
    known: Mutex<Known>,
    /// Held by whoever asks the store for all who wait.
    asking: tokio::sync::Mutex<()>,
}

/// What the last answer of the store leaves.
#[derive(Default)]
enum Known {
    #[default]
    Nothing,
    Lease {
        left: u32,
        in_store: u32,
        at: Instant,
    },
    /// Nothing is free before then, wherever it is asked.
    Empty {
        until: Instant,
    },
    Failed {
        at: Instant,
        error: StoreError,
    },
}

/// What a request gets without asking.
enum Taken {
    /// With how many there are still.
    Permit {
        remaining: u32,
    },
    Refused {
        wait: Duration,
    },
}

impl Leases {
    pub(super) fn new(
        policy: &'static str,
        rate: Rate,
        block: u32,
        store: Arc<dyn RateLimits>,
        metrics: &LimitMetrics,
    ) -> Self {
        let label = Policy { policy };
        Self {
            rate,
            block,
            store,
            subjects: Cache::new(LEASES_MAX),
            wording: Wording::new(policy, rate),
            leased: metrics.leased.get_or_create(&label).clone(),
            refused: metrics.refused(policy),
            cached: metrics.cached.get_or_create(&label).clone(),
        }
    }

    /// Uses one permit.
    ///
    /// # Errors
    /// 429 when there is none; 503 when the store is away.
    pub(super) async fn take(&self, counted: Counted) -> Result<Quota, Problem> {
        match self.taken(counted).await {
            Ok(Taken::Permit { remaining }) => {
                let used = self.rate.burst().saturating_sub(remaining);
                Ok(self.wording.quota(remaining, self.rate.time_of(used)))
            }
            Ok(Taken::Refused { wait }) => {
                self.refused.inc();
                Err(refusal("too many requests of this kind", wait).with_quota(self.wording.quota(0, wait)))
            }
            Err(error) => Err(away(&error)),
        }
    }

    async fn taken(&self, counted: Counted) -> Result<Taken, StoreError> {
        let subject = self.subject(&counted);
        if let Some(taken) = subject.known().take(self.rate, Instant::now()) {
            return Ok(taken);
        }
        let waits_since = Instant::now();
        let _turn = subject.asking.lock().await;
        {
            // Whoever asked in the meantime asked for this one too.
            let mut known = subject.known();
            if let Some(taken) = known.take(self.rate, Instant::now()) {
                return Ok(taken);
            }
            if let Some(error) = known.failure_since(waits_since) {
                return Err(error);
            }
        }
        self.ask(&counted, &subject).await
    }

    async fn ask(&self, counted: &Counted, subject: &Subject) -> Result<Taken, StoreError> {
        // Before the question: a lease is as old as its question.
        let at = Instant::now();
        match self.store.take(counted, self.rate, self.block).await {
            Ok(taken) if taken.granted > 0 => {
                self.leased.inc_by(u64::from(taken.granted));
                let (left, in_store) = (taken.granted - 1, taken.remaining);
                *subject.known() = Known::Lease { left, in_store, at };
                Ok(Taken::Permit { remaining: left.saturating_add(in_store) })
            }
            Ok(taken) => {
                *subject.known() = Known::Empty { until: Instant::now() + taken.next };
                Ok(Taken::Refused { wait: taken.next })
            }
            Err(error) => {
                *subject.known() = Known::Failed { at: Instant::now(), error: error.clone() };
                Err(error)
            }
        }
    }

    fn subject(&self, counted: &Counted) -> Arc<Subject> {
        if let Some(subject) = self.subjects.get(counted) {
            return subject;
        }
        let new = || Ok::<_, std::convert::Infallible>(Arc::default());
        let Ok(subject) = self.subjects.get_or_insert_with(counted, new);
        self.cached.set(i64::try_from(self.subjects.len()).unwrap_or(i64::MAX));
        subject
    }
}

impl Subject {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    /// `None`: the store has to be asked.
    fn take(&mut self, rate: Rate, now: Instant) -> Option<Taken> {
        match self {
            Self::Lease { left, in_store, at } if *left > 0 && now < *at + LEASE_LIFETIME => {
                *left -= 1;
                // Others may have used what the store had; what came back since then is there.
                let in_store = in_store.saturating_add(rate.permits_in(now.saturating_duration_since(*at)));
                Some(Taken::Permit { remaining: left.saturating_add(in_store).min(rate.burst()) })
            }
            Self::Empty { until } if now < *until => Some(Taken::Refused { wait: *until - now }),
            Self::Nothing | Self::Lease { .. } | Self::Empty { .. } | Self::Failed { .. } => None,
        }
    }

    /// Who waited for a call that failed does not make the same one: waiting would take longer with each.
    fn failure_since(&self, since: Instant) -> Option<StoreError> {
        match self {
            Self::Failed { at, error } if *at >= since => Some(error.clone()),
            Self::Nothing | Self::Lease { .. } | Self::Empty { .. } | Self::Failed { .. } => None,
        }
    }
}

/// What needs a store is tested on every store, in `storage::contract::limits`.
#[cfg(test)]
mod tests {
    use super::*;
    use crate::rate::Unit;

    const RATE: Rate = Rate::new(20, Unit::Second, 40);

    fn remaining(known: &mut Known, now: Instant) -> Option<u32> {
        match known.take(RATE, now)? {
            Taken::Permit { remaining } => Some(remaining),
            Taken::Refused { wait } => panic!("refused for {wait:?}"),
        }
    }

    #[test]
    fn a_lease_is_used_up_or_over() {
        let now = Instant::now();
        let mut known = Known::Lease { left: 2, in_store: 30, at: now };
        assert_eq!(remaining(&mut known, now), Some(31));
        assert_eq!(remaining(&mut known, now + Duration::from_millis(100)), Some(32), "two came back");
        assert_eq!(remaining(&mut known, now), None, "used up");
        let mut known = Known::Lease { left: 2, in_store: 30, at: now };
        assert_eq!(remaining(&mut known, now + LEASE_LIFETIME), None, "over");
        let just = now + LEASE_LIFETIME - Duration::from_millis(1);
        assert_eq!(remaining(&mut known, just), Some(40), "never more than the burst");
    }

    #[test]
    fn what_is_empty_stays_so_until_something_comes_back() {
        let now = Instant::now();
        let mut known = Known::Empty { until: now + Duration::from_millis(50) };
        let refused = known.take(RATE, now + Duration::from_millis(20));
        assert!(matches!(refused, Some(Taken::Refused { wait }) if wait == Duration::from_millis(30)));
        assert!(known.take(RATE, now + Duration::from_millis(50)).is_none());
    }

    #[test]
    fn a_failure_is_that_of_those_who_waited_for_it() {
        let at = Instant::now();
        let known = Known::Failed { at, error: StoreError::Busy { queue: "a table" } };
        assert!(known.failure_since(at - Duration::from_millis(1)).is_some());
        assert!(known.failure_since(at + Duration::from_millis(1)).is_none(), "who came later asks again");
    }
}
