//! The server with clients that mean harm, and with handlers that fail.

use std::net::SocketAddr;

use axum::routing::get;
use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::limits::ANSWER_UNREAD_MAX;

const MIB: usize = 1024 * 1024;

/// For a machine that does other things too.
const PATIENCE: Duration = Duration::from_secs(10);

async fn listen() -> (TcpListener, SocketAddr) {
    let listener = bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

fn finished_router(router: Router) -> Router {
    let health = Health::new(Vec::new(), CancellationToken::new());
    let (metrics, cors) = (HttpMetrics::new(&Metrics::default()), Cors::default());
    finish(router, Edge { clock: Clock::system(), metrics, health, cors })
}

/// A connection that holds little by itself: what is not read soon waits on the server's side.
async fn connect(address: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(64 * 1024).unwrap();
    socket.connect(address).await.unwrap()
}

#[tokio::test]
async fn a_client_that_never_reads_is_cut_off_and_a_slow_one_is_not() {
    const ANSWERS: usize = 12;
    let page = Bytes::from(vec![b'x'; MIB]);
    let ((listener, address), lifecycle) = (listen().await, Lifecycle::default());
    serve(listener, Router::new().route("/", get(|| async { page })), &lifecycle);
    let requests = "GET / HTTP/1.1\r\nHost: chat\r\n\r\n".repeat(ANSWERS - 1)
        + "GET / HTTP/1.1\r\nHost: chat\r\nConnection: close\r\n\r\n";
    let never = async {
        let mut stream = connect(address).await;
        stream.write_all(requests.as_bytes()).await.unwrap();
        let begun = Instant::now();
        let cut = async {
            while stream.take_error().unwrap().is_none() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(ANSWER_UNREAD_MAX + PATIENCE, cut).await.expect("it is cut off");
        assert!(begun.elapsed() >= ANSWER_UNREAD_MAX, "{:?}", begun.elapsed());
    };
    let slow = async {
        let mut stream = connect(address).await;
        stream.write_all(requests.as_bytes()).await.unwrap();
        let (begun, mut read, mut buffer) = (Instant::now(), 0, vec![0; 64 * 1024]);
        while begun.elapsed() < ANSWER_UNREAD_MAX + Duration::from_secs(2) {
            read += stream.read(&mut buffer).await.unwrap();
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        assert!(read < ANSWERS * MIB, "it was not slow");
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).await.unwrap();
        assert!(read + rest.len() > ANSWERS * MIB, "cut off after {} bytes", read + rest.len());
    };
    tokio::join!(never, slow);
    lifecycle.drain().await;
    assert_eq!(lifecycle.tasks.len(), 0);
}

/// Whoever gives up an answer that is not taken does not wait for the client.
#[tokio::test]
async fn a_connection_is_cut_from_outside() {
    let ((listener, address), lifecycle) = (listen().await, Lifecycle::default());
    let (given, mut hangups) = tokio::sync::mpsc::unbounded_channel();
    let answer = move |hangup: Hangup| async move {
        given.send(hangup).unwrap();
        Bytes::from(vec![b'x'; 16 * MIB])
    };
    serve(listener, Router::new().route("/", get(answer)), &lifecycle);
    let mut stream = connect(address).await;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: chat\r\n\r\n").await.unwrap();
    let hangup = hangups.recv().await.expect("the handler runs");
    let mut buffer = vec![0; 1024];
    assert!(stream.read(&mut buffer).await.unwrap() > 0, "the answer has begun");
    let begun = Instant::now();
    hangup.cut();
    let cut = async { while stream.read(&mut buffer).await.is_ok_and(|read| read > 0) {} };
    tokio::time::timeout(PATIENCE, cut).await.expect("it is cut");
    assert!(begun.elapsed() < ANSWER_UNREAD_MAX, "{:?}", begun.elapsed());
    lifecycle.drain().await;
    assert_eq!(lifecycle.tasks.len(), 0);
}

/// Sends one request on a connection that stays open; the head and the body of the answer.
async fn ask(stream: &mut TcpStream, method: &str, path: &str) -> (String, String) {
    let request = format!("{method} {path} HTTP/1.1\r\nHost: chat\r\nContent-Length: 0\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&answer).to_ascii_lowercase();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.split("content-length: ").nth(1).unwrap().lines().next().unwrap();
            if body.len() == length.parse::<usize>().unwrap() {
                return (head.to_owned(), body.to_owned());
            }
        }
        let read = tokio::time::timeout(PATIENCE, stream.read_buf(&mut answer)).await.expect("an answer");
        assert!(read.unwrap() > 0, "the connection was closed after {text:?}");
    }
}

#[tokio::test]
async fn connections_beyond_the_cap_wait_until_another_closes() {
    const PLACES: usize = 3;
    let ((listener, address), lifecycle) = (listen().await, Lifecycle::default());
    let router = Router::new().route("/", get(|| async { "here" }));
    lifecycle.spawn(accept(listener, router, PLACES, Connections::default(), lifecycle.clone()));
    let mut served = Vec::new();
    for _ in 0..PLACES {
        let mut stream = connect(address).await;
        assert_eq!(ask(&mut stream, "GET", "/").await.1, "here");
        served.push(stream);
    }
    let mut waiting = connect(address).await;
    let early = tokio::time::timeout(Duration::from_millis(300), ask(&mut waiting, "GET", "/")).await;
    assert!(early.is_err(), "served beyond the cap: {early:?}");
    // Who is inside does not notice.
    assert_eq!(ask(&mut served[0], "GET", "/").await.1, "here");
    drop(served.pop());
    let mut answer = Vec::new();
    let answered = async {
        while !answer.ends_with(b"here") {
            assert!(waiting.read_buf(&mut answer).await.unwrap() > 0, "closed instead of served");
        }
    };
    tokio::time::timeout(PATIENCE, answered).await.expect("it is served when a place is free");
    drop((served, waiting));
    lifecycle.drain().await;
    assert_eq!(lifecycle.tasks.len(), 0);
}

#[tokio::test]
async fn a_connection_whose_task_panics_is_open_no_longer() {
    async fn panics() -> &'static str {
        panic!("where nobody catches it")
    }
    let ((listener, address), lifecycle, metrics) =
        (listen().await, Lifecycle::default(), Metrics::default());
    let connections = Connections::new(&metrics);
    let router = Router::new().route("/", get(async || "here")).route("/panic", get(panics));
    lifecycle.spawn(accept(listener, router, 2, connections, lifecycle.clone()));
    let mut stream = connect(address).await;
    assert_eq!(ask(&mut stream, "GET", "/").await.1, "here");
    assert!(metrics.text().contains("http_connections_open 1\n"), "{}", metrics.text());
    // The process does not end with it: two places, and each of these took one.
    for _ in 0..3 {
        let mut stream = connect(address).await;
        stream.write_all(b"GET /panic HTTP/1.1\r\nHost: chat\r\n\r\n").await.unwrap();
        let read = tokio::time::timeout(PATIENCE, stream.read(&mut [0; 64])).await.expect("it is closed");
        assert!(matches!(read, Ok(0) | Err(_)), "{read:?}");
    }
    drop(stream);
    lifecycle.drain().await;
    assert!(metrics.text().contains("http_connections_open 0\n"), "{}", metrics.text());
}

