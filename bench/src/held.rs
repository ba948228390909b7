//! Connections that are held open to be in the way: idle ones, which say nothing after one request, and slow ones,
//! which send a request byte by byte. What the server closes comes again.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::net::TcpStream;
use tokio::runtime;
use tokio::sync::Semaphore;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use crate::connection;

const REQUEST: &[u8] = b"GET /healthz HTTP/1.1\r\nHost: bench\r\n\r\n";
const BYTE_EVERY: Duration = Duration::from_secs(1);
/// All at once would overflow the server's backlog, which is another test.
const OPENING_MAX: usize = 64;
const OPEN_TIME_MAX: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// After a refusal, so that a full server is not asked in a tight loop.
const PAUSE_AFTER_ERROR: Duration = Duration::from_millis(100);

/// They are closed when this is dropped.
pub(crate) struct Held {
    opened: Arc<AtomicUsize>,
    _stop: DropGuard,
}

#[derive(Debug, Clone, Copy)]
enum Manner {
    Idle,
    Slow,
}

impl Held {
    /// Returns when all are open and have had an answer.
    pub(crate) async fn idle(address: SocketAddr, count: usize) -> Result<Self> {
        Self::start(address, count, Manner::Idle).await
    }

    /// Returns when all are open.
    pub(crate) async fn slow(address: SocketAddr, count: usize) -> Result<Self> {
        Self::start(address, count, Manner::Slow).await
    }

    /// How many were opened so far; those that came again count again.
    pub(crate) fn opened(&self) -> usize {
        self.opened.load(Ordering::Relaxed)
    }

    async fn start(address: SocketAddr, count: usize, manner: Manner) -> Result<Self> {
        let stop = CancellationToken::new();
        let held = Self { opened: Arc::default(), _stop: stop.clone().drop_guard() };
        let opened = held.opened.clone();
        std::thread::Builder::new().name("held".to_owned()).spawn(move || -> io::Result<()> {
            let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
            let (tasks, opening) = (TaskTracker::new(), Arc::new(Semaphore::new(OPENING_MAX)));
            let all = async {
                for _ in 0..count {
                    tasks.spawn(hold(address, manner, opened.clone(), opening.clone()));
                }
                std::future::pending::<()>().await;
            };
            runtime.block_on(stop.run_until_cancelled(all));
            Ok(())
        })?;
        let all_open = async {
            while held.opened() < count {
                tokio::time::sleep(LOOK_EVERY).await;
            }
        };
        let timed = tokio::time::timeout(OPEN_TIME_MAX, all_open).await;
        timed.with_context(|| format!("only {} of {count} connections could be opened", held.opened()))?;
        Ok(held)
    }
}

async fn hold(address: SocketAddr, manner: Manner, opened: Arc<AtomicUsize>, opening: Arc<Semaphore>) {
    loop {
        // Ends when the server closes it, or with an error: either way it comes again.
        let held = match manner {
            Manner::Idle => stay_idle(address, &opened, &opening).await,
            Manner::Slow => trickle(address, &opened, &opening).await,
        };
        if held.is_err() {
            tokio::time::sleep(PAUSE_AFTER_ERROR).await;
        }
    }
}

async fn stay_idle(address: SocketAddr, opened: &AtomicUsize, opening: &Semaphore) -> io::Result<()> {
    let turn = opening.acquire().await.map_err(io::Error::other)?;
    let stream = TcpStream::connect(address).await?;
    connection::send(&stream, REQUEST).await?;
    stream.readable().await?;
    opened.fetch_add(1, Ordering::Relaxed);
    drop(turn);
    until_closed(&stream).await
}

async fn trickle(address: SocketAddr, opened: &AtomicUsize, opening: &Semaphore) -> io::Result<()> {
    let turn = opening.acquire().await.map_err(io::Error::other)?;
    let stream = TcpStream::connect(address).await?;
    opened.fetch_add(1, Ordering::Relaxed);
    drop(turn);
    let send_slowly = async {
        for byte in REQUEST {
            connection::send(&stream, std::slice::from_ref(byte)).await?;
            tokio::time::sleep(BYTE_EVERY).await;
        }
        std::future::pending::<io::Result<()>>().await
    };
    tokio::select! {
        sent = send_slowly => sent,
        closed = until_closed(&stream) => closed,
    }
}

async fn until_closed(stream: &TcpStream) -> io::Result<()> {
    let mut thrown_away = [0; 512];
    loop {
        stream.readable().await?;
        match stream.try_read(&mut thrown_away) {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}
