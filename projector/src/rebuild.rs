//! Another generation of views: made, followed while projectors fill it, completed, served, dropped. It fills nothing
//! itself: that is what the projectors that run do.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use shared::generation::{Generation, Generations, Groups, State};
use shared::limits::{DROP_GRACE, PROGRESS_CHECK_INTERVAL, REBUILD_CAUGHT_UP};
use shared::ports::{FeedMonitor, FeedStatus, StoreError};
use tokio::time::{Instant, MissedTickBehavior};

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
    #[error("another rebuild is under way; if it was killed, try again in some seconds")]
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
#[derive(Debug, Clone, Serialize)]
pub struct Built {
    pub generation: u32,
    pub state: State,
    /// Events applied, of all that there are.
    pub applied: u64,
    pub events: u64,
    pub per_second: u64,
    /// At this rate; `None`: nothing moves.
    pub seconds_left: Option<u64>,
    /// The partition with the most events left, and how many.
    pub slowest: (u16, u64),
}

impl Rebuild {
    /// The generation that is being built, or a new one. At most one is built at a time, and by one caller.
    pub async fn begin(&self, rate: Option<u32>) -> Result<Generation, RebuildError> {
        self.refuse_a_log_that_lacks_events().await?;
        self.claim().await?;
        let Some(begun) = self.building().await? else {
            return Ok(self.generations.add(rate).await?);
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
        let mut speed = Speed::default();
        let mut looks = tokio::time::interval(PROGRESS_CHECK_INTERVAL);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            looks.tick().await;
            match self.look(*generation, &**monitor, &mut speed).await {
                Ok((built, behind)) => {
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

    async fn look(
        &self,
        number: u32,
        monitor: &dyn FeedMonitor,
        speed: &mut Speed,
    ) -> Result<(Built, Duration), RebuildError> {
        self.claim().await?;
        let Generation { state, .. } = self.find(number).await?;
        if !matches!(state, State::Building | State::Paused) {
            return Err(RebuildError::Not { number, state, what: "be built" });
        }
        let status = monitor.status().await?;
        Ok((speed.note(number, state, &status, Instant::now()), status.behind()))
    }

    /// Compares it with the log, all of it.
    pub async fn prove(&self, verifier: &Verifier, tell: Tell<'_>) -> Result<Comparison, RebuildError> {
        tokio::select! {
            compared = verify(verifier, tell) => Ok(compared?),
            lost = self.hold() => Err(lost),
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

    /// Readers follow within a second.
    pub async fn serve(&self, number: u32) -> Result<(), RebuildError> {
        let state = self.find(number).await?.state;
        match state {
            State::Serving => Ok(()),
            State::Projecting if self.generations.serve(number).await? => Ok(()),
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
            State::Dropped => return Ok(()),
            State::Dropping => {}
            State::Building | State::Paused | State::Projecting => {
                self.change(generation, State::Dropping).await?;
            }
        }
        // Projectors let go of it; one that still read would make the group again.
        tokio::time::sleep(DROP_GRACE).await;
        self.groups.remove(number).await?;
        self.generations.remove(number).await?;
        self.change(Generation { state: State::Dropping, ..generation }, State::Dropped).await
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

/// Events per second, over the looks so far: a rebuild is long, and its pace is steady.
#[derive(Default)]
struct Speed(Option<(Instant, u64)>);

impl Speed {
    fn note(&mut self, generation: u32, state: State, status: &FeedStatus, now: Instant) -> Built {
        let events: u64 = status.partitions.iter().map(|partition| partition.head).sum();
        let applied = events - status.lag().min(events);
        let (since, at_first) = *self.0.get_or_insert((now, applied));
        let ms = u64::try_from(now.duration_since(since).as_millis()).unwrap_or(u64::MAX).max(1);
        let per_second = applied.saturating_sub(at_first).saturating_mul(1_000) / ms;
        let slowest = status.partitions.iter().max_by_key(|partition| partition.lag);
        Built {
            generation,
            state,
            applied,
            events,
            per_second,
            seconds_left: (per_second > 0).then(|| status.lag() / per_second),
            slowest: slowest.map_or((0, 0), |partition| (partition.partition, partition.lag)),
        }
    }
}

impl Built {
    /// For a person.
    #[must_use]
    pub fn line(&self) -> String {
        let Self { generation, state, applied, events, per_second, seconds_left, slowest } = self;
        let percent = applied * 100 / (*events).max(1);
        let left = seconds_left.map_or_else(|| "nothing moves: does a projector run?".to_owned(), duration);
        let (partition, behind) = slowest;
        format!(
            "generation {generation} {state}: {percent} %, {applied} of {events} events, {per_second}/s, {left}, \
             partition {partition} has {behind} left"
        )
    }
}

fn duration(seconds: u64) -> String {
    format!("{}:{:02} to go", seconds / 60, seconds % 60)
}

#[cfg(test)]
mod tests {
    use shared::ports::{ConsumerStatus, PartitionStatus};

    use super::*;

    #[test]
    fn the_rate_is_that_of_all_looks() {
        let standing = |lags: [u64; 2]| {
            let partition = |(partition, lag)| PartitionStatus {
                partition,
                head: 1_000,
                pending: 0,
                lag,
                behind_ms: 5,
                loss: None,
            };
            let consumer = ConsumerStatus { name: "one".to_owned(), applied: 0, pending: 0 };
            FeedStatus { partitions: (0..).zip(lags).map(partition).collect(), consumers: vec![consumer] }
        };
        let mut speed = Speed::default();
        let start = Instant::now();
        let first = speed.note(2, State::Building, &standing([1_000, 1_000]), start);
        assert!(
            first.line().ends_with("0/s, nothing moves: does a projector run?, partition 1 has 1000 left")
        );
        let later = speed.note(2, State::Building, &standing([900, 700]), start + Duration::from_secs(4));
        let line =
            "generation 2 building: 20 %, 400 of 2000 events, 100/s, 0:16 to go, partition 0 has 900 left";
        assert_eq!(later.line(), line);
    }
}
