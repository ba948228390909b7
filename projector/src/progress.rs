//! Where the projection of all generations stands, looked at once a second: as metrics, and for `/readyz`, whether it
//! goes on. Behind alone is no fault, as a projector that catches up is behind; one that is behind and does not
//! advance needs somebody, as does a log that has lost events.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use prometheus_client::metrics::gauge::Gauge;
use shared::clock::{Clock, Timestamp};
use shared::limits::{
    ALARM_REPEATED_EVERY, BEHIND_MAX, PARKED_CHECKED_EVERY, PARKED_COUNTED_MAX, PROGRESS_CHECK_INTERVAL,
    STANDSTILL_MAX,
};
use shared::ports::{FeedMonitor, FeedStatus, Loss, ParkedEvents, Probe, StoreError};
use shared::process::telemetry::Metrics;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::storm::Storm;

/// What is looked at of a generation.
pub struct Watched {
    pub monitor: Arc<dyn FeedMonitor>,
    pub parked: Arc<dyn ParkedEvents>,
}

/// Clones are the same.
#[derive(Debug, Clone, Default)]
pub struct Progress(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    lag: Gauge,
    behind: Seconds,
    pending: Gauge,
    lost: Gauge,
    parked: Gauge,
    parked_oldest: Seconds,
    state: Mutex<State>,
}

type Seconds = Gauge<f64, AtomicU64>;

#[derive(Debug, Default)]
struct State {
    storm: Option<Storm>,
    applied: u64,
    /// When `applied` last changed, or nothing waited.
    advanced_at: Option<Instant>,
    /// Whether anything was applied between the last two looks.
    moves: bool,
    behind: Duration,
    /// By partition.
    lost: BTreeMap<u16, Loss>,
    /// The same of what the archive has.
    lost_of_archive: BTreeMap<u16, Loss>,
    /// When that was last said.
    alarmed_at: Option<Instant>,
    /// Why the log is not archived or trimmed.
    held: Option<String>,
}

impl Progress {
    #[must_use]
    pub fn new(metrics: &Metrics) -> Self {
        let progress = Self::default();
        metrics.register(|registry| {
            let Inner { lag, behind, pending, lost, parked, parked_oldest, state: _ } = &*progress.0;
            registry.register("projector_lag_events", "Events appended and not acknowledged", lag.clone());
            let help = "Age of the oldest event that is not acknowledged, in seconds";
            registry.register("projector_lag_seconds", help, behind.clone());
            let help = "Events delivered to some projector and not acknowledged";
            registry.register("projector_pending_events", help, pending.clone());
            let help = "Partitions of which the log has lost events";
            registry.register("projector_lost_partitions", help, lost.clone());
            registry.register("projector_parked_events", "Events that are parked", parked.clone());
            let help = "Since the oldest parked event was parked, in seconds";
            registry.register("projector_parked_oldest_seconds", help, parked_oldest.clone());
        });
        progress
    }

    /// Looks until shutdown. A store that does not answer leaves everything as it was: its own probe says so.
    pub async fn watch(self, watched: Vec<Watched>, clock: Clock, shutdown: CancellationToken) {
        let mut looks = tokio::time::interval(PROGRESS_CHECK_INTERVAL);
        looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut look = 0;
        while shutdown.run_until_cancelled(looks.tick()).await.is_some() {
            if let Ok(all) = statuses(&watched).await {
                self.note(&all, Instant::now());
            }
            if look % PARKED_CHECKED_EVERY == 0
                && let Ok(parked_at) = all_parked(&watched).await
            {
                self.note_parked(&parked_at, clock.now());
            }
            look = look.wrapping_add(1);
        }
    }

    pub(crate) fn note(&self, all: &[FeedStatus], now: Instant) {
        let sum = |of: fn(&FeedStatus) -> u64| all.iter().map(of).sum::<u64>();
        let (lag, applied) = (sum(FeedStatus::lag), sum(FeedStatus::applied));
        let behind = all.iter().map(FeedStatus::behind).max().unwrap_or_default();
        set(&self.0.lag, lag);
        set(&self.0.pending, sum(FeedStatus::pending));
        self.0.behind.set(behind.as_secs_f64());
        let partitions = all.iter().flat_map(|status| &status.partitions);
        let mut lost: Vec<_> =
            partitions.filter_map(|one| Some((one.partition, one.loss.clone()?))).collect();
        // Of several generations the one counts that nobody has repaired.
        lost.sort_by_key(|(_, loss)| !loss.is_repaired());
        let lost: BTreeMap<_, _> = lost.into_iter().collect();
        let mut state = self.state();
        let lost = state.with_those_of_archive(lost);
        set(&self.0.lost, lost.len() as u64);
        state.alarm(&lost, now);
        if lag == 0 || applied != state.applied || state.advanced_at.is_none() {
            state.advanced_at = Some(now);
        }
        state.behind = all.iter().map(FeedStatus::moving_behind).max().unwrap_or_default();
        state.moves = applied != state.applied;
        (state.applied, state.lost) = (applied, lost);
    }

