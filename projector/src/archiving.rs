//! Copies every entry of the log into the archive, and has the log forget what is there and is older than the hot window.
//! Every projector archives the partitions that are its own among those that live; of one that two hold to be theirs
//! nobody notices, as both write the same blocks.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::pin;
use std::sync::Arc;

use futures_util::stream::{self, StreamExt};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use shared::generation::{Generation, Generations, State};
use shared::limits::{ARCHIVE_INTERVAL, ARCHIVE_PARTITIONS_AT_ONCE};
use shared::ports::{
    Archive, FeedMonitor, FeedStatus, HotLog, HotPartition, HotStanding, LogMemory, Loss, Origin, StoreError,
};
use shared::process::telemetry::Metrics;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::progress::{Progress, set};

pub(crate) mod blocks;
mod holds;
mod losses;
pub(crate) mod numbers;
mod partition;
mod window;

pub(crate) use losses::losses;
pub use window::HotWindow;

use holds::{Held, Holds};
use losses::lost;
use partition::Partition;

/// What one projector does for archive and log.
pub struct Archiver {
    pub log: Arc<dyn HotLog>,
    pub archive: Arc<dyn Archive>,
    /// Of which log the views are.
    pub views: watch::Receiver<Origin>,
    pub generations: Arc<dyn Generations>,
    /// Of a generation: who works on it.
    pub monitor: Box<dyn Fn(u32) -> Arc<dyn FeedMonitor> + Send + Sync>,
    pub name: String,
    /// `None`: nothing is trimmed.
    pub window: Option<HotWindow>,
    /// How many starts of the archive's store were seen.
    pub starts: watch::Receiver<u64>,
    pub counters: ArchiveCounters,
    pub progress: Progress,
}

/// What was archived and trimmed by this process, and how its partitions stand.
#[derive(Debug, Clone, Default)]
pub struct ArchiveCounters {
    archived: Counter,
    trimmed: Counter,
    hot_bytes: Gauge,
    memory: Gauge,
    held: Gauge,
}

impl ArchiveCounters {
    #[must_use]
    pub fn new(metrics: &Metrics) -> Self {
        let counters = Self::default();
        metrics.register(|registry| {
            let Self { archived, trimmed, hot_bytes, memory, held } = counters.clone();
            registry.register("projector_archived_events", "Events copied into the archive", archived);
            let help = "Events removed from the log, which the archive has";
            registry.register("projector_trimmed_events", help, trimmed);
            let help = "Memory that the streams of all partitions take, in bytes";
            registry.register("projector_hot_bytes", help, hot_bytes);
            let help = "Of the memory that the log's store may take, what is in use; 0: it has no bound";
            registry.register("projector_log_memory_percent", help, memory);
            let help =
                "Partitions of this projector that are not archived, or not trimmed, as they should be";
            registry.register("projector_held_partitions", help, held);
        });
        counters
    }
}

/// What is wrong with this projector's partitions.
#[derive(Default)]
struct Faults {
    holds: Holds,
    /// The log lacks what the archive has.
    losses: BTreeMap<u16, Loss>,
}

impl Faults {
    /// What came of a partition. That a store is away its own probe says.
    fn note(&mut self, partition: u16, held: Result<Option<Held>, StoreError>) {
        let held = match held {
            Err(error) if error.is_retryable() => return,
            Err(error) => Some(error.to_string().into()),
            Ok(held) => held,
        };
        self.holds.note(partition, held, Instant::now());
    }
}

/// Until shutdown. What fails is tried again with the next look; nothing is trimmed for it meanwhile.
pub async fn keep_archive(mut archiver: Archiver, shutdown: CancellationToken) {
    let (mut partitions, mut faults) = (BTreeMap::new(), Faults::default());
    let mut looks = tokio::time::interval(ARCHIVE_INTERVAL);
    looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while shutdown.run_until_cancelled(looks.tick()).await.is_some() {
        if archiver.starts.has_changed().unwrap_or(false) {
            archiver.starts.mark_unchanged();
            partitions.values_mut().for_each(Partition::go_back);
        }
        let look = archiver.look(&mut partitions, &mut faults);
        match shutdown.run_until_cancelled(look).await {
            Some(Ok(())) => {}
            // A store that is away is told by its own probe.
            Some(Err(error)) => {
                tracing::debug!(error = &error as &dyn std::error::Error, "cannot look at the log");
            }
            None => return,
        }
    }
}

