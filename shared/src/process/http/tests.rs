//! The server with clients that mean harm, and with handlers that fail.

use std::net::SocketAddr;

use axum::routing::get;
use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;

use super::*;
use crate::limits::ANSWER_UNREAD_MAX;

const MIB: usize = 1024 * 1024;

/// For a machine that does other things too.
const PATIENCE: Duration = Duration::from_secs(10);

async fn start(router: Router) -> (SocketAddr, Lifecycle) {
    let (listener, lifecycle) =
        (bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap(), Lifecycle::default());
    let address = listener.local_addr().unwrap();
    let metrics = HttpMetrics::new(&Metrics::default());
    serve(listener, finish(router, Edge { clock: Clock::system(), metrics }), &lifecycle);
    (address, lifecycle)
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
    let (address, lifecycle) = start(Router::new().route("/", get(|| async { page }))).await;
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
