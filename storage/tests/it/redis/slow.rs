//! A Redis that is far away: it answers everything, late.

use std::time::Duration;

use shared::limits::{APPEND_CALLS_IN_FLIGHT_MAX, APPENDS_PER_CALL_MAX};
use shared::ports::{AppendError, Appended, EventLog, StoreError};
use storage::redis::Options;
use tokio::sync::watch;

use super::server::Server;
use super::{Fresh, message, start};
use crate::far::far;

/// Two calls one after the other take longer than an append may wait; one does not.
const DELAY: Duration = Duration::from_millis(1_200);
const WAIT_MAX: Duration = Duration::from_secs(2);

/// Redis is well and answers: whoever waited for too long meets a queue, not a log that is away.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn queued_for_too_long_is_busy() {
    let (server, delay) = (Server::start().await, watch::Sender::new(Duration::ZERO));
    let port = far(format!("127.0.0.1:{}", server.port), delay.subscribe()).await;
    let url = format!("redis://127.0.0.1:{port}/");
    let options = Options { answer_timeout: WAIT_MAX, ..Options { url, ..server.options() } };
    let Fresh { store, _stop, .. } = start(&options).await;
    delay.send_replace(DELAY);
    let log = store.log();
    let in_time = 2 * APPEND_CALLS_IN_FLIGHT_MAX * APPENDS_PER_CALL_MAX;
    let appends = (0..in_time + 100).map(|_| log.append(message("anna", "ben")));
    let outcomes = futures_util::future::join_all(appends).await;
    let done = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
    let busy = outcomes.iter().filter(|outcome| is_busy(outcome)).count();
    assert!(done > 0 && busy > 0, "{done} done, {busy} busy");
    assert_eq!(done + busy, outcomes.len(), "{outcomes:?}");
}

fn is_busy(outcome: &Result<Appended, AppendError>) -> bool {
    matches!(outcome, Err(AppendError::Store(StoreError::Busy { .. })))
}
