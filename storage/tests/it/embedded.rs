//! The contract on the embedded store, in a directory of its own for every test.
//! What becomes of it after a restart or damage is tested beside its code.

#![expect(clippy::unwrap_used, reason = "all of this is test code")]

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use shared::clock::Clock;
use shared::limits::IDEMPOTENCY_WINDOW;
use shared::ports::StoreError;
use storage::contract::{Age, LogStores, ViewStores};
use storage::embedded::{Embedded, Options};

storage::log_contract!(log_stores);
storage::malformed_contract!(log_stores);

/// Apart, as both suites have marks that only rise.
mod views {
    storage::views_contract!(super::view_stores);
}

/// The clock stands at the time, so that a test can move it.
async fn log_stores() -> LogStores {
    let dir = tempfile::tempdir().unwrap();
    let clock = Clock::standing_at(Clock::system().now());
    let store = open_at(dir.path(), clock.clone()).unwrap();
    let (feeds, tails, raw) = (store.clone(), store.clone(), store.clone());
    LogStores {
        log: Arc::new(store.clone()),
        accounts: Arc::new(store.clone()),
        sessions: Arc::new(store.clone()),
        heads: Arc::new(store.clone()),
        notices: Arc::new(store.clone()),
        monitor: Arc::new(store.clone()),
        reader: Arc::new(store.clone()),
        tail: Box::new(move || Box::new(tails.tail())),
        scan: Arc::new(store.clone()),
        limits: Arc::new(store),
        consumer: Box::new(move |name| {
            let feed = feeds.feed(name);
            Box::pin(async move { Box::new(feed) as _ })
        }),
        several_consumers: false,
        age_sessions: age(&clock),
        age_limits: age(&clock),
        put_raw: Some(Box::new(move |entry| {
            let store = raw.clone();
            Box::pin(async move { store.put_raw(entry).await.unwrap() })
        })),
        keep: Box::new(dir),
    }
}

fn age(clock: &Clock) -> Age {
    let clock = clock.clone();
    Box::new(move |by: Duration| {
        clock.advance(by);
        Box::pin(async {})
    })
}

async fn view_stores() -> ViewStores {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).unwrap();
    ViewStores {
        writer: Arc::new(store.clone()),
        other_writer: Arc::new(store.clone()),
        reader: Arc::new(store.clone()),
        parked: Arc::new(store.clone()),
        scan: Arc::new(store),
        histories: 200,
        keep: Box::new(dir),
    }
}

fn open(dir: &Path) -> Result<Embedded, StoreError> {
    open_at(dir, Clock::system())
}

fn open_at(dir: &Path, clock: Clock) -> Result<Embedded, StoreError> {
    Embedded::open(&Options { dir: dir.to_owned(), idempotency_window: IDEMPOTENCY_WINDOW }, clock)
}
