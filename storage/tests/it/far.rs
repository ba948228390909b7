//! A wire that seems longer: answers come late.

#![expect(clippy::unwrap_used, reason = "all of this is test code")]

use std::net::Ipv4Addr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

/// Passes connections on to `target`, each answer after the delay of that moment. Returns the port that it listens on.
pub(crate) async fn far(target: String, delay: watch::Receiver<Duration>) -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let tasks = TaskTracker::new();
    let connections = tasks.clone();
    tasks.spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let Ok(server) = TcpStream::connect(&target).await else { continue };
            let (mut asks, mut takes) = client.into_split();
            let (mut answers, mut server) = server.into_split();
            connections.spawn(async move { tokio::io::copy(&mut asks, &mut server).await });
            // A delay, not a slower pace: what came at once is passed on at once.
            let (late, mut due) = mpsc::unbounded_channel::<(Instant, Vec<u8>)>();
            let delay = delay.clone();
            connections.spawn(async move {
                let mut bytes = vec![0; 64 * 1024];
                while let Ok(length @ 1..) = answers.read(&mut bytes).await {
                    let _ = late.send((Instant::now() + *delay.borrow(), bytes[..length].to_vec()));
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
    port
}
