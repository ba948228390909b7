//! `projector status`: where the generations stand, as a table or as JSON.

use std::fmt::{Display, Write as _};

use serde::Serialize;
use shared::ports::FeedStatus;

/// Of all generations. `Serialize` is what `--json` prints.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    generations: Vec<Standing>,
    /// Events that could not be applied, of the serving generation; at most [`shared::limits::PARKED_COUNTED_MAX`]
    /// are counted.
    pub parked: usize,
}

#[derive(Debug, Serialize)]
struct Standing {
    generation: u32,
    /// Events appended and not yet in the views.
    lag: u64,
    #[serde(flatten)]
    feed: FeedStatus,
}

impl Report {
    pub fn add(&mut self, generation: u32, feed: FeedStatus) {
        self.generations.push(Standing { generation, lag: feed.lag(), feed });
    }

    /// Lines for a person.
    #[must_use]
    pub fn table(&self) -> String {
        let mut text = String::new();
        for Standing { generation, lag, feed } in &self.generations {
            line(&mut text, &[&format!("generation {generation}: lag {lag} events")]);
            line(&mut text, &[]);
            line(&mut text, &[&"partition", &"events", &"pending", &"lag"]);
            for partition in &feed.partitions {
                line(&mut text, &[&partition.partition, &partition.head, &partition.pending, &partition.lag]);
            }
            line(&mut text, &[]);
            line(&mut text, &[&"projector", &"applied", &"pending"]);
            for consumer in &feed.consumers {
                line(&mut text, &[&consumer.name, &consumer.applied, &consumer.pending]);
            }
            line(&mut text, &[]);
        }
        line(&mut text, &[&format!("parked events: {}", self.parked)]);
        text
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
    use shared::ports::{ConsumerStatus, PartitionStatus};

    #[test]
    fn a_table_of_partitions_and_projectors() {
        let mut report = Report { parked: 2, ..Report::default() };
        report.add(
            1,
            FeedStatus {
                partitions: vec![PartitionStatus { partition: 0, head: 7, pending: 1, lag: 3 }],
                consumers: vec![ConsumerStatus { name: "one".to_owned(), applied: 4, pending: 1 }],
            },
        );
        let table = report.table();
        let lines: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines[0].join(" "), "generation 1: lag 3 events");
        assert!(lines.contains(&vec!["0", "7", "1", "3"]), "{table}");
        assert!(lines.contains(&vec!["one", "4", "1"]), "{table}");
        assert_eq!(lines.last().unwrap().join(" "), "parked events: 2");
    }
}
