//! The API's promises, one file per feature; every test runs on every backend that it makes sense on. Tables, not
//! one test per case: on the real backend each test starts a system of its own.
#![expect(clippy::unwrap_used, reason = "tests may; clippy knows that only of the functions marked so")]

use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::net::tcp::OwnedReadHalf;

mod abuse;
mod bodies;
mod caching;
mod conventions;
mod conversations;
mod cors;
mod events;
mod flood;
mod history;
mod idempotency;
mod limits;
mod messages;
mod metrics;
mod min_seq;
mod open_mode;
mod order_of_checks;
mod original;
mod paging;
mod parked;
mod register;
mod send;
mod sessions;
mod shapes;
mod status;
mod transcripts;
mod verify;

#[cfg(feature = "real")]
mod archive;
#[cfg(feature = "real")]
mod changed_view;
#[cfg(feature = "real")]
mod commands;
#[cfg(feature = "real")]
mod cut_short;
#[cfg(feature = "real")]
mod durability;
#[cfg(feature = "real")]
mod edge;
#[cfg(feature = "real")]
mod emptied;
#[cfg(feature = "real")]
mod events_in_a_browser;
#[cfg(feature = "real")]
mod events_resumed;
#[cfg(feature = "real")]
mod groups;
#[cfg(feature = "real")]
mod in_flight;
#[cfg(feature = "real")]
mod logs;
#[cfg(feature = "real")]
mod outage;
#[cfg(feature = "real")]
mod power_cut;
#[cfg(feature = "real")]
mod rebuild;
#[cfg(feature = "real")]
mod restart;
#[cfg(feature = "real")]
mod restored;
#[cfg(feature = "real")]
mod rolled_back;
#[cfg(feature = "real")]
mod scaling;
#[cfg(feature = "real")]
mod starting;
#[cfg(feature = "real")]
mod store_failures;
#[cfg(feature = "real")]
mod takeover;

/// What comes back until the server closes the connection, while `writing`, which does not end, goes on beside it.
/// `None`: it was still open after `bound`.
async fn until_closed(
    mut reading: OwnedReadHalf,
    writing: impl Future<Output = ()>,
    bound: Duration,
) -> Option<String> {
    let mut answer = Vec::new();
    let closed = async {
        tokio::select! {
            // A reset is a close too.
            _ = reading.read_to_end(&mut answer) => {}
            () = writing => {}
        }
    };
    tokio::time::timeout(bound, closed).await.ok()?;
    Some(String::from_utf8_lossy(&answer).into_owned())
}

/// The answers to `count` requests that are made at once.
async fn at_once<T: Send + 'static, F: Future<Output = T> + Send + 'static>(
    count: usize,
    request: impl Fn() -> F,
) -> Vec<T> {
    let mut requests = tokio::task::JoinSet::new();
    for _ in 0..count {
        requests.spawn(request());
    }
    requests.join_all().await
}
