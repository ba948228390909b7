//! A Redis that is far away: it answers everything, late.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use shared::limits::{APPEND_CALLS_IN_FLIGHT_MAX, APPENDS_PER_CALL_MAX};
use shared::ports::{AppendError, Appended, EventLog, StoreError};
use storage::redis::Options;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use super::server::Server;
use super::{Fresh, message, start};

/// Two calls one after the other take longer than an append may wait; one does not.
const DELAY: Duration = Duration::from_millis(1_200);
const WAIT_MAX: Duration = Duration::from_secs(2);

/// Passes connections on to `port`; while `is_slow`, each answer waits for [`DELAY`]. Its own port.
async fn delayed(port: u16, is_slow: Arc<AtomicBool>, tasks: &TaskTracker) -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let own = listener.local_addr().unwrap().port();
    let connections = tasks.clone();
    tasks.spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await else { continue };
            let (mut asks, mut takes) = client.into_split();
            let (mut answers, mut server) = server.into_split();
            connections.spawn(async move { tokio::io::copy(&mut asks, &mut server).await });
            // A delay, not a slower pace: what came at once is passed on at once.
            let (late, mut due) = mpsc::unbounded_channel::<(Instant, Vec<u8>)>();
            let is_slow = Arc::clone(&is_slow);
            connections.spawn(async move {
                let mut bytes = vec![0; 64 * 1024];
                while let Ok(length @ 1..) = answers.read(&mut bytes).await {
                    let delay = if is_slow.load(Ordering::Relaxed) { DELAY } else { Duration::ZERO };
                    let _ = late.send((Instant::now() + delay, bytes[..length].to_vec()));
                }
            });
            connections.spawn(async move {
                while let Some((at, bytes)) = due.recv().await {
                    tokio::time::sleep_until(at).await;
                    if takes.write_all(&bytes).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    own
}

/// Redis is well and answers: whoever waited for too long meets a queue, not a log that is away.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn queued_for_too_long_is_busy() {
    let (server, tasks, is_slow) = (Server::start().await, TaskTracker::new(), Arc::default());
    let port = delayed(server.port, Arc::clone(&is_slow), &tasks).await;
    let url = format!("redis://127.0.0.1:{port}/");
    let options = Options { answer_timeout: WAIT_MAX, ..Options { url, ..server.options() } };
    let Fresh { store, _stop, .. } = start(&options).await;
    is_slow.store(true, Ordering::Relaxed);
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
