//! Counts what consumers were given that had been given before.

use prometheus_client::metrics::counter::Counter;
use shared::process::telemetry::Metrics;

/// Of all consumers of a process. Clones count together.
#[derive(Debug, Clone, Default)]
pub(in crate::redis) struct Redeliveries {
    pub(super) own: Counter,
    pub(super) taken_over: Counter,
}

impl Redeliveries {
    pub(in crate::redis) fn register(&self, metrics: &Metrics) {
        let Self { own, taken_over } = self.clone();
        metrics.register(|registry| {
            let help = "Events read again by the consumer that had read them and not acknowledged them";
            registry.register("projector_redelivered_events", help, own);
            let help = "Events taken over from consumers that were heard of no more";
            registry.register("projector_claimed_events", help, taken_over);
        });
    }
}
