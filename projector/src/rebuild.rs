//! Another generation of views: made, followed while projectors fill it, completed, served, dropped. It fills nothing
//! itself: that is what the projectors that run do.

use std::sync::Arc;
use std::time::Duration;

use shared::clock::{Clock, Timestamp};
use shared::generation::{Generation, Generations, Groups, State};
use shared::limits::{
    DROP_GRACE, GENERATIONS_RETIRED_EVERY, PROGRESS_CHECK_INTERVAL, REBUILD_CAUGHT_UP, REBUILD_STANDSTILL_MAX,
};
use shared::ports::{FeedMonitor, FeedStatus, StoreError};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use crate::verify::{Comparison, Tell, Verifier, VerifyError, verify};

/// What an operator may do with generations.
pub struct Rebuild {
    pub generations: Arc<dyn Generations>,
    pub groups: Arc<dyn Groups>,
    /// Of a generation.
    pub verifier: Box<dyn Fn(u32) -> Verifier + Send + Sync>,
    /// Whoever rebuilds, told from all others.
    pub holder: String,
}

#[derive(Debug, thiserror::Error)]
pub enum RebuildError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Verify(#[from] VerifyError),
    #[error("another rebuild or repair is under way; if it was killed, try again in some seconds")]
    UnderWay,
    #[error("there is no generation {0}")]
    Unknown(u32),
    #[error("nothing is being rebuilt")]
    Nothing,
    #[error("generation {number} is {state}, so it cannot {what}")]
    Not { number: u32, state: State, what: &'static str },
    #[error("{0}: `projector repair` first")]
    Lost(String),
    #[error("generation {0} was changed by somebody else just now")]
    Changed(u32),
}

/// How far a generation is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Built {
    pub generation: u32,
    pub state: State,
    /// Events applied, of all that there are.
    pub applied: u64,
    pub events: u64,
    /// None was for longer than [`REBUILD_STANDSTILL_MAX`].
    pub stands: bool,
    /// The partition with the most events left, and how many.
    pub slowest: (u16, u64),
}

impl Rebuild {
    /// The generation that is being built, or a new one. At most one is built at a time, and by one caller.
    pub async fn begin(&self, rate: Option<u32>) -> Result<Generation, RebuildError> {
        self.refuse_a_log_that_lacks_events().await?;
        self.claim().await?;
        let Some(begun) = self.building().await? else {
            // It may wait for a migration for longer than a claim lasts.
            return self.held(async { Ok(self.generations.add(rate).await?) }).await;
        };
        let begun = self.settle(begun, State::Building).await?;
        self.generations.limit(begun.number, rate).await?;
        Ok(Generation { rate, ..begun })
    }