impl Archiver {
    async fn look(
        &self,
        partitions: &mut BTreeMap<u16, Partition>,
        faults: &mut Faults,
    ) -> Result<(), StoreError> {
        let HotStanding { epoch, partitions: standing, memory } = self.log.standing().await?;
        set(&self.counters.memory, memory.map_or(0, LogMemory::percent));
        // What the archive lacks of its own log another one would be taken for.
        if !epoch.is_some_and(|epoch| self.views.borrow().is_of(&epoch)) {
            return Ok(());
        }
        let generations = self.generations.list().await?;
        let names = self.living(&generations).await?;
        let built = self.built(&generations).await?;
        let bytes = standing.iter().map(|one| one.bytes).sum::<u64>();
        set(&self.counters.hot_bytes, bytes);
        let of_all = Share { bytes, partitions: standing.len() as u64 };
        let own = |one: &HotPartition| owner(&names, one.partition) == Some(self.name.as_str());
        let own: Vec<_> = standing.into_iter().filter(own).collect();
        let is_own = |partition: &u16| own.iter().any(|one| one.partition == *partition);
        partitions.retain(|partition, _| is_own(partition));
        faults.holds.retain(is_own);
        faults.losses.retain(|partition, _| is_own(partition));
        faults.holds.note_built(&built, Instant::now());
        self.make_ready(&own, partitions, faults).await;
        self.note_losses(partitions, faults).await?;
        self.attend_all(&own, partitions, faults, of_all).await;
        self.tell(faults, memory, Instant::now());
        Ok(())
    }

    /// Those of which it is known then how far they are archived are in `partitions`.
    async fn make_ready(
        &self,
        own: &[HotPartition],
        partitions: &mut BTreeMap<u16, Partition>,
        faults: &mut Faults,
    ) {
        let known: Vec<_> =
            own.iter().map(|standing| (*standing, partitions.remove(&standing.partition))).collect();
        let work = stream::iter(known)
            .map(|(standing, known)| async move { (standing.partition, self.ready(standing, known).await) });
        let mut work = pin!(work.buffer_unordered(ARCHIVE_PARTITIONS_AT_ONCE));
        while let Some((number, ready)) = work.next().await {
            match ready {
                Ok(partition) => drop(partitions.insert(number, partition)),
                Err(error) => faults.note(number, Err(error)),
            }
        }
    }

    async fn ready(&self, standing: HotPartition, known: Option<Partition>) -> Result<Partition, StoreError> {
        let mut partition = match known {
            Some(partition) => partition,
            None => Partition::begin(&*self.archive, standing).await?,
        };
        partition.make_ready(&*self.log, &*self.archive, standing).await?;
        Ok(partition)
    }

    /// Of those that are ready.
    async fn note_losses(
        &self,
        partitions: &BTreeMap<u16, Partition>,
        Faults { holds, losses }: &mut Faults,
    ) -> Result<(), StoreError> {
        let ends: Vec<_> = partitions.values().filter_map(Partition::end).collect();
        let lost = lost(&*self.log, &ends).await?;
        losses.retain(|partition, _| !partitions.contains_key(partition));
        losses.extend(lost);
        holds.retain(|partition| !losses.contains_key(partition));
        Ok(())
    }

    /// But for those that have lost something: nothing may be done with them.
    async fn attend_all(
        &self,
        own: &[HotPartition],
        partitions: &mut BTreeMap<u16, Partition>,
        faults: &mut Faults,
        of_all: Share,
    ) {
        let whole = own.iter().filter(|one| !faults.losses.contains_key(&one.partition));
        let whole = whole.filter_map(|one| Some((*one, partitions.remove(&one.partition)?)));
        let work = stream::iter(whole.collect::<Vec<_>>()).map(|(standing, partition)| async move {
            (standing.partition, self.attend(standing, partition, of_all).await)
        });
        let mut work = pin!(work.buffer_unordered(ARCHIVE_PARTITIONS_AT_ONCE));
        while let Some((number, attended)) = work.next().await {
            let held = attended.map(|(partition, held)| {
                partitions.insert(number, partition);
                held
            });
            faults.note(number, held);
        }
    }

