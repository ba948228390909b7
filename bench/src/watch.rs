//! Sends messages as people would, and reads each until it is there. What counts is the time from its 201 to the
//! answer that shows it.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use futures_util::future::try_join_all;
use serde::Deserialize;
use tokio::time::Instant;

use crate::connection::Connection;
use crate::load::{Measured, Timing};
use crate::sends::Source;
use crate::tally::Tally;

/// Of each sender, one after the other: with 50 senders a message every 20 ms, few enough to be nobody's load.
const MESSAGE_EVERY: Duration = Duration::from_secs(1);
/// What is not there by then counts as failed.
const VISIBLE_TIME_MAX: Duration = Duration::from_secs(20);

pub(crate) struct Watch {
    /// command-api.
    pub(crate) sends_to: SocketAddr,
    /// query-api.
    pub(crate) reads_from: SocketAddr,
    pub(crate) sends: Arc<dyn Source>,
    /// Of the senders, in their order.
    pub(crate) tokens: Vec<String>,
}

/// Of the answer to a send, and of a page.
#[derive(Deserialize)]
struct Message {
    seq: u64,
    sender: String,
    recipient: String,
}

impl Watch {
    /// Counts the messages sent within the window, which begins after the warm-up.
    pub(crate) async fn measure(&self, timing: Timing) -> Result<Measured> {
        let begin = Instant::now() + timing.warm_up;
        let watchers =
            (0..self.tokens.len()).map(|sender| self.watch(sender, begin, begin + timing.measured));
        let mut tally = Tally::new();
        try_join_all(watchers).await?.iter().for_each(|of_one| tally.add(of_one));
        Ok(Measured { tally, seconds: timing.measured.as_secs_f64(), cpu: Vec::new() })
    }

    async fn watch(&self, sender: usize, begin: Instant, end: Instant) -> Result<Tally> {
        let mut sends = Connection::open(self.sends_to).await.context("connecting to command-api")?;
        let mut reads = Connection::open(self.reads_from).await.context("connecting to query-api")?;
        let mut requests = self.sends.requests(sender);
        let mut tally = Tally::new();
        // Evenly over the time between two messages of one sender.
        let mut due = begin + MESSAGE_EVERY * u32::try_from(sender)? / u32::try_from(self.tokens.len())?;
        while due < end {
            tokio::time::sleep_until(due).await;
            let answer = sends.exchange(requests.next()).await;
            let acknowledged = Instant::now();
            let seen = match answer {
                Ok(201) => {
                    let message = serde_json::from_slice(sends.body()).context("the answer to a send")?;
                    read_until_seen(&mut reads, &self.tokens[sender], &message, acknowledged).await
                }
                other => other,
            };
            tally.record(&seen, acknowledged.elapsed());
            due += MESSAGE_EVERY;
        }
        Ok(tally)
    }
}

/// A page waits for its messages itself, but not for long.
async fn read_until_seen(
    reads: &mut Connection,
    token: &str,
    message: &Message,
    acknowledged: Instant,
) -> io::Result<u16> {
    let Message { seq, sender, recipient } = message;
    let after = seq - 1;
    let request = format!(
        "GET /messages?sender={sender}&recipient={recipient}&after={after}&limit=1 HTTP/1.1\r\nHost: bench\r\n\
         Authorization: Bearer {token}\r\n\r\n"
    );
    while acknowledged.elapsed() < VISIBLE_TIME_MAX {
        let status = reads.exchange(request.as_bytes()).await?;
        if status != 200 {
            return Ok(status);
        }
        let page: Vec<Message> = serde_json::from_slice(reads.body())?;
        if page.iter().any(|shown| shown.seq == *seq) {
            return Ok(status);
        }
    }
    Err(io::ErrorKind::TimedOut.into())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use axum::Router;
    use axum::http::StatusCode;
    use axum::routing::{get, post};
    use tokio::net::TcpListener;
    use tokio_util::task::TaskTracker;

    use super::*;
    use crate::sends::{Population, Sends};

    const MESSAGE: &str = r#"{"seq":7,"sender":"anna","recipient":"ben"}"#;

    async fn server(pages_without: u64) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::new(AtomicU64::new(0));
        let page = move |uri: axum::http::Uri| async move {
            assert_eq!(uri.query(), Some("sender=anna&recipient=ben&after=6&limit=1"));
            let shown = asked.fetch_add(1, Ordering::Relaxed) >= pages_without;
            if shown { format!("[{MESSAGE}]") } else { "[]".to_owned() }
        };
        let router = Router::new()
            .route("/send", post(async || (StatusCode::CREATED, MESSAGE)))
            .route("/messages", get(page));
        TaskTracker::new().spawn(async { axum::serve(listener, router).await });
        address
    }

    #[tokio::test]
    async fn a_message_counts_when_a_page_shows_it() {
        let address = server(2).await;
        let tokens = vec!["token".to_owned()];
        let sends = Sends::new(Population::USUAL, tokens.clone(), false, "run".to_owned());
        let watch = Watch { sends_to: address, reads_from: address, sends, tokens };
        let timing = Timing { warm_up: Duration::ZERO, measured: Duration::from_millis(10) };
        let tally = watch.measure(timing).await.unwrap().tally;
        assert_eq!((tally.accepted(), tally.failed()), (1, 0));
    }
}
