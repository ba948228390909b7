//! No file descriptor is left: clients wait, nobody who is inside notices, and service is back by itself.

use std::time::Duration;

use e2e::process::Signal;
use e2e::{Client, User, eventually, seqs};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::Running;

/// What a client waits for that is served at once when there is a file for its connection.
const SERVED_TIME_MAX: Duration = Duration::from_secs(1);

#[tokio::test]
async fn out_of_files_it_waits_and_serves_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut running = Running::start(dir.path(), &[]).await;
    let samer = User::register(&running.client, "samer").await;
    let lena = User::register(&running.client, "lena").await;
    samer.send(&lena, "before").await;

    // Room for a few connections, and more clients than that; those beyond wait in the kernel.
    let files = running.process.open_files().unwrap();
    running.process.limit_files(files + 10).unwrap();
    let mut clients = Vec::new();
    for _ in 0..40 {
        clients.push(TcpStream::connect(running.address).await.unwrap());
    }
    let refusal = "a connection could not be accepted";
    eventually("no file is left", async || running.process.output().contains(refusal).then_some(())).await;
    let newcomer = Client::new(running.address).get("/healthz").try_send();
    assert!(tokio::time::timeout(SERVED_TIME_MAX, newcomer).await.is_err(), "there was a file left");
    // On the connections of before, all goes on.
    for _ in 0..3 {
        samer.send(&lena, "meanwhile").await;
    }
    assert_eq!(running.process.exit_status().unwrap(), None);

    drop(clients);
    let mut newcomer = TcpStream::connect(running.address).await.unwrap();
    newcomer.write_all(b"GET /healthz HTTP/1.1\r\nHost: chat\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    newcomer.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert_eq!(seqs(&lena.conversation(&samer).await), [1, 2, 3, 4]);
    running.process.signal(Signal::TERM).unwrap();
    running.process.ended().await.unwrap();
}