    /// Archives what the partition has gained, and trims it. Returns also why it was not trimmed as it should be.
    async fn attend(
        &self,
        standing: HotPartition,
        mut partition: Partition,
        of_all: Share,
    ) -> Result<(Partition, Option<Held>), StoreError> {
        let archived = partition.archive(&*self.log, &*self.archive).await?;
        self.counters.archived.inc_by(archived);
        let Some(window) = &self.window else { return Ok((partition, None)) };
        let trimmed = partition.trim(&*self.log, &*self.archive, window, standing, of_all).await?;
        self.counters.trimmed.inc_by(trimmed.events);
        Ok((partition, trimmed.held))
    }

    /// The names of the projectors that are heard of.
    async fn living(&self, generations: &[Generation]) -> Result<BTreeSet<String>, StoreError> {
        let serving = generations.iter().find(|one| one.state == State::Serving);
        let mut names = BTreeSet::from([self.name.clone()]);
        if let Some(serving) = serving {
            names.extend(heard(&(self.monitor)(serving.number).status().await?));
        }
        Ok(names)
    }

    /// Those that are being built, and how many events they have applied. Only trimming can be held up by them.
    async fn built(&self, generations: &[Generation]) -> Result<Vec<(u32, u64)>, StoreError> {
        let mut built = Vec::new();
        let are_built = |one: &&Generation| one.state == State::Building && self.window.is_some();
        for Generation { number, .. } in generations.iter().filter(are_built) {
            built.push((*number, (self.monitor)(*number).status().await?.applied()));
        }
        Ok(built)
    }

    fn tell(&self, Faults { holds, losses }: &Faults, memory: Option<LogMemory>, now: Instant) {
        self.progress.note_archive(losses.clone());
        set(&self.counters.held, holds.count() as u64);
        self.progress.note_held(holds.alarm(memory, now));
    }
}

/// A name may be listed long after its projector ended: where nobody is left to take over from it, or of a group before.
fn heard(status: &FeedStatus) -> impl Iterator<Item = String> {
    let living = status.consumers.iter().filter(|consumer| consumer.is_heard());
    living.filter_map(|consumer| consumer.name.rsplit_once('/').map(|(name, _)| name.to_owned()))
}

/// What all partitions have, of which each may have an equal share.
#[derive(Clone, Copy)]
struct Share {
    bytes: u64,
    partitions: u64,
}

/// Whoever of them all says so himself: the highest of a hash of name and partition, so that one that comes or goes
/// moves only its own partitions.
fn owner(names: &BTreeSet<String>, partition: u16) -> Option<&str> {
    let rank = |name: &&String| xxhash_rust::xxh3::xxh3_64_with_seed(name.as_bytes(), partition.into());
    names.iter().max_by_key(rank).map(String::as_str)
}

#[cfg(test)]
mod tests {
    use shared::ports::ConsumerStatus;

    use super::*;

    #[test]
    fn every_partition_has_one_owner_and_a_new_projector_moves_only_its_own() {
        let names = |names: &[&str]| names.iter().map(ToString::to_string).collect::<BTreeSet<_>>();
        let (two, three) = (names(&["one", "two"]), names(&["one", "two", "three"]));
        let mut moved = 0;
        for partition in 0..1_000 {
            let (before, after) = (owner(&two, partition).unwrap(), owner(&three, partition).unwrap());
            assert!(before == after || after == "three");
            moved += usize::from(before != after);
        }
        assert!((250..450).contains(&moved), "{moved}");
        assert_eq!(owner(&names(&[]), 0), None);
    }

    #[test]
    fn who_is_not_heard_of_owns_nothing() {
        let consumer = |(name, silent_ms): (&str, _)| {
            let name = name.to_owned();
            ConsumerStatus { name, applied: 5, pending: 0, silent_ms }
        };
        let of =
            [("one/1", Some(900)), ("one/2", Some(30_000)), ("dead/1", Some(30_000)), ("before/1", None)];
        let consumers = of.map(consumer).to_vec();
        let living: Vec<_> = heard(&FeedStatus { partitions: Vec::new(), consumers }).collect();
        assert_eq!(living, ["one"]);
    }
}
