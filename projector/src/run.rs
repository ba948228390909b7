//! The consumer. [`run`] never ends before shutdown: it backs off after an error and goes on. `consume` is the
//! straight line: read, project, write, acknowledge.

use std::sync::Arc;
use std::time::{Duration, Instant};

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use shared::Clock;
use shared::limits::{BATCH_EVENTS_MAX, UNFIT_EXPECTED_MAX};
use shared::ports::{Delivery, EventFeed, StoreError, ViewWriter};
use shared::process::telemetry::Metrics;
use shared::view::ViewChange;
use tokio_util::sync::CancellationToken;
use tracing::Span;

use crate::backoff::Backoff;
use crate::parking::park;
use crate::progress::Progress;
use crate::projections::project;
use crate::storm::{Storm, StormGuard};

/// One consumer of a generation, and where its changes go.
pub struct Projector {
    pub feed: Box<dyn EventFeed>,
    pub views: Arc<dyn ViewWriter>,
    pub counters: Counters,
    pub clock: Clock,
    /// `None`: whatever cannot be applied is parked, however much it is.
    pub guard: Option<StormGuard>,
    pub progress: Progress,
}

/// What projectors of this process have done.
#[derive(Debug, Clone, Default)]
pub struct Counters {
    events: Counter,
    changes: Counter,
    parked: Counter,
    failures: Counter,
    batches: Batches,
    reapplied: Counter,
}

/// How large batches are, and how long the views take for one.
#[derive(Debug, Clone)]
struct Batches {
    events: Histogram,
    durations: Histogram,
}

impl Default for Batches {
    fn default() -> Self {
        Self {
            // 1 to 16,384.
            events: Histogram::new(exponential_buckets(1.0, 2.0, 15)),
            // 250 µs to 8 s.
            durations: Histogram::new(exponential_buckets(0.000_25, 2.0, 16)),
        }
    }
}

impl Batches {
    #[expect(clippy::cast_precision_loss, reason = "a batch is far smaller than 2^52")]
    fn note(&self, events: usize, took: Duration) {
        self.events.observe(events as f64);
        self.durations.observe(took.as_secs_f64());
    }
}

impl Counters {
    #[must_use]
    pub fn new(metrics: &Metrics) -> Self {
        let counters = Self::default();
        metrics.register(|registry| {
            let Self { events, changes, parked, failures, batches, reapplied } = counters.clone();
            registry.register("projector_events", "Events acknowledged", events);
            registry.register("projector_changes", "Changes written to the views", changes);
            registry.register("projector_parked", "Events that could not be applied", parked);
            registry.register("projector_failures", "Batches that failed and are tried again", failures);
            let help = "Events applied again because the store may have lost them";
            registry.register("projector_reapplied_events", help, reapplied);
            registry.register("projector_batch_events", "Events read together", batches.events);
            let help = "From the write of a batch to the views' answer, in seconds";
            registry.register("projector_apply_duration_seconds", help, batches.durations);
        });
        counters
    }

    pub(crate) fn reapplied(&self, events: u64) {
        self.reapplied.inc_by(events);
    }
}

/// Projects until shutdown, or until there is a storm (see [`StormGuard`]). A failing store is retried for ever, with
/// backoff: a batch that was read is written and acknowledged before the next one is read, and before this ends.
pub async fn run(mut projector: Projector, shutdown: CancellationToken) {
    let mut backoff = Backoff::new();
    let mut batch = Vec::new();
    while let Err(failure) = consume(&mut projector, &mut batch, &shutdown, &mut backoff).await {
        let error = match failure {
            Failure::Store(error) => error,
            // Unacknowledged, the batch goes to another projector, which may know better.
            Failure::Storm(storm) => return projector.progress.stop(storm),
        };
        projector.counters.failures.inc();
        tell(&error, backoff.longest(), backoff.failing_for());
        if batch.is_empty() {
            let Some(()) = shutdown.run_until_cancelled(backoff.pause()).await else { return };
        } else {
            backoff.pause().await;
        }
    }
}

fn tell(error: &StoreError, backoff: Duration, failing_for: Duration) {
    let (retryable, retry_ms) = (error.is_retryable(), backoff.as_millis());
    let error = error as &dyn std::error::Error;
    if retryable {
        tracing::warn!(error, retry_ms, "a batch failed; it is tried again");
    } else if failing_for < UNFIT_EXPECTED_MAX {
        tracing::info!(error, retry_ms, "a batch failed; it is tried again");
    } else {
        tracing::error!(error, retry_ms, "a batch failed, and will until somebody helps; it is tried again");
    }
}

/// Why `consume` ends before shutdown.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Storm(#[from] Storm),
}

/// `batch` is what was read and is not finished: empty, or left by an attempt that failed.
async fn consume(
    projector: &mut Projector,
    batch: &mut Vec<Delivery>,
    shutdown: &CancellationToken,
    backoff: &mut Backoff,
) -> Result<(), Failure> {
    loop {
        if batch.is_empty() {
            if shutdown.is_cancelled() {
                return Ok(());
            }
            // Not dropped at shutdown: what it has read would stay pending.
            *batch = projector.feed.next_batch(BATCH_EVENTS_MAX).await?;
            if let Some(guard) = &projector.guard {
                guard.admit(batch)?;
            }
            continue;
        }
        projector
            .counters
            .parked
            .inc_by(batch.iter().filter(|delivery| delivery.content.is_err()).count() as u64);
        // Open until the batch is acknowledged.
        let _spans: Vec<_> = batch.iter().filter_map(span).collect();
        // Before the acknowledgement: a crash in between delivers again, and applying is idempotent.
        let changes = changes_of(batch, &projector.clock);
        let (count, since) = (changes.len() as u64, Instant::now());
        projector.views.apply(changes, batch).await?;
        projector.counters.batches.note(batch.len(), since.elapsed());
        projector.feed.ack(batch).await?;
        projector.counters.events.inc_by(batch.len() as u64);
        projector.counters.changes.inc_by(count);
        batch.clear();
        backoff.reset();
    }
}

/// What follows from a batch.
pub(crate) fn changes_of(batch: &[Delivery], clock: &Clock) -> Vec<ViewChange> {
    let mut changes = Vec::new();
    for delivery in batch {
        match &delivery.content {
            Ok(recorded) => {
                let trace_id = recorded.trace.map(|trace| tracing::field::display(trace.id));
                tracing::debug!(position = %recorded.position, event_id = %recorded.id, trace_id, "projecting");
                project(recorded, &mut changes);
            }
            Err(unreadable) => park(delivery.position, unreadable, clock.now(), &mut changes),
        }
    }
    changes
}

/// The work on an event whose trace is sampled.
fn span(delivery: &Delivery) -> Option<Span> {
    let trace = delivery.content.as_ref().ok()?.trace?;
    let trace_id = trace.id;
    trace.is_sampled.then(|| tracing::debug_span!("project", %trace_id))
}
