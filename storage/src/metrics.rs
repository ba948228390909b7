//! What appenders of both families count, under the same names, so that one board shows either. They count from
//! the start; [`Appends::register`] makes it visible.

use std::future::Future;
use std::time::Instant;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use shared::ports::{AppendError, Appended, Refusal, StoreError};
use shared::process::telemetry::Metrics;
use tracing::Instrument;

/// Shown from the start, as 0: an alarm on what has not happened yet needs them.
const OUTCOMES: [&str; 13] = [
    "new",
    "replayed",
    "unchanged",
    "username_taken",
    "idempotency_conflict",
    "id_out_of_window",
    "unavailable",
    "unknown",
    "unreplicated",
    "busy",
    "damaged",
    "other",
    "unfit",
];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabels {
    outcome: &'static str,
}

/// One appender. Clones count together.
#[derive(Debug, Clone)]
pub(crate) struct Appends {
    durations: Histogram,
    queued: Gauge,
    per_call: Histogram,
    calls: Gauge,
    outcomes: Family<OutcomeLabels, Counter>,
}

impl Default for Appends {
    fn default() -> Self {
        let outcomes = Family::default();
        for outcome in OUTCOMES {
            drop(outcomes.get_or_create(&OutcomeLabels { outcome }));
        }
        Self {
            // 100 µs to 3.3 s.
            durations: Histogram::new(exponential_buckets(0.000_1, 2.0, 16)),
            queued: Gauge::default(),
            // 1 to 512.
            per_call: Histogram::new(exponential_buckets(1.0, 2.0, 10)),
            calls: Gauge::default(),
            outcomes,
        }
    }
}

impl Appends {
    pub(crate) fn register(&self, metrics: &Metrics) {
        let Self { durations, queued, per_call, calls, outcomes } = self.clone();
        metrics.register(|registry| {
            let help = "From the call of an append to the log's answer, in seconds";
            registry.register("append_duration_seconds", help, durations);
            registry.register("append_queued", "Commands that wait for a call", queued);
            registry.register("append_commands_per_call", "Commands sent or written together", per_call);
            registry.register("append_calls_in_flight", "Calls without an answer yet", calls);
            registry.register("append_outcomes", "Appends by what their callers were told", outcomes);
        });
    }

    /// Counts what the caller is told, unless it leaves before.
    pub(crate) async fn watch(
        &self,
        append: impl Future<Output = Result<Appended, AppendError>>,
    ) -> Result<Appended, AppendError> {
        let since = Instant::now();
        let answer = append.instrument(tracing::debug_span!("append")).await;
        // What the log never saw would make it look fast.
        if matches!(answer, Ok(_) | Err(AppendError::Refused(_))) {
            self.durations.observe(since.elapsed().as_secs_f64());
        }
        self.outcomes.get_or_create(&OutcomeLabels { outcome: outcome(&answer) }).inc();
        answer
    }

    pub(crate) fn queue(&self) {
        self.queued.inc();
    }

    /// They left the queue, to be called or refused.
    pub(crate) fn dequeue(&self, commands: usize) {
        self.queued.dec_by(i64::try_from(commands).unwrap_or(i64::MAX));
    }

    #[expect(clippy::cast_precision_loss, reason = "a group is far smaller than 2^52")]
    pub(crate) fn call(&self, commands: usize) {
        self.per_call.observe(commands as f64);
    }

    pub(crate) fn in_flight(&self, calls: usize) {
        self.calls.set(i64::try_from(calls).unwrap_or(i64::MAX));
    }
}

fn outcome(answer: &Result<Appended, AppendError>) -> &'static str {
    match answer {
        Ok(Appended::New(_)) => "new",
        Ok(Appended::Replayed(_)) => "replayed",
        Ok(Appended::Unchanged) => "unchanged",
        Err(AppendError::Refused(Refusal::UsernameTaken)) => "username_taken",
        Err(AppendError::Refused(Refusal::IdempotencyConflict)) => "idempotency_conflict",
        Err(AppendError::Refused(Refusal::IdOutOfWindow)) => "id_out_of_window",
        Err(AppendError::Store(StoreError::Unavailable { .. })) => "unavailable",
        Err(AppendError::Store(StoreError::Unknown { .. })) => "unknown",
        Err(AppendError::Store(StoreError::Busy { .. })) => "busy",
        Err(AppendError::Store(StoreError::Damaged { .. })) => "damaged",
        Err(AppendError::Store(StoreError::Unreplicated { .. })) => "unreplicated",
        Err(AppendError::Store(StoreError::Other { .. })) => "other",
        Err(AppendError::Store(StoreError::Unfit { .. })) => "unfit",
    }
}

#[cfg(test)]
mod tests {
    use shared::{Clock, Position, ports::Receipt};

    use super::*;

    #[tokio::test]
    async fn every_outcome_is_shown_and_counted() {
        let (appends, metrics) = (Appends::default(), Metrics::default());
        appends.register(&metrics);
        let clock = Clock::system();
        let position = Position { partition: 0, ms: 1, counter: 1 };
        let receipt = Receipt { id: clock.new_id(), seq: 1, at: clock.now(), position };
        let answers: [Result<Appended, AppendError>; 13] = [
            Ok(Appended::New(receipt)),
            Ok(Appended::Replayed(receipt)),
            Ok(Appended::Unchanged),
            Err(Refusal::UsernameTaken.into()),
            Err(Refusal::IdempotencyConflict.into()),
            Err(Refusal::IdOutOfWindow.into()),
            Err(StoreError::unavailable("test", "away").into()),
            Err(StoreError::unknown("test", "lost").into()),
            Err(StoreError::Unreplicated { store: "test", replicas: 0, required: 1 }.into()),
            Err(StoreError::Busy { queue: "test" }.into()),
            Err(StoreError::Damaged { store: "test", what: String::new() }.into()),
            Err(StoreError::Unfit { store: "test", what: String::new() }.into()),
            Err(StoreError::Other { store: "test", what: String::new() }.into()),
        ];
        let shown = |count| {
            let text = metrics.text();
            let line = |outcome| format!("append_outcomes_total{{outcome=\"{outcome}\"}} {count}\n");
            OUTCOMES.iter().all(|outcome| text.contains(&line(outcome)))
        };
        assert!(shown(0), "{}", metrics.text());
        for answer in answers {
            let _ = appends.watch(std::future::ready(answer)).await;
        }
        assert!(shown(1), "{}", metrics.text());
        assert!(metrics.text().contains("append_duration_seconds_count 6\n"), "what the log answered");
    }
}
