//! Who takes what from whom: the dead are taken over from, the living are not.

use std::collections::BTreeSet;
use std::time::Duration;

use redis::AsyncTypedCommands;
use shared::limits::{CONSUMER_REMEMBERED, CONSUMER_SILENCE_MAX, FEED_TIMEOUT, FEED_WAIT_MAX};
use shared::ports::{EventFeed, FeedMonitor};
use storage::redis::{Feed, Redis};
use tokio::time::{Instant, timeout};

use super::server::Server;
use super::{Fresh, GENERATION, fresh, message, plain, put, read, start};

/// Nobody is given anything for so long.
async fn assert_given_nothing(feed: &mut Feed, long: Duration) {
    let started = Instant::now();
    while started.elapsed() < long {
        let batch = feed.next_batch(100).await.expect("next batch");
        assert!(batch.is_empty(), "after {:?}: {batch:?}", started.elapsed());
    }
}

async fn put_many(store: &Redis, count: usize) {
    let each = |number: usize| put(store, message("anna", &format!("peer{}", number % 8)));
    futures_util::future::join_all((0..count).map(each)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_consumer_that_lives_keeps_what_it_holds() {
    let fresh = fresh().await;
    put_many(&fresh.store, 20).await;
    let mut slow = fresh.store.feed(GENERATION, "slow");
    let held = read(&mut slow, 20).await;

    let mut other = fresh.store.feed(GENERATION, "other");
    assert_given_nothing(&mut other, 3 * CONSUMER_SILENCE_MAX).await;
    slow.ack(&held).await.unwrap();
    let status = fresh.store.monitor(GENERATION).status().await.unwrap();
    let consumers: Vec<_> = status.consumers.iter().map(|c| (c.name.as_str(), c.applied)).collect();
    assert_eq!(consumers, [("other", 0), ("slow", 20)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_dead_consumer_held_is_shared_out_in_bounded_batches() {
    const EVENTS: usize = 1_000;
    let fresh = fresh().await;
    put_many(&fresh.store, EVENTS).await;
    let mut dead = fresh.store.feed(GENERATION, "dead");
    read(&mut dead, EVENTS).await;
    drop(dead);

    let mut heirs = [fresh.store.feed(GENERATION, "one"), fresh.store.feed(GENERATION, "two")];
    let mut taken = BTreeSet::new();
    let take = async {
        while taken.len() < EVENTS {
            for heir in &mut heirs {
                let batch = heir.next_batch(10).await.unwrap();
                assert!(batch.len() <= 10 * usize::from(super::PARTITIONS), "{}", batch.len());
                assert!(batch.is_sorted_by_key(|delivery| delivery.position));
                for delivery in &batch {
                    assert!(taken.insert(delivery.position), "{} twice", delivery.position);
                }
            }
        }
    };
    timeout(Duration::from_secs(20), take).await.expect("in time");
    let status = fresh.store.monitor(GENERATION).status().await.unwrap();
    let pending = |name| status.consumers.iter().find(|c| c.name == name).expect("it is listed").pending;
    assert_eq!(pending("dead"), 0);
    assert!(pending("one") > 0 && pending("two") > 0, "{status:?}");
    let heard: Vec<_> = status.consumers.iter().filter(|c| c.is_heard()).map(|c| &c.name).collect();
    assert_eq!(heard, ["one", "two"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_consumer_that_holds_nothing_disappears() {
    let fresh = fresh().await;
    put_many(&fresh.store, 20).await;
    let mut holds_nothing = fresh.store.feed(GENERATION, "holds nothing");
    let batch = read(&mut holds_nothing, 20).await;
    holds_nothing.ack(&batch).await.unwrap();
    put_many(&fresh.store, 20).await;
    let mut holds = fresh.store.feed(GENERATION, "holds");
    read(&mut holds, 20).await;
    drop((holds_nothing, holds));

    let mut heir = fresh.store.feed(GENERATION, "heir");
    let left = read(&mut heir, 20).await;
    let monitor = fresh.store.monitor(GENERATION);
    let alone = async {
        loop {
            assert!(heir.next_batch(100).await.unwrap().is_empty());
            let names: Vec<_> =
                monitor.status().await.unwrap().consumers.into_iter().map(|c| c.name).collect();
            assert!(names.contains(&"heir".to_owned()));
            if names.len() == 1 {
                return;
            }
        }
    };
    timeout(CONSUMER_REMEMBERED + 10 * FEED_WAIT_MAX, alone).await.expect("they have left");
    let turns = format!("{}{{0}}:turns:g{GENERATION}", fresh.prefix);
    assert_eq!(plain().await.hkeys(&turns).await.unwrap(), ["heir"]);

    assert_eq!(monitor.status().await.unwrap().lag(), 20, "nothing is lost with them");
    heir.ack(&left).await.unwrap();
    assert_eq!(monitor.status().await.unwrap().lag(), 0);
    // One that comes back is a consumer like any other.
    put_many(&fresh.store, 20).await;
    read(&mut fresh.store.feed(GENERATION, "holds"), 20).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_entry_deleted_while_a_dead_consumer_held_it_is_not_skipped() {
    let fresh = fresh().await;
    let append = message("anna", "ben");
    let mut receipts = Vec::new();
    for _ in 0..3 {
        receipts.push(put(&fresh.store, append.clone()).await);
    }
    let mut dead = fresh.store.feed(GENERATION, "dead");
    read(&mut dead, 3).await;
    drop(dead);
    let events = format!("{}:events", fresh.keys_of(&append));
    let id = format!("{}-{}", receipts[1].position.ms, receipts[1].position.counter);
    plain().await.xdel(&events, &[id]).await.unwrap();

    let batch = read(&mut fresh.store.feed(GENERATION, "heir"), 3).await;
    let readable: Vec<_> = batch.iter().map(|d| (d.position, d.content.is_ok())).collect();
    let expected: Vec<_> = receipts.iter().map(|r| r.position).zip([true, false, true]).collect();
    assert_eq!(readable, expected);
}

/// Nobody was heard of meanwhile, and nobody is dead.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_stood_still_makes_nobody_an_heir() {
    let server = Server::start().await;
    let Fresh { store, _stop, .. } = start(&server.patient()).await;
    put_many(&store, 20).await;
    let mut slow = store.feed(GENERATION, "slow");
    let held = read(&mut slow, 20).await;
    let mut other = store.feed(GENERATION, "other");
    // From here on it would take over from the dead.
    assert_given_nothing(&mut other, CONSUMER_SILENCE_MAX + FEED_WAIT_MAX).await;

    // Connections survive the first and not the second.
    for pause in [CONSUMER_SILENCE_MAX + Duration::from_secs(1), FEED_TIMEOUT + Duration::from_secs(1)] {
        server.signal("STOP");
        let stands_still = async {
            tokio::time::sleep(pause).await;
            server.signal("CONT");
        };
        let waits = async {
            let started = Instant::now();
            while started.elapsed() < pause + CONSUMER_SILENCE_MAX + 2 * FEED_WAIT_MAX {
                let batch = other.next_batch(100).await.unwrap_or_default();
                assert!(batch.is_empty(), "after {:?}: {batch:?}", started.elapsed());
            }
        };
        tokio::join!(stands_still, waits);
    }
    slow.ack(&held).await.unwrap();
}
