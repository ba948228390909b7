//! Event streams that are held open, and when each message arrives on them. On a thread of their own: the sends beside
//! them must not wait for the reading of thousands of streams.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::net::TcpStream;
use tokio::runtime;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use crate::connection;

/// All at once would overflow the server's backlog, which is another test.
const OPENING_MAX: usize = 64;
const OPEN_TIME_MAX: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(10);
const READ_BYTES: usize = 4 * 1024;

/// What stands before the id of a message.
const BEFORE_ID: &[u8] = b"data: {\"id\":\"";

/// Of a message: a ULID.
pub(crate) type Id = [u8; 26];

/// They are closed when this is dropped.
pub(crate) struct Listeners {
    shared: Arc<Shared>,
    _stop: DropGuard,
}

#[derive(Default)]
struct Shared {
    opened: AtomicUsize,
    broken: AtomicUsize,
    /// Why the first of them was.
    why: OnceLock<String>,
    arrivals: Mutex<Vec<(Id, Instant)>>,
}

impl Listeners {
    /// `each` streams for each token. Returns when all are open.
    pub(crate) async fn open(address: SocketAddr, tokens: &[String], each: usize) -> Result<Self> {
        let (stop, shared) = (CancellationToken::new(), Arc::<Shared>::default());
        let listeners = Self { shared: shared.clone(), _stop: stop.clone().drop_guard() };
        let (tokens, count) = (tokens.to_vec(), tokens.len() * each);
        std::thread::Builder::new().name("listeners".to_owned()).spawn(move || -> io::Result<()> {
            let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
            let (tasks, opening) = (TaskTracker::new(), Arc::new(Semaphore::new(OPENING_MAX)));
            let all = async {
                for token in tokens.iter().flat_map(|token| std::iter::repeat_n(token, each)) {
                    let (shared, opening) = (shared.clone(), opening.clone());
                    let token = token.clone();
                    tasks.spawn(async move {
                        let ended = listen(address, &token, &shared, &opening).await;
                        let ended =
                            ended.map_or_else(|error| error.to_string(), |()| "it was ended".to_owned());
                        shared.why.get_or_init(|| ended);
                        shared.broken.fetch_add(1, Ordering::Relaxed);
                    });
                }
                std::future::pending::<()>().await;
            };
            runtime.block_on(stop.run_until_cancelled(all));
            Ok(())
        })?;
        let opened = || listeners.shared.opened.load(Ordering::Relaxed);
        let all_open = async {
            while opened() < count && listeners.broken() == 0 {
                tokio::time::sleep(LOOK_EVERY).await;
            }
        };
        let timed = tokio::time::timeout(OPEN_TIME_MAX, all_open).await;
        timed.with_context(|| format!("only {} of {count} streams could be opened", opened()))?;
        ensure!(listeners.broken() == 0, "a stream was closed: {}", listeners.shared.why.wait());
        Ok(listeners)
    }

    /// Streams that were closed.
    pub(crate) fn broken(&self) -> usize {
        self.shared.broken.load(Ordering::Relaxed)
    }

    /// What has arrived since this was asked last.
    pub(crate) fn take(&self) -> Vec<(Id, Instant)> {
        std::mem::take(&mut self.shared.arrivals.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

async fn listen(address: SocketAddr, token: &str, shared: &Shared, opening: &Semaphore) -> io::Result<()> {
    let turn = opening.acquire().await.map_err(io::Error::other)?;
    let stream = TcpStream::connect(address).await?;
    let request = format!("GET /events HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {token}\r\n\r\n");
    connection::send(&stream, request.as_bytes()).await?;
    let (mut turn, mut unread) = (Some(turn), Vec::with_capacity(2 * READ_BYTES));
    let mut buffer = [0; READ_BYTES];
    loop {
        stream.readable().await?;
        let read = match stream.try_read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            Err(error) => return Err(error),
        };
        let now = Instant::now();
        if turn.take().is_some() {
            if !buffer.starts_with(b"HTTP/1.1 200 ") {
                return Err(io::Error::other(String::from_utf8_lossy(&buffer[..read])));
            }
            shared.opened.fetch_add(1, Ordering::Relaxed);
        }
        unread.extend_from_slice(&buffer[..read]);
        let mut arrivals = shared.arrivals.lock().unwrap_or_else(PoisonError::into_inner);
        arrivals.extend(take_ids(&mut unread).into_iter().map(|id| (id, now)));
    }
}

/// The ids in what was received, which is left with what may be the beginning of the next.
fn take_ids(received: &mut Vec<u8>) -> Vec<Id> {
    let (mut ids, mut done) = (Vec::new(), 0);
    while let Some(at) = received[done..].windows(BEFORE_ID.len()).position(|bytes| bytes == BEFORE_ID) {
        let begin = done + at + BEFORE_ID.len();
        let Some(id) = received[begin..].first_chunk() else {
            received.drain(..done + at);
            return ids;
        };
        ids.push(*id);
        done = begin + id.len();
    }
    let rest = received.len().saturating_sub(BEFORE_ID.len() - 1).max(done);
    received.drain(..rest);
    ids
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_found_wherever_reads_end() {
        let text = |n: u8| {
            format!("1a\r\nid: x\n\r\n99\r\nevent: message\ndata: {{\"id\":\"{:026}\",\"seq\":1}}\n\n\r\n", n)
        };
        let stream = (0..20).map(text).collect::<String>().into_bytes();
        for size in [1, 7, 13, 100, 5_000] {
            let (mut unread, mut ids) = (Vec::new(), Vec::new());
            for part in stream.chunks(size) {
                unread.extend_from_slice(part);
                ids.extend(take_ids(&mut unread));
            }
            let expected: Vec<Id> =
                (0..20).map(|n| format!("{n:026}").into_bytes().try_into().unwrap()).collect();
            assert_eq!(ids, expected, "{size}");
            assert!(unread.len() < BEFORE_ID.len(), "{size}");
        }
    }
}
