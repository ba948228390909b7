//! What the event streams of one process do.

use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use shared::process::telemetry::Metrics;

#[derive(Clone)]
pub(super) struct LiveMetrics {
    pub(super) open: Gauge,
    sent: Counter,
    delivery: Histogram,
    pub(super) resets: Counter,
    pub(super) cuts: Counter,
    ring_events: Gauge,
    ring_bytes: Gauge,
}

impl LiveMetrics {
    pub(super) fn new(metrics: &Metrics) -> Self {
        let own = Self {
            open: Gauge::default(),
            sent: Counter::default(),
            // 1 ms to 16 s.
            delivery: Histogram::new(exponential_buckets(0.001, 2.0, 15)),
            resets: Counter::default(),
            cuts: Counter::default(),
            ring_events: Gauge::default(),
            ring_bytes: Gauge::default(),
        };
        metrics.register(|registry| {
            let Self { open, sent, delivery, resets, cuts, ring_events, ring_bytes } = own.clone();
            registry.register("live_streams_open", "Event streams", open);
            registry.register("live_events_sent", "Events written to streams", sent);
            let help = "From an event's time in the log to its write to a stream, in seconds";
            registry.register("live_delivery_seconds", help, delivery);
            registry.register("live_resets", "Readers told to reload", resets);
            registry.register("live_streams_cut", "Streams cut off because they were not read", cuts);
            registry.register("live_ring_events", "Events held for streams", ring_events);
            registry.register("live_ring_bytes", "What they take", ring_bytes);
        });
        own
    }

    /// `after`: of one that happened while its stream was open.
    pub(super) fn sent(&self, after: Option<Duration>) {
        self.sent.inc();
        if let Some(after) = after {
            self.delivery.observe(after.as_secs_f64());
        }
    }

    pub(super) fn holds(&self, events: usize, bytes: usize) {
        let size = |size: usize| i64::try_from(size).unwrap_or(i64::MAX);
        self.ring_events.set(size(events));
        self.ring_bytes.set(size(bytes));
    }
}
