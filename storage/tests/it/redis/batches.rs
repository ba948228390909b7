//! How much a batch holds, and what is counted of batches that come again.

use std::collections::BTreeSet;

use futures_util::future::join_all;
use shared::limits::{BATCH_EVENTS_BYTES_MAX, BATCH_EVENTS_MAX, READ_EVENTS_MAX, READ_OF_ONE_EVENTS_MAX};
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
async fn a_feed_that_is_behind_gives_all_of_few_partitions() {
    const EVENTS: usize = 4_000;
    const BATCH: usize = 1_000;
    let fresh = fresh().await;
    put_many(&fresh.store, EVENTS, "hi").await;
    let mut feed = fresh.store.feed(GENERATION, "one");
    let mut seen = BTreeSet::new();
    while seen.len() < EVENTS {
        let batch = feed.next_batch(BATCH).await.unwrap();
        assert_eq!(batch.len(), BATCH.min(EVENTS - seen.len()));
        assert!(batch.is_sorted_by_key(|delivery| delivery.position), "in log order within each partition");
        feed.ack(&batch).await.unwrap();
        let before = seen.len();
        seen.extend(batch.iter().map(|delivery| delivery.position));
        assert_eq!(seen.len(), before + batch.len(), "none twice");
        let of = |partition| batch.iter().filter(|delivery| delivery.position.partition == partition).count();
        let deep =
            (0..PARTITIONS).filter(|partition| of(*partition) > READ_EVENTS_MAX / usize::from(PARTITIONS));
        assert!(deep.count() < 5, "much of few: {:?}", (0..PARTITIONS).map(of).collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn a_small_batch_is_small() {
    let fresh = fresh().await;
    put_many(&fresh.store, 1_000, "hi").await;
    let mut feed = fresh.store.feed(GENERATION, "one");
    for events_max in [128, 50, 17] {
        assert_eq!(feed.next_batch(events_max).await.unwrap().len(), events_max);
    }
}

#[tokio::test]
async fn large_events_behind_small_ones_are_bounded() {
    let fresh = fresh().await;
    for content in ["hi".to_owned(), "x".repeat(CONTENT_BYTES)] {
        for _ in 0..24 {
            join_all((0..100).map(|_| put_to(&fresh.store, 0, content.clone()))).await;
        }
    }
    let (mut feed, mut seen) = (fresh.store.feed(GENERATION, "one"), 0);
    while seen < 2 * 2_400 {
        let batch = feed.next_batch(BATCH_EVENTS_MAX).await.unwrap();
        let large = |delivery: &&Delivery| match &delivery.content {
            Ok(recorded) => {
                matches!(&recorded.event, Event::MessageSent(sent) if sent.content.len() == CONTENT_BYTES)
            }
            Err(_) => false,
        };
        let bytes = batch.iter().filter(large).count() * CONTENT_BYTES;
        assert!(bytes <= BATCH_EVENTS_BYTES_MAX + READ_OF_ONE_EVENTS_MAX * CONTENT_BYTES, "{bytes}");
        feed.ack(&batch).await.unwrap();
        seen += batch.len();
    }
}

#[tokio::test]
async fn what_is_pending_comes_again_in_batches_as_large() {
    let fresh = fresh().await;
    put_many(&fresh.store, 1_000, "hi").await;
    let given = fresh.store.feed(GENERATION, "one").next_batch(BATCH_EVENTS_MAX).await.unwrap();
    assert_eq!(given.len(), 1_000);
    assert_eq!(fresh.store.feed(GENERATION, "one").next_batch(BATCH_EVENTS_MAX).await.unwrap(), given);
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
