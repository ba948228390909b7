//! How many requests of one user are served at once, and how many event streams are open. Each process counts its own: an exact number over all
//! instances would cost every request a round trip, and what this protects, the process, is one of them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;

use super::{LimitMetrics, refusal};
use crate::ids::Username;
use crate::process::config::{InFlightOptions, StreamOptions, Switch};
use crate::process::problem::Problem;

/// Clones share the counts.
#[derive(Clone)]
pub struct InFlight(Option<Arc<Counts>>);

struct Counts {
    most: u32,
    /// Of which there may be so many.
    what: &'static str,
    /// Who has none is not in it, so it is bounded by the connections.
    by_user: Mutex<HashMap<Username, u32>>,
    refused: Counter,
}

impl InFlight {
    #[must_use]
    pub fn new(options: &InFlightOptions, metrics: &LimitMetrics) -> Self {
        let refused = metrics.refused("in_flight");
        Self::counting(options.rate_limits, options.in_flight_limit, "requests at once", refused)
    }

    /// The same for event streams. The edge gives all of a token to one process.
    #[must_use]
    pub fn of_streams(rate_limits: Switch, options: &StreamOptions, metrics: &LimitMetrics) -> Self {
        Self::counting(rate_limits, options.stream_limit, "open event streams", metrics.refused("streams"))
    }

    fn counting(rate_limits: Switch, most: u32, what: &'static str, refused: Counter) -> Self {
        match rate_limits {
            Switch::Off => Self(None),
            Switch::On => Self(Some(Arc::new(Counts { most, what, by_user: Mutex::default(), refused }))),
        }
    }

    /// One more of a user, until the guard is dropped.
    ///
    /// # Errors
    /// 429 when there are as many as may be.
    pub fn enter(&self, user: &Username) -> Result<Held, Problem> {
        let Some(counts) = &self.0 else { return Ok(Held(None)) };
        let mut by_user = counts.lock();
        let count = by_user.get(user).copied().unwrap_or(0);
        if count < counts.most {
            by_user.insert(user.clone(), count + 1);
            return Ok(Held(Some((counts.clone(), user.clone()))));
        }
        drop(by_user);
        counts.refused.inc();
        Err(refusal(&format!("too many {}", counts.what), Duration::from_secs(1)))
    }
}

impl Counts {
    fn lock(&self) -> MutexGuard<'_, HashMap<Username, u32>> {
        self.by_user.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The place of a request that is served, or of a stream.
#[must_use = "the place is free again when this is dropped"]
pub struct Held(Option<(Arc<Counts>, Username)>);

impl Drop for Held {
    fn drop(&mut self) {
        let Some((counts, user)) = &self.0 else { return };
        let mut by_user = counts.lock();
        match by_user.get_mut(user) {
            Some(count) if *count > 1 => *count -= 1,
            Some(_) | None => drop(by_user.remove(user)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::{REQUESTS_IN_FLIGHT_PER_USER, STREAMS_PER_USER};
    use crate::process::problem::Code;

    #[test]
    fn the_seventeenth_at_once_is_refused() {
        let in_flight = InFlight::new(&InFlightOptions::default(), &LimitMetrics::default());
        let [samer, lena]: [Username; 2] = ["samer", "lena"].map(|name| name.parse().unwrap());
        let mut held: Vec<_> =
            (0..REQUESTS_IN_FLIGHT_PER_USER).map(|_| in_flight.enter(&samer).unwrap()).collect();
        for _ in 0..3 {
            assert_eq!(in_flight.enter(&samer).err().map(|problem| problem.code), Some(Code::RateLimited));
        }
        let other = in_flight.enter(&lena).unwrap();
        held.pop();
        held.push(in_flight.enter(&samer).unwrap());
        assert!(in_flight.enter(&samer).is_err());
        drop((held, other));
        assert!(in_flight.0.as_ref().unwrap().lock().is_empty(), "nobody is remembered");
    }

    #[test]
    fn the_fifth_stream_is_refused() {
        let streams = InFlight::of_streams(Switch::On, &StreamOptions::default(), &LimitMetrics::default());
        let samer = "samer".parse().unwrap();
        let held: Vec<_> = (0..STREAMS_PER_USER).map(|_| streams.enter(&samer).unwrap()).collect();
        let refused = streams.enter(&samer).err().unwrap();
        assert_eq!((refused.code, held.len()), (Code::RateLimited, 4));
        assert!(refused.detail.starts_with("too many open event streams"), "{}", refused.detail);
    }

    #[test]
    fn without_limits_nobody_is_counted() {
        let options = InFlightOptions { rate_limits: Switch::Off, ..InFlightOptions::default() };
        let in_flight = InFlight::new(&options, &LimitMetrics::default());
        let samer = "samer".parse().unwrap();
        let held: Vec<_> = (0..1_000).map(|_| in_flight.enter(&samer).unwrap()).collect();
        assert_eq!(held.len(), 1_000);
    }
}
