//! What became of the requests of one measurement: latencies of what was accepted and of what was refused, and
//! the number of all else. It knows no clock: who records says how long it took.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use hdrhistogram::Histogram;

/// Above this a latency is counted as this.
const LATENCY_MAX: Duration = Duration::from_secs(60);
/// Three digits: an error of at most 0.1 %.
const SIGNIFICANT_DIGITS: u8 = 3;

#[derive(Debug, Clone)]
pub(crate) struct Tally {
    accepted: Histogram<u64>,
    refused: Histogram<u64>,
    /// Answers that are neither, by status; 0 stands for no answer.
    failed: BTreeMap<u16, u64>,
    /// Requests that came due while every connection was taken, and were given up by a client that does not wait.
    pub(crate) skipped: u64,
    /// Of the accepted, those that said that they do not show all that they should.
    pub(crate) behind: u64,
}

impl Tally {
    pub(crate) fn new() -> Self {
        let latencies = || {
            Histogram::new_with_bounds(1, micros(LATENCY_MAX), SIGNIFICANT_DIGITS)
                .expect("the bounds and the digits are ones that a histogram takes")
        };
        Self { accepted: latencies(), refused: latencies(), failed: BTreeMap::new(), skipped: 0, behind: 0 }
    }

    /// 2xx is accepted; 429 and 503 are honest refusals; everything else, and no answer, is a failure.
    pub(crate) fn record(&mut self, answer: &io::Result<u16>, latency: Duration) {
        match answer {
            Ok(200..=299) => self.accepted.saturating_record(micros(latency)),
            Ok(429 | 503) => self.refused.saturating_record(micros(latency)),
            Ok(status) => *self.failed.entry(*status).or_default() += 1,
            Err(_) => self.add_unanswered(1),
        }
    }

    pub(crate) fn add_unanswered(&mut self, requests: u64) {
        if requests > 0 {
            *self.failed.entry(0).or_default() += requests;
        }
    }

    pub(crate) fn add(&mut self, other: &Self) {
        // The bounds are the same, so nothing can be left out.
        self.accepted.add(&other.accepted).expect("both have the same bounds");
        self.refused.add(&other.refused).expect("both have the same bounds");
        for (status, count) in &other.failed {
            *self.failed.entry(*status).or_default() += count;
        }
        self.skipped += other.skipped;
        self.behind += other.behind;
    }

    pub(crate) fn accepted(&self) -> u64 {
        self.accepted.len()
    }

    pub(crate) fn refused(&self) -> u64 {
        self.refused.len()
    }

    pub(crate) fn failed(&self) -> u64 {
        self.failed.values().sum()
    }

    /// Requests that ended.
    pub(crate) fn answered(&self) -> u64 {
        self.accepted() + self.refused() + self.failed()
    }

    pub(crate) fn failed_by_status(&self) -> &BTreeMap<u16, u64> {
        &self.failed
    }

    /// In ms; `quantile` in 0..=1. 0 when nothing was accepted.
    pub(crate) fn accepted_ms(&self, quantile: f64) -> f64 {
        millis(&self.accepted, quantile)
    }

    pub(crate) fn refused_ms(&self, quantile: f64) -> f64 {
        millis(&self.refused, quantile)
    }
}

fn micros(latency: Duration) -> u64 {
    u64::try_from(latency.as_micros()).unwrap_or(u64::MAX)
}

fn millis(latencies: &Histogram<u64>, quantile: f64) -> f64 {
    latencies.value_at_quantile(quantile) as f64 / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    #[test]
    fn percentiles_are_within_a_thousandth() {
        let mut tally = Tally::new();
        (1..=1_000).for_each(|n| tally.record(&Ok(201), ms(n)));
        for (quantile, exact) in [(0.5, 500.0), (0.99, 990.0), (0.999, 999.0), (1.0, 1_000.0)] {
            let found = tally.accepted_ms(quantile);
            assert!((found / exact - 1.0).abs() < 0.001, "{quantile}: {found}");
        }
        tally.record(&Ok(201), ms(3_600_000));
        assert!(tally.accepted_ms(1.0) < 61_000.0, "counted as the longest");
    }

    #[test]
    fn answers_are_told_apart() {
        let mut tally = Tally::new();
        assert_eq!(tally.accepted_ms(0.99), 0.0);
        for status in [200, 201, 204, 429, 503, 404, 504] {
            tally.record(&Ok(status), ms(1));
        }
        tally.record(&Err(io::ErrorKind::UnexpectedEof.into()), ms(1));
        let mut twice = tally.clone();
        twice.add(&tally);
        twice.add_unanswered(0);
        assert_eq!((twice.accepted(), twice.refused(), twice.failed(), twice.answered()), (6, 4, 6, 16));
        assert_eq!(twice.failed_by_status(), &BTreeMap::from([(0, 2), (404, 2), (504, 2)]));
    }
}
