//! What clients may do: the limits of both APIs. In reading order: [`Limits`] (rates, and failed logins; for the
//! command API), [`InFlight`] (requests of a user at once; for both), [`Quota`] (what the client is told), `leases`
//! (how a request costs no round trip for its rate).
//!
//! A store that is away refuses what is limited: 503, and nothing was done. Without limits nothing is asked.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;

use super::config::{LimitOptions, Switch};
use super::problem::{Code, Outcome, Problem};
use super::telemetry::Metrics;
use crate::ids::Username;
use crate::limits::LEASE_LIFETIME;
use crate::network::Network;
use crate::ports::{RateLimits, StoreError};
use crate::rate::{Counted, LoginKey, Rate};

mod in_flight;
mod leases;
mod quota;

pub use in_flight::{Held, InFlight};
pub use quota::Quota;

use leases::Leases;

/// Rates and failed logins. Clones share everything.
#[derive(Clone)]
pub struct Limits(Option<Arc<Counting>>);

struct Counting {
    store: Arc<dyn RateLimits>,
    sends: Leases,
    logins: Leases,
    registrations: Leases,
    delayed_logins: Counter,
}

impl Limits {
    #[must_use]
    pub fn new(options: &LimitOptions, store: Arc<dyn RateLimits>, metrics: &LimitMetrics) -> Self {
        if options.in_flight.rate_limits == Switch::Off {
            return Self(None);
        }
        let leases = |policy, rate, block| Leases::new(policy, rate, block, store.clone(), metrics);
        Self(Some(Arc::new(Counting {
            sends: leases("send", options.send_limit, block(options.send_limit)),
            // One by one: these are exact over all instances, and a round trip is nothing to a password hash.
            logins: leases("login", options.login_limit, 1),
            registrations: leases("register", options.register_limit, 1),
            delayed_logins: metrics.refused("failed_logins"),
            store,
        })))
    }

    /// One send of a user.
    ///
    /// # Errors
    /// 429 beyond the limit; 503 when the store is away.
    pub async fn send(&self, user: &Username) -> Result<Quota, Problem> {
        match &self.0 {
            Some(counting) => counting.sends.take(Counted::Sends(user.clone())).await,
            None => Ok(Quota::unlimited()),
        }
    }

    /// One registration from an address.
    ///
    /// # Errors
    /// 429 beyond the limit; 503 when the store is away.
    pub async fn register(&self, client: IpAddr) -> Result<Quota, Problem> {
        match &self.0 {
            Some(counting) => {
                counting.registrations.take(Counted::Registrations(Network::of_client(client))).await
            }
            None => Ok(Quota::unlimited()),
        }
    }

    /// One login from an address.
    ///
    /// # Errors
    /// 429 beyond the limit; 503 when the store is away.
    pub async fn log_in(&self, client: IpAddr) -> Result<Quota, Problem> {
        match &self.0 {
            Some(counting) => counting.logins.take(Counted::Logins(Network::of_client(client))).await,
            None => Ok(Quota::unlimited()),
        }
    }

    /// The password of an account, which may be any text, is tried from an address. It counts as failed until
    /// [`Login::succeeded`]: whether the account exists plays no part, so it shows nowhere, in time neither.
    ///
    /// # Errors
    /// 429 while the account and address have to wait after failures; 503 when the store is away.
    pub async fn try_login(&self, client: IpAddr, account: &str) -> Result<Login, Problem> {
        let Some(counting) = &self.0 else { return Ok(Login(None)) };
        let key = LoginKey::new(account, Network::of_client(client));
        let wait = counting.store.try_login(&key).await.map_err(|error| away(&error))?;
        if wait.is_zero() {
            return Ok(Login(Some((counting.clone(), key))));
        }
        counting.delayed_logins.inc();
        Err(refusal("too many failed logins into this account", wait))
    }
}

/// A login that may be tried.
#[must_use = "a login that succeeded has to say so"]
pub struct Login(Option<(Arc<Counting>, LoginKey)>);

impl Login {
    /// The failures before it are forgotten.
    ///
    /// # Errors
    /// 503 when the store is away.
    pub async fn succeeded(self) -> Result<(), Problem> {
        let Some((counting, key)) = self.0 else { return Ok(()) };
        counting.store.forget_failures(&key).await.map_err(|error| away(&error))
    }
}

/// A quarter of the burst, so that another instance finds some; and no more than what comes back while the lease
/// lasts, so that what is never used is not missed.
fn block(rate: Rate) -> u32 {
    (rate.burst() / 4).min(rate.permits_in(LEASE_LIFETIME)).max(1)
}

fn refusal(what: &str, wait: Duration) -> Problem {
    let seconds = whole_seconds(wait);
    Problem::new(Code::RateLimited, format!("{what}; try again in {seconds} s")).with_retry_after(seconds)
}

/// Rounded up, so that who waits as long as he is told waits long enough; at least 1.
fn whole_seconds(time: Duration) -> u32 {
    u32::try_from(time.as_micros().div_ceil(1_000_000)).unwrap_or(u32::MAX).max(1)
}

/// Nothing of the request was done.
fn away(error: &StoreError) -> Problem {
    Problem::of_store(error, Code::LogUnavailable).with_outcome(Outcome::NotApplied)
}

/// What the limits of one process did, by policy.
#[derive(Clone, Default)]
pub struct LimitMetrics {
    leased: Family<Policy, Counter>,
    refused: Family<Policy, Counter>,
    cached: Family<Policy, Gauge>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Policy {
    policy: &'static str,
}

impl LimitMetrics {
    #[must_use]
    pub fn new(metrics: &Metrics) -> Self {
        let own = Self::default();
        metrics.register(|registry| {
            let Self { leased, refused, cached } = own.clone();
            registry.register("limit_permits_leased", "Permits taken from the store", leased);
            registry.register("limit_refusals", "Requests refused with 429", refused);
            registry.register("limit_cached_subjects", "Users or addresses that are remembered", cached);
        });
        own
    }

    fn refused(&self, policy: &'static str) -> Counter {
        self.refused.get_or_create(&Policy { policy }).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_small_and_comes_back_while_it_is_leased() {
        let block = |text: &str| block(text.parse().unwrap());
        assert_eq!(block("20/s:40"), 10);
        assert_eq!(block("1000000/s:1000000"), 250_000);
        for text in ["20/s:1", "20/s:7", "5/min:40", "1/h:24"] {
            assert_eq!(block(text), 1, "{text}");
        }
        assert_eq!(block("30/min:40"), 5, "what comes back in 10 s");
    }

    #[test]
    fn waits_are_rounded_up() {
        let seconds = |ms| whole_seconds(Duration::from_millis(ms));
        assert_eq!([0, 1, 999, 1_000, 1_001, 60_000].map(seconds), [1, 1, 1, 1, 2, 60]);
        assert_eq!(whole_seconds(Duration::from_nanos(1_000_000_000 + 1_000)), 2);
    }
}