    /// Waits until it has everything but the last moments, telling once a second. A store that is away is waited for.
    pub async fn follow(
        &self,
        verifier: &Verifier,
        mut tell: impl FnMut(&Built),
    ) -> Result<(), RebuildError> {
        let Verifier { generation, monitor, .. } = verifier;
        let (mut applied, mut moved_at) = (0, Instant::now());
        let mut looks = tokio::time::interval(PROGRESS_CHECK_INTERVAL);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            looks.tick().await;
            match self.look(*generation, &**monitor).await {
                Ok((mut built, behind)) => {
                    if built.applied > applied || built.state == State::Paused {
                        moved_at = Instant::now();
                    }
                    applied = built.applied;
                    built.stands = moved_at.elapsed() > REBUILD_STANDSTILL_MAX;
                    tell(&built);
                    if built.state == State::Building && behind < REBUILD_CAUGHT_UP {
                        return Ok(());
                    }
                }
                Err(RebuildError::Store(error)) if error.is_retryable() => {
                    tracing::warn!(error = &error as &dyn std::error::Error, "cannot look; trying again");
                }
                Err(error) => return Err(error),
            }
        }
    }

    async fn look(&self, number: u32, monitor: &dyn FeedMonitor) -> Result<(Built, Duration), RebuildError> {
        self.claim().await?;
        let Generation { state, .. } = self.find(number).await?;
        if !matches!(state, State::Building | State::Paused) {
            return Err(RebuildError::Not { number, state, what: "be built" });
        }
        let status = monitor.status().await?;
        Ok((Built::of(number, state, &status), status.behind()))
    }

    /// Compares it with the log, all of it.
    pub async fn prove(&self, verifier: &Verifier, tell: Tell<'_>) -> Result<Comparison, RebuildError> {
        let proved = self.held(async { Ok(verify(verifier, tell).await?) }).await;
        if proved.is_err() {
            let Generation { number, state, .. } = self.find(verifier.generation).await?;
            if !state.has_views() {
                return Err(RebuildError::Not { number, state, what: "be built" });
            }
        }
        proved
    }

    /// Does something while nobody else rebuilds or repairs.
    pub async fn alone<T, E>(&self, act: impl Future<Output = Result<T, E>>) -> Result<T, E>
    where
        E: From<RebuildError>,
    {
        self.claim().await?;
        let done = self.held(act).await;
        let ended = self.end().await;
        let done = done?;
        ended?;
        Ok(done)
    }

    /// Does something while the right to rebuild, which it has, is kept.
    async fn held<T, E>(&self, act: impl Future<Output = Result<T, E>>) -> Result<T, E>
    where
        E: From<RebuildError>,
    {
        tokio::select! {
            done = act => done,
            lost = self.hold() => Err(lost.into()),
        }
    }

    /// Keeps the right to rebuild for as long as it is waited for, or until it is somebody else's.
    async fn hold(&self) -> RebuildError {
        loop {
            tokio::time::sleep(PROGRESS_CHECK_INTERVAL).await;
            match self.claim().await {
                Ok(()) => {}
                Err(RebuildError::Store(error)) if error.is_retryable() => {}
                Err(error) => return error,
            }
        }
    }

    /// It may serve from now on: it has been proved.
    pub async fn complete(&self, number: u32) -> Result<(), RebuildError> {
        self.claim().await?;
        let generation = self.find(number).await?;
        self.change(generation, State::Projecting).await
    }

    /// It may not serve any more: it was complete, and is not what the log says. `false`: it serves, or could not serve
    /// before either.
    ///
    /// # Errors
    /// [`RebuildError::UnderWay`] while another one is built: one at a time.
    pub async fn withdraw(&self, number: u32) -> Result<bool, RebuildError> {
        self.alone(async {
            if self.building().await?.is_some_and(|other| other.number != number) {
                return Err(RebuildError::UnderWay);
            }
            Ok(self.generations.change(number, State::Projecting, State::Building).await?)
        })
        .await
    }

    /// Others may rebuild.
    pub async fn end(&self) -> Result<(), RebuildError> {
        Ok(self.generations.release_rebuild(&self.holder).await?)
    }

    /// Projectors stop filling what is being built, until [`Rebuild::resume`] or [`Rebuild::begin`].
    pub async fn pause(&self) -> Result<Generation, RebuildError> {
        let generation = self.building().await?.ok_or(RebuildError::Nothing)?;
        self.settle(generation, State::Paused).await
    }

    pub async fn resume(&self) -> Result<Generation, RebuildError> {
        let generation = self.building().await?.ok_or(RebuildError::Nothing)?;
        self.settle(generation, State::Building).await
    }

    /// Drops what is being built.
    pub async fn cancel(&self) -> Result<Generation, RebuildError> {
        let generation = self.building().await?.ok_or(RebuildError::Nothing)?;
        self.drop(generation.number).await?;
        Ok(Generation { state: State::Dropped, ..generation })
    }

    /// Readers follow within a second. What served until now is kept until then, and [`retire`] drops it; where it serves
    /// already, all that served before.
    pub async fn serve(&self, number: u32, keep_until: Timestamp) -> Result<(), RebuildError> {
        let state = self.find(number).await?.state;
        match state {
            State::Serving => {
                for kept in self.generations.list().await?.iter().filter(|one| one.kept_until.is_some()) {
                    self.generations.keep(kept.number, keep_until).await?;
                }
                Ok(())
            }
            State::Projecting if self.generations.serve(number, keep_until).await? => Ok(()),
            State::Projecting => Err(RebuildError::Changed(number)),
            State::Building | State::Paused | State::Dropping | State::Dropped => {
                Err(RebuildError::Not { number, state, what: "serve" })
            }
        }
    }

    /// Removes its views, its group and what was parked of it. Interrupted, it can be repeated.
    pub async fn drop(&self, number: u32) -> Result<(), RebuildError> {
        let generation = self.find(number).await?;
        match generation.state {
            State::Serving => {
                return Err(RebuildError::Not { number, state: State::Serving, what: "be dropped" });
            }
            // One that stood still for longer than it was waited for may have made the group again since.
            State::Dropped => return Ok(self.groups.remove(number).await?),
            State::Dropping => {}
            State::Building | State::Paused | State::Projecting => {
                self.change(generation, State::Dropping).await?;
            }
        }
        // Projectors let go of it; one that still read would make the group again.
        tokio::time::sleep(DROP_GRACE).await;
        match self.find(number).await?.state {
            State::Dropping => {}
            State::Dropped => return Ok(()),
            // A store that lost its last seconds may have lost that it is to be dropped, and that another one serves.
            State::Building | State::Paused | State::Projecting | State::Serving => {
                return Err(RebuildError::Changed(number));
            }
        }
        self.groups.remove(number).await?;
        self.generations.remove(number).await?;
        // Or it is so already, by another one who was faster.
        let is_changed = self.generations.change(number, State::Dropping, State::Dropped).await?;
        if is_changed || self.find(number).await?.state == State::Dropped {
            Ok(())
        } else {
            Err(RebuildError::Changed(number))
        }
    }

    async fn drop_what_is_over(&self, now: Timestamp) -> Result<(), RebuildError> {
        for generation in self.generations.list().await? {
            let Generation { number, state, .. } = generation;
            let is_begun = generation.is_over(now) && self.generations.expire(number, now).await?;
            if is_begun || state == State::Dropping {
                self.drop(number).await?;
                tracing::info!(generation = number, "dropped");
            }
        }
        Ok(())
    }

    /// As it is then; nothing is written where it is so already.
    async fn settle(&self, generation: Generation, state: State) -> Result<Generation, RebuildError> {
        if generation.state != state {
            self.change(generation, state).await?;
        }
        Ok(Generation { state, ..generation })
    }

    async fn change(&self, generation: Generation, to: State) -> Result<(), RebuildError> {
        let Generation { number, state, .. } = generation;
        if !state.may_become(to) {
            let what = if to == State::Projecting { "be complete" } else { "be changed" };
            return Err(RebuildError::Not { number, state, what });
        }
        if self.generations.change(number, state, to).await? {
            Ok(())
        } else {
            Err(RebuildError::Changed(number))
        }
    }

    async fn claim(&self) -> Result<(), RebuildError> {
        if self.generations.claim_rebuild(&self.holder).await? { Ok(()) } else { Err(RebuildError::UnderWay) }
    }

    async fn find(&self, number: u32) -> Result<Generation, RebuildError> {
        let listed = self.generations.list().await?;
        listed.into_iter().find(|one| one.number == number).ok_or(RebuildError::Unknown(number))
    }

    /// A generation that is made from it would lack them too, and nobody would see that it does.
    async fn refuse_a_log_that_lacks_events(&self) -> Result<(), RebuildError> {
        let listed = self.generations.list().await?;
        let Some(serving) = listed.iter().find(|one| one.state == State::Serving) else { return Ok(()) };
        let status = (self.verifier)(serving.number).monitor.status().await?;
        let mut lost = status.partitions.iter().filter_map(|one| Some((one.partition, one.loss.as_ref()?)));
        match lost.find(|(_, loss)| !loss.is_repaired()) {
            Some((partition, loss)) => Err(RebuildError::Lost(loss.text(partition))),
            None => Ok(()),
        }
    }

    async fn building(&self) -> Result<Option<Generation>, RebuildError> {
        let listed = self.generations.list().await?;
        Ok(listed.into_iter().find(|one| matches!(one.state, State::Building | State::Paused)))
    }
}