#[tokio::test]
async fn a_handler_that_panics_is_a_500_and_the_process_lives() {
    async fn panics() -> &'static str {
        panic!("a secret of the handler")
    }
    let ((listener, address), lifecycle) = (listen().await, Lifecycle::default());
    let router = Router::new().route("/", get(panics).post(panics).put(panics));
    serve(listener, finished_router(router.route("/fine", get(|| async { "fine" }))), &lifecycle);
    // All on one connection: not even that is lost.
    let mut stream = connect(address).await;
    for (method, outcome) in [("POST", Some("unknown")), ("GET", None), ("PUT", Some("unknown"))] {
        let (head, body) = ask(&mut stream, method, "/").await;
        assert!(head.starts_with("http/1.1 500 "), "{head}");
        assert!(head.contains("content-type: application/problem+json"), "{head}");
        let problem: serde_json::Value = serde_json::from_str(&body).unwrap();
        assert_eq!((&problem["status"], &problem["code"]), (&500.into(), &"internal".into()), "{body}");
        assert_eq!(problem["outcome"].as_str(), outcome, "{method}: {body}");
        let request_id = problem["request_id"].as_str().unwrap();
        assert!(head.contains(&format!("x-request-id: {request_id}")), "{head}: {body}");
        assert!(!body.contains("secret"), "{body}");
        assert_eq!(ask(&mut stream, "GET", "/fine").await.1, "fine");
    }
    drop(stream);
    lifecycle.drain().await;
    assert_eq!(lifecycle.tasks.len(), 0);
}
