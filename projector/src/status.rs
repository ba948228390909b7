//! `projector status`: where the generations stand, as a table, as a line, or as JSON.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::time::Duration;

use serde::Serialize;
use shared::Timestamp;
use shared::limits::{ARCHIVE_BLOCK_ENTRIES, LOSSES_SHOWN_MAX};
use shared::ports::{Archive, ConsumerStatus, FeedStatus, HotLog, HotPartition, Loss, StoreError};
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
        for HotPartition { partition, blocks_trimmed, bytes, .. } in log.standing().await?.partitions {
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

    /// Lines for a person, what is wrong before all else. With one generation of 16 partitions they fit on a terminal of
    /// 24 lines and 80 columns.
    #[must_use]
    pub fn table(&self) -> String {
        let lost = self.lost();
        let mut text = told_losses(&lost);
        for Standing { generation, lag, behind_ms, feed } in &self.generations {
            let (behind, pending) = (Seconds(*behind_ms), feed.pending());
            text += &format!("generation {generation}: lag {lag} events, {behind} behind, {pending} pending");
            let stopped = feed.partitions.iter().filter(|one| one.loss.is_some()).count();
            text += &if stopped > 0 { format!(", lost partitions: {stopped}\n") } else { "\n".to_owned() };
            text += &applied(feed);
        }
        let since = self.oldest_parked_at.map_or_else(String::new, |at| format!(", the oldest since {at}"));
        text += &format!("parked events: {}{since}\n", self.parked);
        let (mut captions, mut names) = (vec![String::new(); 5], NAMES.map(str::to_owned).to_vec());
        for Standing { generation, .. } in &self.generations {
            let caption =
                if self.generations.len() > 1 { format!("of g{generation}") } else { String::new() };
            captions.extend([caption, String::new()]);
            names.extend(["lag".to_owned(), "behind".to_owned()]);
        }
        let rows = self.archive.iter().map(|one| self.row(one, lost.contains_key(&one.partition)));
        text + &aligned(&[captions, names].into_iter().chain(rows).collect::<Vec<_>>())
    }

    /// The same in short.
    #[must_use]
    pub fn line(&self) -> String {
        let lost = self.lost().len();
        let mut text = if lost > 0 { format!("LOST partitions: {lost}; ") } else { String::new() };
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

    /// By partition. Of several generations the one counts that nobody has repaired.
    fn lost(&self) -> BTreeMap<u16, &Loss> {
        let of_views = self.generations.iter().flat_map(|standing| &standing.feed.partitions);
        let of_views = of_views.filter_map(|one| Some((one.partition, one.loss.as_ref()?)));
        let of_archive = self.archive.iter().filter_map(|one| Some((one.partition, one.loss.as_ref()?)));
        let mut lost: Vec<_> = of_archive.chain(of_views).collect();
        lost.sort_by_key(|(_, loss)| !loss.is_repaired());
        lost.into_iter().collect()
    }

    fn row(&self, archived: &Archived, is_lost: bool) -> Vec<String> {
        let Archived { partition, archived, trimmed, hot_bytes, .. } = archived;
        let standings = self
            .generations
            .iter()
            .map(|standing| standing.feed.partitions.iter().find(|one| one.partition == *partition));
        let standings: Vec<_> = standings.collect();
        let events = standings.iter().flatten().map(|one| one.head).max().unwrap_or(0);
        let hot_kib = hot_bytes.div_ceil(1024);
        let mut row = vec![partition.to_string()];
        row.extend([events, *archived, *trimmed, hot_kib].map(|number| number.to_string()));
        for standing in standings {
            let (lag, behind_ms) = standing.map_or((0, 0), |one| (one.lag, one.behind_ms));
            row.extend([lag.to_string(), Seconds(behind_ms).to_string()]);
        }
        row.extend(is_lost.then(|| "lost".to_owned()));
        row
    }
}

const NAMES: [&str; 5] = ["partition", "events", "archived", "trimmed", "hot KiB"];

/// What is lost, and what to do.
fn told_losses(lost: &BTreeMap<u16, &Loss>) -> String {
    if lost.is_empty() {
        return String::new();
    }
    let mut text = format!("LOST partitions: {}, which lack events that were seen of the log\n", lost.len());
    for (partition, loss) in lost.iter().take(LOSSES_SHOWN_MAX) {
        text += &format!("  {}\n", loss.text(*partition));
    }
    let more = lost.len().saturating_sub(LOSSES_SHOWN_MAX);
    if more > 0 {
        text += &format!("  and {more} partitions more\n");
    }
    if lost.values().any(|loss| !loss.is_repaired()) {
        text +=
            "`projector repair` lists what is lost; if Redis was emptied, `projector restore` comes first\n";
    }
    text + "\n"
}

/// Consumers and what each has done, in lines of at most 80 characters.
fn applied(feed: &FeedStatus) -> String {
    if feed.consumers.is_empty() {
        return "  no consumers\n".to_owned();
    }
    let mut lines = vec!["  applied:".to_owned()];
    for ConsumerStatus { name, applied, pending, .. } in &feed.consumers {
        let held = if *pending > 0 { format!(" ({pending} pending)") } else { String::new() };
        let said = format!(" {name} {applied}{held}");
        match lines.last_mut() {
            Some(line) if line.len() + said.len() <= 80 => *line += &said,
            Some(_) | None => lines.push(format!("   {said}")),
        }
    }
    lines.iter().map(|line| format!("{line}\n")).collect()
}

/// Each column as wide as its widest cell.
fn aligned(rows: &[Vec<String>]) -> String {
    let width = |column| rows.iter().filter_map(|row| row.get(column)).map(String::len).max().unwrap_or(0);
    let widths: Vec<_> = (0..rows.iter().map(Vec::len).max().unwrap_or(0)).map(width).collect();
    let line = |row: &Vec<String>| {
        let cells: Vec<_> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:>width$}")).collect();
        format!("{}\n", cells.join("  ").trim_end())
    };
    rows.iter().map(line).collect()
}

