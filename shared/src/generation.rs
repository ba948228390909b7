//! Generations: full sets of views, each filled by its own consumer group. One of them is read; another one can be
//! filled beside it, proved, and read from then on. [`Generations`] is their register.

use std::fmt;

use async_trait::async_trait;
use serde::Serialize;

use crate::clock::Timestamp;
use crate::ports::StoreError;

/// One full set of view tables, and how it is filled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Generation {
    /// From 1, never used twice.
    pub number: u32,
    pub state: State,
    /// Events per second that one projector applies at most while it is built; `None`: as many as leave the
    /// serving one up to date.
    pub rate: Option<u32>,
    /// When the rollback window of one that has served ends: then projectors drop it. `None`: it has not, or does.
    pub kept_until: Option<Timestamp>,
}

impl Generation {
    /// It has served, and its rollback window is over.
    #[must_use]
    pub fn is_over(&self, now: Timestamp) -> bool {
        self.state == State::Projecting && self.kept_until.is_some_and(|end| end <= now)
    }
}

/// ```text
/// Building ⇄ Paused      Building ⇄ Projecting ⇄ Serving      all but Serving ─► Dropping ─► Dropped
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Filled from the first event on; not proved to be complete, so it may not serve.
    Building,
    /// It was being built; nobody fills it.
    Paused,
    /// Complete and kept up to date, read by nobody.
    Projecting,
    /// Complete and kept up to date, and the one that is read.
    Serving,
    /// It is being removed; nobody fills it.
    Dropping,
    /// Nothing is left of it but its number.
    Dropped,
}

impl State {
    pub const ALL: [Self; 6] =
        [Self::Building, Self::Paused, Self::Projecting, Self::Serving, Self::Dropping, Self::Dropped];

    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Building => "building",
            Self::Paused => "paused",
            Self::Projecting => "projecting",
            Self::Serving => "serving",
            Self::Dropping => "dropping",
            Self::Dropped => "dropped",
        }
    }

    /// Whether projectors work on it.
    #[must_use]
    pub fn is_filled(self) -> bool {
        matches!(self, Self::Building | Self::Projecting | Self::Serving)
    }

    /// Whether it holds all that its group has acknowledged since the first event.
    #[must_use]
    pub fn is_complete(self) -> bool {
        matches!(self, Self::Projecting | Self::Serving)
    }

    /// Whether somebody may make it so; what serves is decided by [`Generations::serve`] alone.
    #[must_use]
    pub fn may_become(self, to: Self) -> bool {
        match self {
            Self::Building => matches!(to, Self::Paused | Self::Projecting | Self::Dropping),
            Self::Paused => matches!(to, Self::Building | Self::Projecting | Self::Dropping),
            Self::Projecting => matches!(to, Self::Building | Self::Dropping),
            Self::Serving | Self::Dropped => false,
            Self::Dropping => to == Self::Dropped,
        }
    }

    /// Whether its tables are there.
    #[must_use]
    pub fn has_views(self) -> bool {
        self.is_filled() || self == Self::Paused
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The register. All processes follow a change within [`crate::limits::GENERATION_CHECK_INTERVAL`] and the time that
/// it takes to connect. Every change is one conditional write, so of two at once one fails.
#[async_trait]
pub trait Generations: Send + Sync {
    /// By number.
    async fn list(&self) -> Result<Vec<Generation>, StoreError>;

    /// Makes the tables of a new one, which is [`State::Building`] from then on. Those of a call that was interrupted
    /// are used by the next.
    async fn add(&self, rate: Option<u32>) -> Result<Generation, StoreError>;

    /// `false`: it is not in the state `from`, and nothing was changed. Not for [`State::Serving`]. Ends its rollback
    /// window.
    async fn change(&self, number: u32, from: State, to: State) -> Result<bool, StoreError>;

    /// Sets [`Generation::rate`]. `false`: it is not [`State::Building`], and nothing was changed.
    async fn limit(&self, number: u32, rate: Option<u32>) -> Result<bool, StoreError>;

    /// The one that serves from now on, while it is [`State::Projecting`]; the one that served until now goes on
    /// [`State::Projecting`], until `keep_until` at least. `false`: it is in another state, and nothing was changed.
    async fn serve(&self, number: u32, keep_until: Timestamp) -> Result<bool, StoreError>;

    /// Sets [`Generation::kept_until`] of one that has it. `false`: it has none, and nothing was changed.
    async fn keep(&self, number: u32, until: Timestamp) -> Result<bool, StoreError>;

    /// [`State::Dropping`], if [`Generation::is_over`] by now. `false`: it is not, and nothing was changed.
    async fn expire(&self, number: u32, now: Timestamp) -> Result<bool, StoreError>;

    /// Removes what a generation that is [`State::Dropping`] has in the store. May be repeated.
    async fn remove(&self, number: u32) -> Result<(), StoreError>;

    /// Takes or keeps the right to rebuild or to repair, until [`crate::limits::REBUILD_CLAIM_LIFETIME`] from now.
    /// `false`: it is somebody else's.
    async fn claim_rebuild(&self, holder: &str) -> Result<bool, StoreError>;

    async fn release_rebuild(&self, holder: &str) -> Result<(), StoreError>;
}

/// What the log keeps for a generation.
#[async_trait]
pub trait Groups: Send + Sync {
    /// Forgets the consumer group of a generation that nobody fills. May be repeated.
    async fn remove(&self, generation: u32) -> Result<(), StoreError>;
}

#[cfg(test)]
mod tests {
    use super::State;

    #[test]
    fn what_is_dropped_comes_back_in_no_state_and_nothing_serves_unasked() {
        for to in State::ALL {
            assert_eq!(State::Dropping.may_become(to), to == State::Dropped);
            assert!(!State::Dropped.may_become(to) && !State::Serving.may_become(to));
            assert!(!to.may_become(State::Serving));
        }
        assert!([State::Building, State::Paused].iter().all(|state| state.may_become(State::Projecting)));
    }
}