/// Drops every generation whose rollback window is over, until shutdown, and finishes what was begun to be dropped
/// and is not. Every projector does it: a drop may be repeated, and made by several at once.
pub async fn retire(rebuild: Rebuild, clock: Clock, shutdown: CancellationToken) {
    let mut looks = tokio::time::interval(GENERATIONS_RETIRED_EVERY);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while shutdown.run_until_cancelled(looks.tick()).await.is_some() {
        let dropped = shutdown.run_until_cancelled(rebuild.drop_what_is_over(clock.now())).await;
        if let Some(Err(error)) = dropped {
            let is_expected = matches!(&error, RebuildError::Store(error) if error.is_retryable());
            let error = &error as &dyn std::error::Error;
            if is_expected {
                tracing::debug!(error, "cannot drop what is kept no longer; trying again");
            } else {
                tracing::warn!(error, "cannot drop what is kept no longer; trying again");
            }
        }
    }
}

impl Built {
    fn of(generation: u32, state: State, status: &FeedStatus) -> Self {
        let events = status.head();
        let applied = events - status.lag().min(events);
        let slowest = status.partitions.iter().max_by_key(|partition| partition.lag);
        Self {
            generation,
            state,
            applied,
            events,
            stands: false,
            slowest: slowest.map_or((0, 0), |partition| (partition.partition, partition.lag)),
        }
    }

    /// What a person wants to know besides.
    #[must_use]
    pub fn note(&self) -> String {
        let (partition, left) = self.slowest;
        match left {
            0 => String::new(),
            _ if self.stands => "nothing moves: live events go first, or no projector runs".to_owned(),
            _ => format!("partition {partition} has {left} left"),
        }
    }
}

#[cfg(test)]
mod tests {
    use shared::ports::PartitionStatus;

    use super::*;

    #[test]
    fn the_slowest_partition_is_told_unless_it_stands() {
        let built = |lags: [u64; 2]| {
            let partition = |(partition, lag)| PartitionStatus {
                partition,
                head: 1_000,
                pending: 0,
                lag,
                behind_ms: 5,
                loss: None,
            };
            let partitions = (0..).zip(lags).map(partition).collect();
            Built::of(2, State::Building, &FeedStatus { partitions, consumers: Vec::new() })
        };
        let begun = built([900, 700]);
        assert_eq!((begun.applied, begun.events), (400, 2_000));
        assert_eq!(begun.note(), "partition 0 has 900 left");
        assert_eq!(
            Built { stands: true, ..begun }.note(),
            "nothing moves: live events go first, or no projector runs"
        );
        assert_eq!(Built { stands: true, ..built([0, 0]) }.note(), "");
    }
}
