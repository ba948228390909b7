//! How far the views have seen the log, kept beside them: what tells that the log has lost something. The log itself
//! cannot: one that was put back from an older copy, or emptied, is whole as far as it goes.

use std::fmt;
use std::str::FromStr;

use async_trait::async_trait;
use serde::{Serialize, Serializer};

use super::{Delivery, StoreError};
use crate::ids::Position;

/// Of one generation. [`super::ViewWriter::apply`] notes it: whatever the views may hold is within it.
#[async_trait]
pub trait SeenLog: Send + Sync {
    /// One for each partition of which anything is known, in their order.
    async fn seen(&self) -> Result<Vec<Seen>, StoreError>;

    /// These partitions are of this log, and of no earlier epoch of it. That of a later one stays.
    async fn follow(&self, partitions: &[u16], epoch: &Epoch) -> Result<(), StoreError>;

    /// Those are known to have lost events, and those to have lost none. The last word counts.
    async fn tell(&self, lost: &[u16], whole: &[u16]) -> Result<(), StoreError>;
}

/// Which log it is, for whoever repairs it.
#[async_trait]
pub trait LogEpoch: Send + Sync {
    async fn epoch(&self) -> Result<Epoch, StoreError>;

    /// It is this one from now on.
    async fn begin(&self, epoch: &Epoch) -> Result<(), StoreError>;
}

/// What is known of a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    pub partition: u16,
    /// `None`: it was never looked at.
    pub epoch: Option<Epoch>,
    /// The highest that was seen. `None`: there was no event.
    pub last: Option<LogPlace>,
    /// Whether somebody has told that it has lost events.
    pub is_told_lost: bool,
}

/// Where an event stands in its partition, by id and by number. Both rise together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogPlace {
    pub position: Position,
    pub offset: u64,
}

impl LogPlace {
    /// `None`: the entry does not tell its number.
    #[must_use]
    pub fn of(delivery: &Delivery) -> Option<Self> {
        let recorded = delivery.content.as_ref().ok()?;
        Some(Self { position: delivery.position, offset: recorded.offset })
    }

    /// Whether one log can hold an event at both places.
    #[must_use]
    pub fn agrees(&self, other: &Self) -> bool {
        self.position.cmp(&other.position) == self.offset.cmp(&other.offset)
    }
}

/// Which log it is. A repair gives it a new epoch: the same log, which has lost something and has it again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Epoch {
    /// Made with the log, another for each.
    pub log: String,
    pub repairs: u32,
}

/// Behind the name of the log.
const REPAIRS: char = '.';

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { log, repairs } = self;
        match repairs {
            0 => f.write_str(log),
            repairs => write!(f, "{log}{REPAIRS}{repairs}"),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this is no epoch of a log")]
pub struct NoEpoch;

impl FromStr for Epoch {
    type Err = NoEpoch;

    fn from_str(text: &str) -> Result<Self, NoEpoch> {
        let (log, repairs) = match text.split_once(REPAIRS) {
            None => (text, 0),
            Some((log, repairs)) => (log, repairs.parse().map_err(|_| NoEpoch)?),
        };
        let epoch = Self { log: log.to_owned(), repairs };
        if log.is_empty() || epoch.to_string() != text { Err(NoEpoch) } else { Ok(epoch) }
    }
}

impl Serialize for Epoch {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Why a partition stands still: the log does not hold what it has held.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "what", rename_all = "lowercase")]
pub enum Loss {
    /// None of its events is there any more, nor what was known of who has read them.
    Gone,
    /// It is as it was before, or has other events by now than those that were seen.
    Back {
        /// The offset of its last event.
        ends: u64,
        /// The offset up to which it was seen.
        seen: u64,
    },
    /// The same of what the archive has of it. Views may never have seen that.
    Archived {
        /// The offset of its last event.
        ends: u64,
        /// The offset up to which it was archived.
        archived: u64,
    },
    /// It is another log than the one that was seen, or that one after a repair which the views cannot follow.
    Other { is: Epoch, seen: Epoch },
}

impl Loss {
    /// The log has it all again, at other places: these views cannot go on, and new ones can be made.
    #[must_use]
    pub fn is_repaired(&self) -> bool {
        match self {
            Self::Other { is, seen } => is.log == seen.log && is.repairs > seen.repairs,
            Self::Gone | Self::Back { .. } | Self::Archived { .. } => false,
        }
    }

    /// In words.
    #[must_use]
    pub fn text(&self, partition: u16) -> String {
        match self {
            Self::Gone => format!("the stream of partition {partition} is gone with its events"),
            Self::Back { ends, seen } if ends < seen => {
                format!("partition {partition} ends at offset {ends}, and the views have seen {seen}")
            }
            Self::Back { ends, seen } => format!(
                "partition {partition} has other events than the views have seen up to offset {seen}; \
                 it ends at {ends}"
            ),
            Self::Archived { ends, archived } if ends < archived => {
                format!("partition {partition} ends at offset {ends}, and the archive has {archived}")
            }
            Self::Archived { ends, archived } => format!(
                "partition {partition} has other events than the archive has up to offset {archived}; it ends at {ends}"
            ),
            Self::Other { is, seen: _ } if self.is_repaired() => format!(
                "partition {partition} was repaired (the log is {is} now), and the views have seen what it lost at \
                 other places: `projector rebuild` makes new ones"
            ),
            Self::Other { is, seen } => {
                format!("partition {partition} is of log {is}, and the views have seen log {seen}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_has_one_spelling() {
        let log = "01JD0000000000000000000000";
        for (repairs, text) in [(0, log.to_owned()), (1, format!("{log}.1")), (12, format!("{log}.12"))] {
            let epoch = Epoch { log: log.to_owned(), repairs };
            assert_eq!((epoch.to_string(), text.parse()), (text.clone(), Ok(epoch)));
        }
        for text in ["", ".1", "a.0", "a.01", "a.b", "a.1.2", "a."] {
            assert_eq!(text.parse::<Epoch>(), Err(NoEpoch), "{text}");
        }
    }

    #[test]
    fn id_and_number_rise_together() {
        let place = |ms, offset| LogPlace { position: Position { partition: 0, ms, counter: 0 }, offset };
        let seen = place(50, 5);
        for (ms, offset, agrees) in [
            (50, 5, true),
            (40, 4, true),
            (60, 6, true),
            // Given anew to another event.
            (60, 5, false),
            (60, 4, false),
            (50, 4, false),
            (50, 6, false),
            // By a clock that was set back.
            (40, 5, false),
            (40, 6, false),
        ] {
            assert_eq!(seen.agrees(&place(ms, offset)), agrees, "{ms} {offset}");
        }
    }

    #[test]
    fn a_loss_is_told_with_its_numbers() {
        let behind = Loss::Back { ends: 7, seen: 9 };
        assert_eq!(behind.text(3), "partition 3 ends at offset 7, and the views have seen 9");
        let other = "partition 3 has other events than the views have seen up to offset 9; it ends at 9";
        assert_eq!(Loss::Back { ends: 9, seen: 9 }.text(3), other);
        let archived = |ends| Loss::Archived { ends, archived: 9 }.text(3);
        assert_eq!(archived(7), "partition 3 ends at offset 7, and the archive has 9");
        assert!(
            archived(9).starts_with("partition 3 has other events than the archive has"),
            "{}",
            archived(9)
        );
    }
}
