//! `cargo xtask down`.

use std::time::Instant;

use anyhow::Result;
use clap::Args;
use xtask::servers::Signal;

use super::containers;
use super::place::{Place, Record};
use crate::output;

/// Ends what `up` started, and nothing else: a process must have the recorded pid and the recorded start
/// time.
#[derive(Debug, Args)]
pub(crate) struct Down {
    /// Delete the data and the logs too.
    #[arg(long)]
    purge: bool,
}

const STORES: [&str; 2] = ["redis", "cassandra"];

impl Down {
    pub(crate) fn run(self) -> Result<()> {
        let place = Place::open()?;
        let records = place.records()?;
        let (edge, rest): (Vec<&Record>, Vec<&Record>) =
            records.iter().partition(|record| record.name == "nginx");
        let (stores, services): (Vec<&Record>, Vec<&Record>) =
            rest.into_iter().partition(|record| STORES.contains(&record.name.as_str()));
        // First the door, then those who work, then what they work on.
        end_together(&place, &edge, Signal::Quit)?;
        end_together(&place, &services, Signal::Term)?;
        end_together(&place, &stores, Signal::Term)?;
        let had_containers = containers::down(&place, self.purge)?;
        if records.is_empty() && !had_containers {
            output::line("nothing was running");
        }
        if self.purge {
            place.purge()?;
            output::line("data and logs are deleted");
        }
        Ok(())
    }
}

fn end_together(place: &Place, records: &[&Record], signal: Signal) -> Result<()> {
    let since = Instant::now();
    let alive: Vec<bool> = records.iter().map(|record| record.identity.is_alive()).collect();
    for record in records {
        record.identity.signal(signal)?;
    }
    for (record, was_alive) in records.iter().zip(alive) {
        let ended = record.identity.wait_or_kill()?;
        let how = match (was_alive, ended) {
            (false, _) => "had ended by itself",
            (true, true) => "ended",
            (true, false) => "did not end in time: killed",
        };
        output::part(&record.name, format!("pid {} {how}", record.identity.pid), since);
        place.forget(&record.name)?;
    }
    Ok(())
}