    fn note_parked(&self, parked_at: &[Timestamp], now: Timestamp) {
        set(&self.0.parked, parked_at.len() as u64);
        let oldest = parked_at.iter().min().map_or(0, |oldest| now.0.saturating_sub(oldest.0));
        self.0.parked_oldest.set(Duration::from_millis(oldest).as_secs_f64());
    }

    /// The consumers end, for good.
    pub(crate) fn stop(&self, storm: Storm) {
        let Storm { read, unreadable } = storm;
        if self.state().storm.replace(storm).is_none() {
            tracing::error!(read, unreadable, "too many events cannot be applied; this projector stops");
        }
    }

    /// What the log has lost of what is archived, by partition. It is told with the next look at the generations.
    pub(crate) fn note_archive(&self, lost: BTreeMap<u16, Loss>) {
        self.state().lost_of_archive = lost;
    }

    /// The log grows beyond what it should: it cannot be archived or trimmed, and why. `None`: it can.
    pub(crate) fn note_held(&self, held: Option<String>) {
        let mut state = self.state();
        if let Some(why) = &held
            && state.held.is_none()
        {
            tracing::error!(why, "the log cannot be trimmed and grows");
        }
        state.held = held;
    }

    /// Age of the oldest event that is not acknowledged and can be, when it was last looked.
    pub(crate) fn behind(&self) -> Duration {
        self.state().behind
    }

    /// Whether anything was applied between the last two looks: somebody uses the system.
    pub(crate) fn moves(&self) -> bool {
        self.state().moves
    }

    fn judge(&self, now: Instant) -> Result<(), StoreError> {
        let State { storm, advanced_at, behind, ref lost, ref held, .. } = *self.state();
        if let Some(storm) = storm {
            return Err(StoreError::Unfit { store: "this projector", what: storm.to_string() });
        }
        if let Some((partition, loss)) = lost.first_key_value() {
            return Err(StoreError::Damaged { store: "the log", what: loss.text(*partition) });
        }
        let stands_for = advanced_at.map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        if behind > BEHIND_MAX && stands_for > STANDSTILL_MAX {
            return Err(StoreError::unavailable(PROJECTION, "it is behind and does not advance"));
        }
        if let Some(why) = held {
            let what = format!("it cannot be trimmed and grows: {why}");
            return Err(StoreError::Unfit { store: "the log", what });
        }
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// What views have seen comes first.
    fn with_those_of_archive(&self, lost: BTreeMap<u16, Loss>) -> BTreeMap<u16, Loss> {
        let mut all = self.lost_of_archive.clone();
        all.extend(lost);
        all
    }

    /// At once, and again while it is so.
    fn alarm(&mut self, lost: &BTreeMap<u16, Loss>, now: Instant) {
        let Some((partition, loss)) = lost.first_key_value() else {
            self.alarmed_at = None;
            return;
        };
        if self.alarmed_at.is_some_and(|at| now.saturating_duration_since(at) < ALARM_REPEATED_EVERY) {
            return;
        }
        self.alarmed_at = Some(now);
        let (partitions, first) = (lost.len(), loss.text(*partition));
        tracing::error!(partitions, first, "the log has lost events that were seen of it");
    }
}

const PROJECTION: &str = "projection";

#[async_trait]
impl Probe for Progress {
    fn name(&self) -> &'static str {
        PROJECTION
    }

    async fn check(&self) -> Result<(), StoreError> {
        self.judge(Instant::now())
    }
}

async fn statuses(watched: &[Watched]) -> Result<Vec<FeedStatus>, StoreError> {
    let mut all = Vec::with_capacity(watched.len());
    for Watched { monitor, .. } in watched {
        all.push(monitor.status().await?);
    }
    Ok(all)
}

/// When each was parked.
async fn all_parked(watched: &[Watched]) -> Result<Vec<Timestamp>, StoreError> {
    let mut all = Vec::new();
    for Watched { parked, .. } in watched {
        let events = parked.parked(None, PARKED_COUNTED_MAX).await?;
        all.extend(events.into_iter().map(|event| event.parked_at));
    }
    Ok(all)
}

