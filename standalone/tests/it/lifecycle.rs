//! Start and end.

use e2e::process::Signal;
use e2e::seqs;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::Running;

#[tokio::test]
async fn it_says_where_it_listens_and_how_to_try_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut running = Running::start(dir.path(), &[]).await;
    let url = format!("http://{}", running.address);
    let output = running.process.output();
    assert!(output.lines().any(|line| line.contains(&format!("listens on {url}"))), "{output}");
    let to_try: Vec<_> = output.lines().filter(|line| line.trim_start().starts_with("curl ")).collect();
    assert_eq!(to_try.len(), 3, "{output}");
    assert!(to_try.iter().all(|line| line.contains(&url)), "{output}");
    running.process.signal(Signal::TERM).unwrap();
    running.process.ended().await.unwrap();
}

#[tokio::test]
async fn sigterm_ends_it_in_good_order() {
    ends_in_good_order(Signal::TERM).await;
}

#[tokio::test]
async fn ctrl_c_ends_it_in_good_order() {
    ends_in_good_order(Signal::INT).await;
}

/// Exit status 0 in time, also while a client has sent half a request; and what was there is there again.
async fn ends_in_good_order(signal: Signal) {
    let dir = tempfile::tempdir().unwrap();
    let mut running = Running::start(dir.path(), &[]).await;
    let samer = e2e::User::register(&running.client, "samer").await;
    let lena = e2e::User::register(&running.client, "lena").await;
    let message = samer.send(&lena, "before").await;

    let mut half_sent = TcpStream::connect(running.address).await.unwrap();
    half_sent.write_all(b"POST /send HTTP/1.1\r\nHost: chat\r\nContent-Length: 10\r\n").await.unwrap();
    // Answered after the half request arrived, so the server knows of it.
    samer.get("/conversations").send().await.expect(200);
    running.process.signal(signal).unwrap();
    running.process.ended().await.unwrap();
    let mut rest = Vec::new();
    let _ = half_sent.read_to_end(&mut rest).await;
    assert_eq!(String::from_utf8_lossy(&rest), "", "half a request gets no answer");

    running.process.restart().unwrap();
    running.ready().await;
    assert_eq!(lena.conversation(&samer).await, [message], "with the token of before");
    samer.send(&lena, "after").await;
    assert_eq!(seqs(&lena.conversation(&samer).await), [1, 2]);
    running.process.signal(signal).unwrap();
    running.process.ended().await.unwrap();
}
