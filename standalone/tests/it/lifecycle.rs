//! Start and end.

use e2e::process::Signal;
use e2e::traffic::{Traffic, assert_all_visible};
use e2e::{InFlight, User, eventually, seqs};
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
    let samer = User::register(&running.client, "samer").await;
    let lena = User::register(&running.client, "lena").await;
    let message = samer.send(&lena, "before").await;

    let mut half_sent = half_a_request(&running).await;
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

async fn half_a_request(running: &Running) -> TcpStream {
    let mut stream = TcpStream::connect(running.address).await.unwrap();
    stream.write_all(b"POST /send HTTP/1.1\r\nHost: chat\r\nContent-Length: 10\r\n").await.unwrap();
    stream
}

/// It accepts nothing more, and whom it has let in it answers; what was acknowledged until the last moment is there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_under_load_with_a_half_sent_request_open() {
    let dir = tempfile::tempdir().unwrap();
    let mut running = Running::start(dir.path(), &[]).await;
    let pairs = running.pairs().await;
    let (nobody, somebody) =
        (User::register(&running.client, "nobody").await, User::register(&running.client, "somebody").await);
    let traffic = Traffic::start(&pairs, 8).await;
    traffic.go_on_for(200).await;
    let half_sent = half_a_request(&running).await;
    let in_flight = InFlight::send(running.address, &nobody, &somebody, "in flight").await;
    traffic.go_on_for(50).await;
    running.process.signal(Signal::TERM).unwrap();
    eventually("it accepts nothing more", async || TcpStream::connect(running.address).await.err()).await;
    let answer = in_flight.end().await;
    assert!(answer.starts_with("HTTP/1.1 201 "), "{answer}");
    running.process.ended().await.unwrap();
    drop(half_sent);
    running.process.restart().unwrap();
    running.ready().await;
    traffic.go_on_for(100).await;
    let sent = traffic.end().await;
    let unanswered = sent.iter().filter(|sent| !sent.failures.is_empty()).count();
    assert!(unanswered > 0, "no send met the end of the process");
    assert_all_visible(&pairs, &sent).await;
    assert_eq!(somebody.conversation(&nobody).await.len(), 1, "what was in flight is there");
    running.process.signal(Signal::TERM).unwrap();
    running.process.ended().await.unwrap();
}
