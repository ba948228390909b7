//! How much a batch holds, and what is counted of batches that come again.

use futures_util::future::join_all;
use shared::limits::{BATCH_EVENTS_BYTES_MAX, BATCH_EVENTS_MAX, READ_EVENTS_MAX};
use shared::process::telemetry::Metrics;

use super::*;

/// Of the largest messages that are sent.
const CONTENT_BYTES: usize = 16_000;

/// In a conversation of its own, so that all partitions have some.
async fn put_to(store: &Redis, peer: usize, content: String) {
    let Append { event, .. } = message("anna", &format!("peer{peer}"));
    let Event::MessageSent(sent) = event else { panic!("{event:?}") };
    let event = Event::MessageSent(MessageSent { content, ..sent });
    put(store, Append { event, ..message("anna", "ben") }).await;
}

async fn put_many(store: &Redis, events: usize, content: &str) {
    for peers in (0..events).collect::<Vec<_>>().chunks(64) {
        join_all(peers.iter().map(|peer| put_to(store, *peer, content.to_owned()))).await;
    }
}

#[tokio::test]
async fn a_batch_of_large_events_ends_early() {
    const EVENTS: usize = 2_400;
    let fresh = fresh().await;
    put_many(&fresh.store, EVENTS, &"x".repeat(CONTENT_BYTES)).await;
    let mut feed = fresh.store.feed(GENERATION, "one");
    let mut seen = 0;
    while seen < EVENTS {
        let batch = feed.next_batch(BATCH_EVENTS_MAX).await.unwrap();
        let bytes = batch.len() * CONTENT_BYTES;
        assert!(bytes <= BATCH_EVENTS_BYTES_MAX + READ_EVENTS_MAX * CONTENT_BYTES, "{bytes}");
        feed.ack(&batch).await.unwrap();
        seen += batch.len();
    }
    assert_eq!(seen, EVENTS);
}

#[tokio::test]
async fn a_batch_of_small_events_is_wide() {
    const EVENTS: usize = 2_000;
    let fresh = fresh().await;
    put_many(&fresh.store, EVENTS, "hi").await;
    let mut feed = fresh.store.feed(GENERATION, "one");
    let batch = feed.next_batch(BATCH_EVENTS_MAX).await.unwrap();
    let of = |partition| batch.iter().filter(|delivery| delivery.position.partition == partition).count();
    assert!(batch.len() > READ_EVENTS_MAX, "{} in more than one read", batch.len());
    assert!((0..PARTITIONS).all(|partition| of(partition) <= BATCH_EVENTS_MAX), "{}", batch.len());
    assert!(batch.is_sorted_by_key(|delivery| delivery.position), "in log order within each partition");
}

#[tokio::test]
async fn what_comes_again_is_counted() {
    let (fresh, metrics) = (fresh().await, Metrics::default());
    fresh.store.register_feed_metrics(&metrics);
    let counted = |redelivered: u32, claimed: u32| {
        let text = metrics.text();
        text.contains(&format!("projector_redelivered_events_total {redelivered}\n"))
            && text.contains(&format!("projector_claimed_events_total {claimed}\n"))
    };
    put_many(&fresh.store, 3, "hi").await;
    let given = read(&mut fresh.store.feed(GENERATION, "one"), 3).await;
    assert!(counted(0, 0), "{}", metrics.text());
    assert_eq!(read(&mut fresh.store.feed(GENERATION, "one"), 3).await.len(), given.len());
    assert!(counted(3, 0), "{}", metrics.text());

    let mut heir = fresh.store.feed(GENERATION, "two");
    let taken = read(&mut heir, 3).await;
    assert!(counted(3, 3), "{}", metrics.text());
    heir.ack(&taken).await.unwrap();
}
