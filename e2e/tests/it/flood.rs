//! Clients that take more than their share: rows of docs/faults.md. The others do not notice.

use std::time::{Duration, Instant};

use e2e::{Client, TestApp, User};
use serde_json::json;
use shared::limits::{ANSWER_UNREAD_MAX, PASSWORD_HASHES_QUEUED_MAX};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;

e2e::scenarios!(
    clients_that_never_read_are_cut_off,
    two_thousand_idle_connections,
    sends_go_on_in_a_flood_of_logins,
);

/// A send that did not wait for anybody, on a machine that does other things too.
const SEND_TIME_MAX: Duration = Duration::from_secs(1);

/// How long `count` sends took, one after the other, sorted.
async fn sends(from: &User, to: &User, count: usize) -> Vec<Duration> {
    let mut took = Vec::new();
    for _ in 0..count {
        let begun = Instant::now();
        from.send(to, "hi").await;
        took.push(begun.elapsed());
    }
    took.sort();
    took
}

async fn clients_that_never_read_are_cut_off(app: &TestApp) {
    const CLIENTS: usize = 3;
    const REQUESTS: usize = 12;
    let (samer, lena) = (app.register("samer").await, app.register("lena").await);
    let page = 100;
    let long = "\u{1f642}".repeat(4_000);
    for _ in 0..page {
        samer.send(&lena, &long).await;
    }
    assert_eq!(samer.fresh("/messages?sender=samer&recipient=lena&limit=100").await.items().len(), page);
    let request = format!(
        "GET /messages?sender=samer&recipient=lena&limit={page} HTTP/1.1\r\nHost: chat\r\n\
         Authorization: Bearer {}\r\n\r\n",
        samer.token
    );
    let mut silent = Vec::new();
    for _ in 0..CLIENTS {
        // All answers together are more than the kernel takes on both sides.
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.set_recv_buffer_size(64 * 1024).expect("it can be set");
        let mut stream = socket.connect(app.address()).await.expect("the server accepts");
        stream.write_all(request.repeat(REQUESTS).as_bytes()).await.expect("requests are small");
        silent.push(stream);
    }
    e2e::within(ANSWER_UNREAD_MAX + Duration::from_secs(10), "they are cut off", async || {
        let slowest = sends(&samer, &lena, 5).await.pop().expect("five");
        assert!(slowest < SEND_TIME_MAX, "{slowest:?}");
        let mut left = Vec::new();
        for stream in silent.drain(..) {
            if stream.take_error().expect("a socket").is_none() {
                left.push(stream);
            }
        }
        silent = left;
        silent.is_empty().then_some(())
    })
    .await;
}

/// Half of them say nothing, the other half has been served once.
async fn idle_connections(app: &TestApp, count: usize) -> Vec<TcpStream> {
    let mut connections = Vec::new();
    for number in 0..count {
        let mut stream = TcpStream::connect(app.address()).await.expect("the server accepts");
        if number % 2 == 0 {
            stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: chat\r\n\r\n").await.expect("the server reads");
            let read = stream.read(&mut [0; 1024]).await.expect("the server answers");
            assert!(read > 0, "connection {number} was closed");
        }
        connections.push(stream);
    }
    connections
}

async fn two_thousand_idle_connections(app: &TestApp) {
    const CONNECTIONS: usize = 2_000;
    const SENDS: usize = 100;
    const ROUNDS: usize = 5;
    let (samer, lena) = (app.register("samer").await, app.register("lena").await);
    let mut rounds = Vec::new();
    // The machine does other things: what the connections cost is in every round, what those cost is not.
    for _ in 0..ROUNDS {
        let alone = sends(&samer, &lena, SENDS).await;
        let idle = idle_connections(app, CONNECTIONS).await;
        let among = sends(&samer, &lena, SENDS).await;
        // And who comes now is served.
        Client::new(app.address()).get("/healthz").send().await.expect(200);
        assert_eq!(idle.len(), CONNECTIONS);
        let p99 = |took: &[Duration]| took[took.len() * 99 / 100 - 1];
        let (alone, among) = (p99(&alone), p99(&among));
        if among <= 2 * alone {
            return;
        }
        rounds.push((alone, among));
    }
    panic!("p99 of sends, alone and among {CONNECTIONS} idle connections: {rounds:?}");
}

async fn sends_go_on_in_a_flood_of_logins(app: &TestApp) {
    let (samer, lena) = (app.register("samer").await, app.register("lena").await);
    // More than two instances with a queue each take at once.
    let logins = 4 * PASSWORD_HASHES_QUEUED_MAX;
    let mut flood = JoinSet::new();
    for number in 0..logins {
        let body = json!({ "username": format!("nobody{number}"), "password": "password123" });
        let request = app.post("/login").json(&body);
        flood.spawn(request.once());
    }
    let (mut tried, mut busy, mut sent) = (0, 0, 0);
    while !flood.is_empty() {
        let begun = Instant::now();
        samer.send(&lena, "hi").await;
        let took = begun.elapsed();
        assert!(
            took < SEND_TIME_MAX,
            "a send took {took:?}; of the logins {busy} are refused, {tried} tried"
        );
        sent += 1;
        while let Some(login) = flood.try_join_next() {
            let login = login.expect("no panic");
            match login.problem_code().as_str() {
                "busy" => {
                    assert_eq!(login.expect_problem(503, "busy")["outcome"], "not_applied");
                    busy += 1;
                }
                // A full queue is a second of work, and for nginx a few seconds of a machine with much else to do.
                _ if login.is_of_a_slow_machine() => {}
                _ => {
                    login.expect_problem(401, "invalid_credentials");
                    tried += 1;
                }
            }
        }
    }
    assert!(busy > 0 && tried > 0, "{busy} refused and {tried} tried: the queue has a bound");
    assert!(sent >= 10, "{sent} sends: they did not go on during the flood");
    // And a login is possible again.
    app.log_in("samer").await;
}