/// From milliseconds.
struct Seconds(u64);

impl Display for Seconds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:.1} s", Duration::from_millis(self.0).as_secs_f64())
    }
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
    fn a_table_of_all_there_is_of_a_partition() {
        let table = report().table();
        let lines: Vec<&str> = table.lines().collect();
        let expected = [
            "generation 1: lag 3 events, 1.2 s behind, 1 pending",
            "  applied: one/1 4 (1 pending)",
            "parked events: 2, the oldest since 1970-01-01T00:00:01.000Z",
            "",
            "partition  events  archived  trimmed  hot KiB  lag  behind",
            "        0       7         6        5        5    3   1.2 s",
        ];
        assert_eq!(lines, expected);
    }

    #[test]
    fn losses_come_first_with_what_to_do() {
        let mut report = report();
        report.generations[0].feed.partitions[0].loss = Some(Loss::Back { ends: 5, seen: 7 });
        let table = report.table();
        let lines: Vec<&str> = table.lines().collect();
        assert_eq!(lines[0], "LOST partitions: 1, which lack events that were seen of the log");
        assert_eq!(lines[1], "  partition 0 ends at offset 5, and the views have seen 7");
        assert!(lines[2].starts_with("`projector repair` lists what is lost"), "{table}");
        assert_eq!(lines[4], "generation 1: lag 3 events, 1.2 s behind, 1 pending, lost partitions: 1");
        assert!(lines.last().unwrap().ends_with("  lost"), "{table}");
        assert!(report.line().starts_with("LOST partitions: 1; generation 1: "), "{}", report.line());
    }

    #[test]
    fn it_fits_on_a_small_terminal() {
        let partition = |partition| PartitionStatus {
            partition,
            head: 6_250_000,
            pending: 512,
            lag: 123_456,
            behind_ms: 1_234_500,
            loss: None,
        };
        let consumer = |number| ConsumerStatus {
            name: format!("projector-{number}/1"),
            applied: 1_234_567,
            pending: 0,
            silent_ms: Some(0),
        };
        let mut report = Report::default();
        let (partitions, consumers) = ((0..16).map(partition).collect(), (1..=4).map(consumer).collect());
        report.add(1, FeedStatus { partitions, consumers });
        let archived = |partition| Archived {
            partition,
            archived: 6_200_000,
            trimmed: 6_000_000,
            hot_bytes: 1 << 30,
            loss: None,
        };
        report.add_archive((0..16).map(archived).collect());
        let table = report.table();
        // One line is the cursor's.
        assert!(table.lines().count() < 24, "{table}");
        assert!(table.lines().all(|line| line.len() <= 80), "{table}");
    }

    #[test]
    fn a_line_of_the_same() {
        let line = "generation 1: lag 3, 1.2 s behind, pending 1, applied one/1=4; parked 2";
        assert_eq!(report().line(), line);
    }
}