pub(crate) fn set(gauge: &Gauge, number: u64) {
    gauge.set(i64::try_from(number).unwrap_or(i64::MAX));
}

#[cfg(test)]
mod tests {
    use shared::ports::{ConsumerStatus, PartitionStatus};

    use super::*;

    fn standing(lag: u64, behind: Duration, applied: u64) -> [FeedStatus; 1] {
        let behind_ms = u64::try_from(behind.as_millis()).unwrap();
        let head = lag + applied;
        let partition = PartitionStatus { partition: 0, head, pending: 0, lag, behind_ms, loss: None };
        let consumer = ConsumerStatus { name: "one".to_owned(), applied, pending: 0, silent_ms: Some(0) };
        [FeedStatus { partitions: vec![partition], consumers: vec![consumer] }]
    }

    #[test]
    fn behind_and_at_a_standstill_is_not_ready() {
        let (progress, start) = (Progress::default(), Instant::now());
        let long = BEHIND_MAX.max(STANDSTILL_MAX) + Duration::from_secs(1);
        let (old, young) = (long, Duration::from_secs(1));
        let mut now = start;
        let mut ready_after = |standing: [FeedStatus; 1]| {
            now += long;
            progress.note(&standing, now);
            progress.judge(now).is_ok()
        };
        assert!(ready_after(standing(5, old, 7)), "the first look knows of no standstill");
        assert!(!ready_after(standing(5, old, 7)), "behind, and nothing was applied since");
        assert!(ready_after(standing(9, old, 8)), "further behind, and it advances");
        assert!(ready_after(standing(9, young, 8)), "what waits is young");
        assert!(!ready_after(standing(9, old, 8)));
        assert!(ready_after(standing(0, Duration::ZERO, 8)), "nothing waits");
        assert!(!ready_after(standing(1, old, 8)), "an event that nobody takes");
    }

    #[test]
    fn a_partition_that_is_lost_is_told_while_it_is() {
        let (progress, mut status) = (Progress::default(), standing(0, Duration::ZERO, 7));
        status[0].partitions[0].loss = Some(Loss::Back { ends: 5, seen: 7 });
        progress.note(&status, Instant::now());
        let said = progress.judge(Instant::now()).unwrap_err();
        let expected = "the log is damaged: partition 0 ends at offset 5, and the views have seen 7";
        assert_eq!(said.to_string(), expected);
        progress.note(&standing(0, Duration::ZERO, 7), Instant::now());
        assert!(progress.judge(Instant::now()).is_ok());

        progress.note_archive(BTreeMap::from([(3, Loss::Archived { ends: 5, archived: 7 })]));
        progress.note(&standing(0, Duration::ZERO, 7), Instant::now());
        let said = progress.judge(Instant::now()).unwrap_err();
        let expected = "the log is damaged: partition 3 ends at offset 5, and the archive has 7";
        assert_eq!(said.to_string(), expected);
    }

    #[test]
    fn a_log_that_cannot_be_trimmed_is_told_while_it_is() {
        let progress = Progress::default();
        progress.note_held(Some("partition 3: group g2".to_owned()));
        let expected = "the log does not fit: it cannot be trimmed and grows: partition 3: group g2";
        assert_eq!(progress.judge(Instant::now()).unwrap_err().to_string(), expected);
        progress.note_held(None);
        assert!(progress.judge(Instant::now()).is_ok());
    }

    #[test]
    fn a_storm_is_told_whatever_else_is_true() {
        let progress = Progress::default();
        assert!(progress.judge(Instant::now()).is_ok());
        progress.stop(Storm { read: 950, unreadable: 900 });
        let said = progress.judge(Instant::now()).unwrap_err();
        assert_eq!(
            said.to_string(),
            "this projector does not fit: 900 of the last 950 events read cannot be applied"
        );
    }

    #[test]
    fn the_figures_are_what_was_seen_last() {
        let metrics = Metrics::default();
        let progress = Progress::new(&metrics);
        progress.note(&standing(5, Duration::from_millis(1_500), 7), Instant::now());
        progress.note_parked(&[Timestamp(9_000), Timestamp(7_750)], Timestamp(10_000));
        let text = metrics.text();
        for line in [
            "projector_lag_events 5",
            "projector_lag_seconds 1.5",
            "projector_pending_events 0",
            "projector_parked_events 2",
            "projector_parked_oldest_seconds 2.25",
        ] {
            assert!(text.lines().any(|shown| shown == line), "{line}: {text}");
        }
    }
}
