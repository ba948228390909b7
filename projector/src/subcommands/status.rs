//! `projector status`: where the generations, the archive and the parked events stand, once or again and again.

use std::io::{IsTerminal, Write};

use anyhow::Result;
use projector::{Archived, Report, print};
use rustix::termios::tcgetwinsize;
use shared::limits::{PARKED_COUNTED_MAX, PROGRESS_CHECK_INTERVAL};
use shared::ports::{FeedMonitor, ParkedEvents};
use shared::process::shutdown::Signals;
use tokio::time::MissedTickBehavior;

use super::stores::{Stores, monitor, with_views};
use crate::config::Status;

pub(crate) async fn status(options: Status) -> Result<()> {
    let mut signals = Signals::listen()?;
    let ended = async {
        let stores = Stores::open(&options.asked).await?;
        if options.watch {
            watch(options.asked.json, async || report(&stores).await).await?;
        } else {
            print(options.asked.json, &report(&stores).await?, Report::table)?;
        }
        stores.lifecycle.drain().await;
        Ok(())
    };
    tokio::select! {
        ended = ended => ended,
        () = signals.received() => Ok(()),
    }
}

async fn report(stores: &Stores) -> Result<Report> {
    let mut report = Report::default();
    for generation in with_views(&stores.cassandra).await? {
        report.add(
            generation.number,
            monitor(&stores.redis, &stores.cassandra, generation.number).status().await?,
        );
    }
    report.add_archive(Archived::all(&stores.redis.hot(), &stores.cassandra.archive()).await?);
    let parked = stores.cassandra.parked(stores.serving().await?);
    report.add_parked(&parked.parked(None, PARKED_COUNTED_MAX).await?);
    Ok(report)
}

/// Looks once a second, for as long as it is let. A look that fails is said and made again: it is when something
/// is wrong that somebody watches.
async fn watch(json: bool, look: impl AsyncFn() -> Result<Report>) -> Result<()> {
    let is_terminal = std::io::stdout().is_terminal();
    let mut looks = tokio::time::interval(PROGRESS_CHECK_INTERVAL);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        looks.tick().await;
        let report = look().await;
        if is_terminal && !json {
            // From the upper left corner, on an empty screen.
            write!(std::io::stdout(), "\x1b[H\x1b[2J")?;
        }
        match report {
            Ok(report) if is_terminal && !json => print(json, &report, on_terminal)?,
            Ok(report) => print(json, &report, Report::line)?,
            Err(error) => writeln!(std::io::stderr(), "{error:#}")?,
        }
    }
}

/// The upper part of the table, where what is wrong stands, if all of it does not fit.
fn on_terminal(report: &Report) -> String {
    let table = report.table();
    let rows = tcgetwinsize(std::io::stdout()).map_or(0, |size| usize::from(size.ws_row));
    let lines: Vec<_> = table.lines().collect();
    // One is the cursor's. A terminal of no rows does not know how many it has.
    if rows < 3 || lines.len() < rows {
        return table;
    }
    let (shown, left) = lines.split_at(rows - 2);
    format!("{}\n… {} lines more, for which the terminal is too small", shown.join("\n"), left.len())
}
