//! Load that adapts to the server: a connection sends its next request when it has the answer to the last. Shows
//! the highest rate; says little about latency, as a slow server is asked less often.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Result;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use crate::connection::Connection;
use crate::load::{self, Window};
use crate::sends::Requests;
use crate::tally::Tally;

/// After no answer: a server that is gone is not asked in a tight loop.
const PAUSE_AFTER_ERROR: Duration = Duration::from_millis(10);

/// Counts what ends within the window.
pub(crate) async fn drive(
    connections: Vec<(Connection, Box<dyn Requests>)>,
    window: Window,
    tally: &Arc<Mutex<Tally>>,
    tasks: &TaskTracker,
) -> Result<()> {
    for (connection, requests) in connections {
        tasks.spawn(send_in_turn(connection, requests, window, tally.clone()));
    }
    if !load::all_answered(tasks, window).await {
        // Each connection has one request in flight.
        let unanswered = u64::try_from(tasks.len())?;
        tally.lock().unwrap_or_else(PoisonError::into_inner).add_unanswered(unanswered);
    }
    Ok(())
}

async fn send_in_turn(
    mut connection: Connection,
    mut requests: Box<dyn Requests>,
    window: Window,
    tally: Arc<Mutex<Tally>>,
) {
    let mut sent = Instant::now();
    while sent < window.end {
        let answer = connection.exchange(requests.next()).await;
        let now = Instant::now();
        if window.counts(now) {
            tally.lock().unwrap_or_else(PoisonError::into_inner).record(&answer, now - sent);
        }
        if answer.is_err() {
            tokio::time::sleep(PAUSE_AFTER_ERROR).await;
        }
        sent = now;
    }
}
