//! A wire that is longer than it is: a TCP proxy, on a thread of its own, that passes every answer on after a fixed
//! time. What is asked goes on at once. It changes no byte and no order, and holds nobody back: as much as is asked
//! may be on its way.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::Result;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

const CHUNK_BYTES: usize = 64 * 1024;
/// On their way, of one connection.
const CHUNKS_MAX: usize = 1_024;

/// Ends when it is dropped.
pub(crate) struct Delay {
    pub(crate) address: SocketAddr,
    _stop: DropGuard,
}

impl Delay {
    /// Listens on a free port of 127.0.0.1.
    pub(crate) fn start(target: SocketAddr, delay: Duration) -> Result<Self> {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        listener.set_nonblocking(true)?;
        let (address, stop) = (listener.local_addr()?, CancellationToken::new());
        let proxy = Self { address, _stop: stop.clone().drop_guard() };
        std::thread::Builder::new().name("delay".to_owned()).spawn(move || -> io::Result<()> {
            let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(stop.run_until_cancelled(accept(listener, target, delay)));
            Ok(())
        })?;
        Ok(proxy)
    }
}

async fn accept(listener: std::net::TcpListener, target: SocketAddr, delay: Duration) -> io::Result<()> {
    let (listener, tasks) = (TcpListener::from_std(listener)?, TaskTracker::new());
    loop {
        let (client, _) = listener.accept().await?;
        tasks.spawn(carry(client, target, delay));
    }
}

async fn carry(client: TcpStream, target: SocketAddr, delay: Duration) -> io::Result<()> {
    let server = TcpStream::connect(target).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
    let (asked, answered) =
        tokio::join!(pump(from_client, to_server, Duration::ZERO), pump(from_server, to_client, delay));
    asked.and(answered)
}

async fn pump(from: OwnedReadHalf, to: OwnedWriteHalf, delay: Duration) -> io::Result<()> {
    let (sender, chunks) = mpsc::channel(CHUNKS_MAX);
    let (received, sent) = tokio::join!(receive(from, sender, delay), send(to, chunks));
    received.and(sent)
}

async fn receive(
    mut from: OwnedReadHalf,
    chunks: mpsc::Sender<(Instant, Vec<u8>)>,
    delay: Duration,
) -> io::Result<()> {
    let mut buffer = vec![0; CHUNK_BYTES];
    loop {
        let length = from.read(&mut buffer).await?;
        let chunk = (Instant::now() + delay, buffer[..length].to_vec());
        if length == 0 || chunks.send(chunk).await.is_err() {
            return Ok(());
        }
    }
}

/// Dropping `to` passes the end on.
async fn send(mut to: OwnedWriteHalf, mut chunks: mpsc::Receiver<(Instant, Vec<u8>)>) -> io::Result<()> {
    while let Some((due, chunk)) = chunks.recv().await {
        tokio::time::sleep_until(due).await;
        to.write_all(&chunk).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn answers_are_late_and_whole() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = listener.local_addr().unwrap();
        TaskTracker::new().spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let (mut from, mut to) = stream.split();
            tokio::io::copy(&mut from, &mut to).await.unwrap();
        });
        let delay = Duration::from_millis(30);
        let proxy = Delay::start(target, delay).unwrap();
        let mut client = TcpStream::connect(proxy.address).await.unwrap();
        let (asked, question) = (Instant::now(), vec![7; 3 * CHUNK_BYTES]);
        let mut answer = vec![0; question.len()];
        client.write_all(&question).await.unwrap();
        client.read_exact(&mut answer).await.unwrap();
        assert!(answer == question && asked.elapsed() >= delay);
        drop(proxy);
        assert!(matches!(client.read(&mut answer).await, Ok(0) | Err(_)), "the wire outlives its owner");
    }
}
