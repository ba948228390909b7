//! `projector status`: where the generations stand, as a table, as a line, or as JSON.

use std::fmt::{Display, Write as _};
use std::time::Duration;

use serde::Serialize;
use shared::Timestamp;
use shared::limits::ARCHIVE_BLOCK_ENTRIES;
use shared::ports::{Archive, FeedStatus, HotLog, HotPartition, Loss, StoreError};
use shared::view::ParkedEvent;

use crate::archiving::losses;

/// Of all generations. `Serialize` is what `--json` prints.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    generations: Vec<Standing>,
    /// Events that could not be applied, of the serving generation; at most [`shared::limits::PARKED_COUNTED_MAX`]
    /// are counted.
    parked: usize,
    oldest_parked_at: Option<Timestamp>,
    archive: Vec<Archived>,
}

/// Of one partition of the log, counted from the first event that ever was.
#[derive(Debug, Clone, Serialize)]
pub struct Archived {
    pub partition: u16,
    /// Events that are in the archive.
    pub archived: u64,
    /// Events that are in the archive alone.
    pub trimmed: u64,
    /// Memory that the others take.
    pub hot_bytes: u64,
    /// What the log has lost of what is archived.
    pub loss: Option<Loss>,
}

impl Archived {
    /// Of each partition, in their order.
    pub async fn all(log: &dyn HotLog, archive: &dyn Archive) -> Result<Vec<Self>, StoreError> {
        let mut lost = losses(log, archive).await?;
        let mut partitions = Vec::new();
        for HotPartition { partition, blocks_trimmed, bytes, .. } in log.standing().await? {
            let archived = archive.reach(partition).await?.entries;
            let trimmed = blocks_trimmed * ARCHIVE_BLOCK_ENTRIES;
            let loss = lost.remove(&partition);
            partitions.push(Self { partition, archived, trimmed, hot_bytes: bytes, loss });
        }
        Ok(partitions)
    }
}

#[derive(Debug, Serialize)]
struct Standing {
    generation: u32,
    /// Events appended and not yet in the views.
    lag: u64,
    /// Age of the oldest of them.
    behind_ms: u64,
    #[serde(flatten)]
    feed: FeedStatus,
}

impl Report {
    pub fn add(&mut self, generation: u32, feed: FeedStatus) {
        let behind_ms = u64::try_from(feed.behind().as_millis()).unwrap_or(u64::MAX);
        self.generations.push(Standing { generation, lag: feed.lag(), behind_ms, feed });
    }

    pub fn add_parked(&mut self, events: &[ParkedEvent]) {
        self.parked = events.len();
        self.oldest_parked_at = events.iter().map(|event| event.parked_at).min();
    }

    pub fn add_archive(&mut self, archive: Vec<Archived>) {
        self.archive = archive;
    }

    /// Lines for a person.
    #[must_use]
    pub fn table(&self) -> String {
        let mut text = String::new();
        for Standing { generation, lag, behind_ms, feed } in &self.generations {
            let behind = Seconds(*behind_ms);
            line(&mut text, &[&format!("generation {generation}: lag {lag} events, {behind} behind")]);
            line(&mut text, &[]);
            line(&mut text, &[&"partition", &"events", &"pending", &"lag", &"behind"]);
            for one in &feed.partitions {
                let behind = Seconds(one.behind_ms).to_string();
                let lost = one.loss.as_ref().map_or("", |_| "lost");
                line(&mut text, &[&one.partition, &one.head, &one.pending, &one.lag, &behind, &lost]);
            }
            for one in &feed.partitions {
                one.loss.iter().for_each(|loss| line(&mut text, &[&loss.text(one.partition)]));
            }
            line(&mut text, &[]);
            line(&mut text, &[&"consumer", &"applied", &"pending"]);
            for consumer in &feed.consumers {
                line(&mut text, &[&consumer.name, &consumer.applied, &consumer.pending]);
            }
            line(&mut text, &[]);
        }
        line(&mut text, &[&"partition", &"archived", &"trimmed", &"hot bytes"]);
        for Archived { partition, archived, trimmed, hot_bytes, loss } in &self.archive {
            line(&mut text, &[partition, archived, trimmed, hot_bytes]);
            loss.iter().for_each(|loss| line(&mut text, &[&loss.text(*partition)]));
        }
        line(&mut text, &[]);
        let since = self.oldest_parked_at.map_or_else(String::new, |at| format!(", the oldest since {at}"));
        line(&mut text, &[&format!("parked events: {}{since}", self.parked)]);
        text
    }

    /// The same in short.
    #[must_use]
    pub fn line(&self) -> String {
        let mut text = String::new();
        for Standing { generation, lag, behind_ms, feed } in &self.generations {
            let (pending, behind) = (feed.pending(), Seconds(*behind_ms));
            let consumers = feed.consumers.iter().map(|one| format!(" {}={}", one.name, one.applied));
            text += &format!(
                "generation {generation}: lag {lag}, {behind} behind, pending {pending}, applied{}; ",
                consumers.collect::<String>()
            );
        }
        text + &format!("parked {}", self.parked)
    }
}

/// From milliseconds.
struct Seconds(u64);

impl Display for Seconds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:.1} s", Duration::from_millis(self.0).as_secs_f64())
    }
}

/// The first column is for names, the others for numbers.
fn line(text: &mut String, columns: &[&dyn Display]) {
    for (place, column) in columns.iter().enumerate() {
        let written = match place {
            0 if columns.len() == 1 => write!(text, "{column}"),
            0 => write!(text, "{column:<24}"),
            _ => write!(text, " {column:>12}"),
        };
        written.expect("a string takes what it is given");
    }
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::Position;
    use shared::ports::{ConsumerStatus, PartitionStatus};

    fn report() -> Report {
        let mut report = Report::default();
        report.add(
            1,
            FeedStatus {
                partitions: vec![PartitionStatus {
                    partition: 0,
                    head: 7,
                    pending: 1,
                    lag: 3,
                    behind_ms: 1_250,
                    loss: None,
                }],
                consumers: vec![ConsumerStatus {
                    name: "one/1".to_owned(),
                    applied: 4,
                    pending: 1,
                    silent_ms: Some(0),
                }],
            },
        );
        let parked = |parked_at| ParkedEvent {
            position: Position { partition: 0, ms: 1, counter: 0 },
            cause: "broken".to_owned(),
            attempts: 1,
            parked_at: Timestamp(parked_at),
            place: None,
        };
        report.add_parked(&[parked(2_000), parked(1_000)]);
        let archived = Archived { partition: 0, archived: 6, trimmed: 5, hot_bytes: 4_321, loss: None };
        report.add_archive(vec![archived]);
        report
    }

    #[test]
    fn a_table_of_partitions_and_consumers() {
        let table = report().table();
        let lines: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines[0].join(" "), "generation 1: lag 3 events, 1.2 s behind");
        assert!(lines.contains(&vec!["0", "7", "1", "3", "1.2", "s"]), "{table}");
        assert!(lines.contains(&vec!["one/1", "4", "1"]), "{table}");
        assert!(lines.contains(&vec!["0", "6", "5", "4321"]), "{table}");
        assert!(!table.contains("lost"), "{table}");
        let last = "parked events: 2, the oldest since 1970-01-01T00:00:01.000Z";
        assert_eq!(lines.last().unwrap().join(" "), last);
    }

    #[test]
    fn a_line_of_the_same() {
        let line = "generation 1: lag 3, 1.2 s behind, pending 1, applied one/1=4; parked 2";
        assert_eq!(report().line(), line);
    }
}
