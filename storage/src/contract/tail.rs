//! What every [`LogTail`] does.

use std::collections::BTreeMap;
use std::time::Duration;

use shared::ids::Position;
use shared::limits::FEED_WAIT_MAX;
use shared::ports::{Delivery, LogEnd, LogTail};
use tokio::time::{Instant, timeout};

use super::feed::{WIDE, a_bit_of_everything, next, read, take};
use super::{LogStores, message, soon};

pub async fn of_a_new_log_there_is_no_end(stores: LogStores) {
    let mut tail = (stores.tail)();
    assert_eq!(soon("an end", tail.end(WIDE)).await.expect("an end"), None);
    let first = stores.put(message("anna", "ben", "hi")).await;
    let LogEnd { log, behind, entries } = end(&mut *tail, WIDE).await;
    assert_eq!(positions(&entries), [first.position]);
    assert!(behind.iter().all(|position| (position.ms, position.counter) == (0, 0)), "{behind:?}");
    let again = end(&mut *(stores.tail)(), WIDE).await;
    assert_eq!(again.log, log, "it is the same log");
}

/// Whatever is behind the positions that it tells is among the entries.
pub async fn a_tail_begins_with_the_end_of_the_log(stores: LogStores) {
    const ALL: usize = 10_000;
    let mut all = Vec::new();
    for append in a_bit_of_everything().into_iter().cycle().take(60) {
        if let Ok(shared::ports::Appended::New(receipt)) = stores.log.append(append).await {
            all.push(receipt.position);
        }
    }
    for number in 0..40 {
        all.push(stores.put(message("anna", &format!("peer{}", number % 5), "hi")).await.position);
    }
    all.sort();
    for events_max in [1, 7, ALL] {
        let mut tail = (stores.tail)();
        let LogEnd { behind, entries, .. } = end(&mut *tail, events_max).await;
        let behind_all = |position: &&Position| **position > behind[usize::from(position.partition)];
        let expected: Vec<Position> = all.iter().filter(behind_all).copied().collect();
        assert_eq!(positions(&entries), expected, "{events_max}");
        assert_eq!(entries.len() == all.len(), events_max == ALL, "{events_max}");
        for (partition, position) in (0..).zip(&behind) {
            assert_eq!(position.partition, partition, "one for each, in their order");
            let given = expected.iter().filter(|given| given.partition == partition).count();
            assert!(given <= events_max.div_ceil(behind.len()), "{given} of partition {partition}");
        }
        let later = stores.put(message("anna", "peer0", "later")).await;
        assert_eq!(positions(&follow(&mut *tail, 1).await), [later.position], "it goes on behind the end");
        all.push(later.position);
        all.sort();
    }
}

pub async fn a_tail_is_woken_and_follows_in_log_order(stores: LogStores) {
    stores.put(message("anna", "ben", "first")).await;
    let mut tail = (stores.tail)();
    end(&mut *tail, WIDE).await;
    let started = Instant::now();
    let quiet = soon("a wait", tail.next_batch(WIDE)).await.expect("a batch");
    assert!(quiet.is_empty() && started.elapsed() >= FEED_WAIT_MAX, "{quiet:?}, {:?}", started.elapsed());

    let mut expected = BTreeMap::new();
    let started = Instant::now();
    let append = stores.put(message("anna", "ben", "second"));
    let (batch, receipt) = tokio::join!(follow(&mut *tail, 1), append);
    assert_eq!(positions(&batch), [receipt.position]);
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    for number in 0..300 {
        let append = message("anna", &format!("peer{}", number % 20), "hi");
        expected.insert(stores.put(append.clone()).await.position, append.id);
    }
    let mut followed = Vec::new();
    while followed.len() < expected.len() {
        let batch = soon("a batch", tail.next_batch(10)).await.expect("a batch");
        let of_partition = |partition| batch.iter().filter(move |one| one.position.partition == partition);
        assert!((0..16).all(|partition| of_partition(partition).count() <= 20), "about 10 of each");
        followed.extend(batch);
    }
    let mut last: BTreeMap<u16, Position> = BTreeMap::new();
    for delivery in &followed {
        let position = delivery.position;
        assert!(last.insert(position.partition, position).is_none_or(|last| last < position), "{position}");
        assert_eq!(expected.remove(&position), Some(read(delivery).id), "{position}");
    }
    assert!(expected.is_empty());
}

pub async fn tails_and_consumers_do_not_touch_each_other(stores: LogStores) {
    stores.put(message("anna", "ben", "first")).await;
    let (mut one, mut other) = ((stores.tail)(), (stores.tail)());
    end(&mut *one, WIDE).await;
    end(&mut *other, WIDE).await;
    let second = stores.put(message("anna", "ben", "second")).await;
    assert_eq!(positions(&follow(&mut *one, 1).await), [second.position]);
    let before = soon("status", stores.monitor.status()).await.expect("status");
    assert_eq!((before.lag(), before.pending()), (2, 0), "nothing was taken from the group");
    let mut feed = (stores.consumer)("one").await;
    let delivered = take(&mut *feed, 2).await;
    assert_eq!(delivered.len(), 2);
    assert_eq!(positions(&follow(&mut *other, 1).await), [second.position], "nor from another tail");
    let third = stores.put(message("anna", "ben", "third")).await;
    assert_eq!(next(&mut *feed, WIDE).await[0].position, third.position);
}

pub async fn a_dropped_wait_of_a_tail_loses_nothing(stores: LogStores) {
    const EVENTS: usize = 200;
    stores.put(message("anna", "ben", "first")).await;
    let mut tail = (stores.tail)();
    end(&mut *tail, WIDE).await;
    let append = async {
        let mut appended = Vec::new();
        for number in 0..EVENTS {
            appended.push(stores.put(message("anna", &format!("peer{}", number % 10), "hi")).await.position);
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        appended.sort();
        appended
    };
    let follow = async {
        let mut seen = Vec::new();
        while seen.len() < EVENTS {
            // Too short for most of the waits.
            if let Ok(batch) = timeout(Duration::from_micros(700), tail.next_batch(WIDE)).await {
                seen.extend(batch.expect("a batch").iter().map(|delivery| delivery.position));
            }
            if let Ok(batch) = timeout(Duration::from_millis(20), tail.next_batch(WIDE)).await {
                seen.extend(batch.expect("a batch").iter().map(|delivery| delivery.position));
            }
        }
        seen.sort();
        seen
    };
    let (appended, seen) = soon("all events", async { tokio::join!(append, follow) }).await;
    assert_eq!(seen, appended, "each once");
}

async fn end(tail: &mut dyn LogTail, events_max: usize) -> LogEnd {
    soon("an end", tail.end(events_max)).await.expect("an end").expect("something was appended")
}

/// At least so many.
async fn follow(tail: &mut dyn LogTail, count: usize) -> Vec<Delivery> {
    let mut followed = Vec::new();
    while followed.len() < count {
        followed.extend(soon("a batch", tail.next_batch(WIDE)).await.expect("a batch"));
    }
    followed
}

fn positions(deliveries: &[Delivery]) -> Vec<Position> {
    let mut positions: Vec<Position> = deliveries.iter().map(|delivery| delivery.position).collect();
    positions.sort();
    positions
}
