//! What reads cost, and how they went.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use shared::process::telemetry::Metrics;

/// How an answer came about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Without a read of the views of its own.
    Cached,
    /// From the views, as they were.
    Views,
    /// After it had waited for the projection.
    Waited,
    /// A page of the inbox.
    Inbox,
}

/// What became of a page that had to wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// All that it waited for came.
    Visible,
    /// It was shown with `Chat-Behind`.
    Behind,
    /// 503: what `min_seq` asks for did not come.
    NotYetVisible,
    /// As many waited as may, so it did not.
    Full,
    /// A store failed meanwhile.
    Failed,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindLabels {
    kind: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabels {
    outcome: &'static str,
}

/// Clones count together. Every label is there from the start, as 0.
#[derive(Clone)]
pub(crate) struct ReadMetrics {
    durations: [Histogram; 4],
    store_reads: Histogram,
    pub(crate) hits: Counter,
    pub(crate) coalesced: Counter,
    pub(crate) cached_bytes: Gauge,
    pub(crate) waiting: Gauge,
    outcomes: [Counter; 5],
}

impl ReadMetrics {
    pub(crate) fn new(metrics: &Metrics) -> Self {
        // 100 µs to 3.3 s.
        let histogram = || Histogram::new(exponential_buckets(0.000_1, 2.0, 16));
        let durations = Family::new_with_constructor(histogram as fn() -> Histogram);
        let outcomes = Family::<OutcomeLabels, Counter>::default();
        let kinds = ["cached", "views", "waited", "inbox"];
        let waits = ["visible", "behind", "not_yet_visible", "full", "failed"];
        let read = Self {
            durations: kinds.map(|kind| durations.get_or_create_owned(&KindLabels { kind })),
            store_reads: Histogram::new([0.0, 1.0, 2.0, 3.0, 5.0, 10.0, 50.0]),
            hits: Counter::default(),
            coalesced: Counter::default(),
            cached_bytes: Gauge::default(),
            waiting: Gauge::default(),
            outcomes: waits.map(|outcome| outcomes.get_or_create_owned(&OutcomeLabels { outcome })),
        };
        let Self { store_reads, hits, coalesced, cached_bytes, waiting, .. } = read.clone();
        metrics.register(|registry| {
            let help = "From the beginning of a read to its answer, in seconds; refusals are left out";
            registry.register("read_duration_seconds", help, durations);
            registry.register("page_store_reads", "Reads of the views that a page caused", store_reads);
            registry.register("page_cache_hits", "Times that a page was found ready", hits);
            let help = "Reads of the views that another page had begun and this one waited for";
            registry.register("page_reads_coalesced", help, coalesced);
            registry.register("page_cache_bytes", "Of the pages that are ready", cached_bytes);
            registry.register("pages_waiting", "Pages that wait for the projection", waiting);
            registry.register("page_waits", "Pages that had to wait, by what became of them", outcomes);
        });
        read
    }

    pub(crate) fn answered(&self, kind: Kind, took: Duration) {
        let durations = &self.durations;
        let [cached, views, waited, inbox] = durations;
        let durations = match kind {
            Kind::Cached => cached,
            Kind::Views => views,
            Kind::Waited => waited,
            Kind::Inbox => inbox,
        };
        durations.observe(took.as_secs_f64());
    }

    pub(crate) fn page(&self, store_reads: u32) {
        self.store_reads.observe(f64::from(store_reads));
    }

    pub(crate) fn waited(&self, outcome: Outcome) {
        let [visible, behind, not_yet_visible, full, failed] = &self.outcomes;
        let outcomes = match outcome {
            Outcome::Visible => visible,
            Outcome::Behind => behind,
            Outcome::NotYetVisible => not_yet_visible,
            Outcome::Full => full,
            Outcome::Failed => failed,
        };
        outcomes.inc();
    }
}
