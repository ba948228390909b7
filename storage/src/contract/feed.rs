//! What every [`EventFeed`], [`FeedMonitor`](shared::ports::FeedMonitor), [`Notices`](shared::ports::Notices) and
//! [`LogReader`](shared::ports::LogReader) does.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures_util::future::join_all;
use shared::Seq;
use shared::event::RecordedEvent;
use shared::ids::{Position, Subject, Trace};
use shared::limits::{CONSUMER_SILENCE_MAX, FEED_WAIT_MAX};
use shared::ports::{Append, Applied, Delivery, EventFeed, Receipt, StoreError};
use tokio::time::{Instant, timeout};

use super::{LogStores, mark, message, pair, registration, soon};

pub(super) const WIDE: usize = 500;

pub async fn every_event_is_delivered_in_log_order(stores: LogStores) {
    let appends = a_bit_of_everything();
    let mut expected = BTreeMap::new();
    for append in &appends {
        expected.insert(stores.put(append.clone()).await.position, append.clone());
    }
    let mut feed = (stores.consumer)("one").await;
    let delivered = take(&mut *feed, expected.len()).await;
    for (position, append) in expected {
        let event = delivered.get(&position).unwrap_or_else(|| panic!("{position} was not delivered"));
        assert_eq!((event.id, &event.event), (append.id, &append.event));
        assert_eq!((event.position, event.at.0), (position, position.ms));
    }
}

pub async fn offsets_are_dense_and_time_never_falls(stores: LogStores) {
    let receipts = join_all(a_bit_of_everything().into_iter().map(|append| stores.put(append))).await;
    let mut feed = (stores.consumer)("one").await;
    let delivered = take(&mut *feed, receipts.len()).await;
    for receipt in receipts {
        let event = &delivered[&receipt.position];
        assert_eq!((event.id, event.seq, event.at), (receipt.id, receipt.seq, receipt.at));
    }
    let mut last: BTreeMap<u16, &RecordedEvent> = BTreeMap::new();
    let mut seqs: BTreeMap<Subject, Seq> = BTreeMap::new();
    for event in delivered.values() {
        let before = last.insert(event.position.partition, event);
        assert_eq!(event.offset, before.map_or(0, |before| before.offset) + 1, "dense in the partition");
        assert!(before.is_none_or(|before| before.at <= event.at), "time never falls");
        let seq = seqs.entry(event.event.subject()).or_default();
        assert_eq!(event.seq, *seq + 1, "a subject's numbers follow the log");
        *seq = event.seq;
    }
}

pub async fn the_trace_of_a_request_comes_with_its_event(stores: LogStores) {
    let trace: Trace = "0af7651916cd43dd8448eb211c80319c".parse().expect("a trace");
    let traced = |append| Append { trace: Some(trace), ..append };
    let sampled = |append| Append { trace: Some(Trace { is_sampled: true, ..trace }), ..append };
    let mut expected = BTreeMap::new();
    for append in [
        traced(registration("anna")),
        traced(message("anna", "ben", "with")),
        message("anna", "ben", "without"),
        sampled(message("anna", "ben", "sampled")),
        traced(mark("ben", "anna", 1)),
    ] {
        expected.insert(stores.put(append.clone()).await.position, append.trace);
    }
    let mut feed = (stores.consumer)("one").await;
    for (position, event) in take(&mut *feed, expected.len()).await {
        assert_eq!(event.trace, expected[&position], "{position}");
    }
}

pub async fn a_feed_made_late_starts_at_the_first_event(stores: LogStores) {
    let first = stores.put(message("anna", "ben", "first")).await;
    for _ in 0..50 {
        stores.put(message("anna", "ben", "later")).await;
    }
    let mut feed = (stores.consumer)("late").await;
    let delivered = take(&mut *feed, 51).await;
    assert_eq!(delivered.keys().next(), Some(&first.position));
}

pub async fn a_batch_is_bounded(stores: LogStores) {
    for _ in 0..100 {
        stores.put(message("anna", "ben", "hi")).await;
    }
    let mut feed = (stores.consumer)("one").await;
    let mut seqs = Vec::new();
    while seqs.len() < 100 {
        let batch = next(&mut *feed, 10).await;
        assert!(!batch.is_empty() && batch.len() <= 20, "about 10: {}", batch.len());
        seqs.extend(batch.iter().map(|delivery| read(delivery).seq));
        feed.ack(&batch).await.expect("ack");
    }
    assert_eq!(seqs, (1..=100).collect::<Vec<Seq>>());
}

pub async fn a_waiting_feed_is_woken(stores: LogStores) {
    let mut feed = (stores.consumer)("one").await;
    for _ in 0..3 {
        let started = Instant::now();
        let quiet = soon("a wait", feed.next_batch(WIDE)).await.expect("next batch");
        assert!(quiet.is_empty() && started.elapsed() >= FEED_WAIT_MAX, "{quiet:?}, {:?}", started.elapsed());
    }
    let started = Instant::now();
    let (batch, receipt) = tokio::join!(next(&mut *feed, WIDE), stores.put(message("anna", "ben", "hi")));
    assert_eq!(batch[0].position, receipt.position);
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    feed.ack(&batch).await.expect("ack");
}

pub async fn events_handed_out_are_not_handed_out_again(stores: LogStores) {
    let mut feed = (stores.consumer)("one").await;
    for content in ["first", "second"] {
        stores.put(message("anna", "ben", content)).await;
    }
    let first = next(&mut *feed, WIDE).await;
    stores.put(message("anna", "ben", "third")).await;
    let mut ahead = Vec::new();
    while first.len() + ahead.len() < 3 {
        ahead.extend(next(&mut *feed, WIDE).await);
    }
    let seqs: Vec<Seq> = first.iter().chain(&ahead).map(|delivery| read(delivery).seq).collect();
    assert_eq!(seqs, [1, 2, 3], "a consumer may read ahead of its acks");
    feed.ack(&first).await.expect("ack");
    feed.ack(&ahead).await.expect("ack");
    assert_eq!(soon("status", stores.monitor.status()).await.expect("status").lag(), 0);
}

pub async fn after_a_restart_the_unacknowledged_come_first(stores: LogStores) {
    for _ in 0..30 {
        stores.put(message("anna", "ben", "hi")).await;
    }
    let mut feed = (stores.consumer)("one").await;
    let acknowledged = next(&mut *feed, 5).await;
    let mut given = Vec::new();
    for _ in 0..3 {
        given.extend(next(&mut *feed, 5).await);
    }
    feed.ack(&acknowledged).await.expect("ack");
    drop(feed);
    for number in 0..20 {
        stores.put(message("anna", &format!("peer{number}"), "of other partitions")).await;
    }

    let mut restarted = (stores.consumer)("one").await;
    let mut again = Vec::new();
    while again.len() < 50 - acknowledged.len() {
        again.extend(next(&mut *restarted, 5).await);
    }
    assert_eq!(again[..given.len()], given, "first what was given and not acknowledged");
    let distinct: BTreeSet<Position> = again.iter().map(|delivery| delivery.position).collect();
    assert_eq!((again.len(), distinct.len()), (50 - acknowledged.len(), again.len()), "then the rest, once");
    restarted.ack(&again).await.expect("ack");
}

pub async fn what_was_acknowledged_never_comes_again(stores: LogStores) {
    for _ in 0..20 {
        stores.put(message("anna", "ben", "hi")).await;
    }
    let mut feed = (stores.consumer)("one").await;
    take(&mut *feed, 20).await;
    feed.ack(&[]).await.expect("an empty ack is none");
    drop(feed);

    for consumer in ["one", "two", "one"] {
        let mut restarted = (stores.consumer)(consumer).await;
        let fresh = stores.put(message("anna", "ben", "fresh")).await;
        let batch = next(&mut *restarted, WIDE).await;
        let positions: Vec<Position> = batch.iter().map(|delivery| delivery.position).collect();
        assert_eq!(positions, [fresh.position], "{consumer}");
        restarted.ack(&batch).await.expect("ack");
    }
}

pub async fn what_a_dead_consumer_left_is_claimed(stores: LogStores) {
    let mut receipts = Vec::new();
    for append in a_bit_of_everything() {
        receipts.push(stores.put(append).await);
    }
    let mut dead = (stores.consumer)("dead").await;
    let mut left = 0;
    while left < receipts.len() {
        left += next(&mut *dead, 7).await.len();
    }
    drop(dead);

    let mut heir = (stores.consumer)("heir").await;
    let bound = CONSUMER_SILENCE_MAX + 4 * FEED_WAIT_MAX;
    let claimed = timeout(bound, take(&mut *heir, receipts.len())).await.expect("claimed in time");
    assert!(receipts.iter().all(|receipt| claimed.contains_key(&receipt.position)));
}

/// The later one works, and the other one is told.
pub async fn of_two_consumers_with_one_name_one_is_refused(stores: LogStores) {
    let mut first = (stores.consumer)("one").await;
    stores.put(message("anna", "ben", "to the first")).await;
    let given = next(&mut *first, WIDE).await;

    let mut second = (stores.consumer)("one").await;
    let again = next(&mut *second, WIDE).await;
    assert_eq!(again, given, "what the one before did not acknowledge");
    let refused = async {
        loop {
            if let Err(error) = first.next_batch(WIDE).await {
                return error;
            }
        }
    };
    let refused = soon("the first is told", refused).await;
    assert!(matches!(refused, StoreError::Unfit { .. }), "{refused:?}");
    first.ack(&given).await.expect("what it has written is written");
    second.ack(&again).await.expect("ack");

    let later = stores.put(message("anna", "ben", "to the second")).await;
    let batch = next(&mut *second, WIDE).await;
    assert_eq!(batch[0].position, later.position);
    second.ack(&batch).await.expect("ack");
    assert!(first.next_batch(WIDE).await.is_err(), "for good");
}

pub async fn every_event_goes_to_one_consumer(stores: LogStores) {
    const EVENTS: usize = 600;
    let names: &[&str] = if stores.several_consumers { &["one", "two", "three"] } else { &["one"] };
    let mut feeds = Vec::new();
    for name in names {
        feeds.push((stores.consumer)(name).await);
    }
    let seen = tokio::sync::Mutex::new(Vec::new());
    let all_seen = tokio_util::sync::CancellationToken::new();
    let consume = |mut feed: Box<dyn EventFeed>| {
        let (seen, all_seen) = (&seen, &all_seen);
        async move {
            while let Some(batch) = all_seen.run_until_cancelled(feed.next_batch(20)).await {
                let batch = batch.expect("next batch");
                feed.ack(&batch).await.expect("ack");
                let mut seen = seen.lock().await;
                seen.extend(batch.iter().map(|delivery| delivery.position));
                if seen.len() >= EVENTS {
                    all_seen.cancel();
                }
            }
        }
    };
    let append = async {
        for number in 0..EVENTS {
            stores.put(message("anna", &format!("peer{}", number % 40), "hi")).await;
        }
    };
    soon("all events", async { tokio::join!(append, join_all(feeds.into_iter().map(consume))) }).await;
    let seen = seen.into_inner();
    let distinct: BTreeSet<Position> = seen.iter().copied().collect();
    assert_eq!((seen.len(), distinct.len()), (EVENTS, EVENTS));
}

pub async fn a_dropped_read_loses_nothing(stores: LogStores) {
    const EVENTS: usize = 200;
    let mut feed = (stores.consumer)("one").await;
    let append = async {
        for number in 0..EVENTS {
            stores.put(message("anna", &format!("peer{}", number % 10), "hi")).await;
        }
    };
    let read = async {
        let mut seen = BTreeSet::new();
        let mut patience = Duration::ZERO;
        while seen.len() < EVENTS {
            // Ever longer, so that it is dropped at every await in turn and gets on in the end.
            patience += Duration::from_micros(100);
            if let Ok(batch) = timeout(patience, feed.next_batch(WIDE)).await {
                let batch = batch.expect("next batch");
                feed.ack(&batch).await.expect("ack");
                seen.extend(batch.iter().map(|delivery| delivery.position));
            }
        }
    };
    soon("all events", async { tokio::join!(append, read) }).await;
}

pub async fn readers_are_told_after_the_ack(stores: LogStores) {
    let mut notices = stores.notices.subscribe();
    let mut feed = (stores.consumer)("one").await;
    let conversation = pair("anna", "ben");
    let told = async {
        // A notice may be lost, above all while the subscription is being made: so more than one is sent.
        loop {
            let mut last = 0;
            for _ in 0..3 {
                last = stores.put(message("anna", "ben", "hi")).await.seq;
            }
            stores.put(message("anna", "carl", "hi")).await;
            take(&mut *feed, 4).await;
            while let Ok(Ok(Applied { conversation: of, seq })) =
                timeout(Duration::from_millis(200), notices.recv()).await
            {
                if of == conversation && seq >= last {
                    return (seq, last);
                }
            }
        }
    };
    let (seq, last) = soon("a notice", told).await;
    assert_eq!(seq, last, "never ahead of what is acknowledged");
}

pub async fn the_monitor_counts(stores: LogStores) {
    let status = || async { soon("status", stores.monitor.status()).await.expect("status") };
    assert_eq!(status().await.lag(), 0, "nothing yet");

    let appends = a_bit_of_everything();
    let count = appends.len() as u64;
    for append in appends {
        stores.put(append).await;
    }
    let before = status().await;
    assert_eq!((before.lag(), sum(&before, |partition| partition.head)), (count, count), "no one has read");
    assert_eq!(sum(&before, |partition| partition.pending), 0);

    let mut feed = (stores.consumer)("one").await;
    let mut batch = Vec::new();
    while (batch.len() as u64) < count {
        batch.extend(next(&mut *feed, WIDE).await);
    }
    let read = status().await;
    assert_eq!(
        (read.lag(), sum(&read, |partition| partition.pending)),
        (count, count),
        "read, not acknowledged"
    );
    assert!(read.consumers.iter().any(|consumer| consumer.name == "one" && consumer.applied == 0));

    feed.ack(&batch).await.expect("ack");
    feed.ack(&batch).await.expect("a second ack changes nothing");
    let after = status().await;
    assert_eq!((after.lag(), sum(&after, |partition| partition.head)), (0, count));
    let one = after.consumers.iter().find(|consumer| consumer.name == "one").expect("it is listed");
    assert_eq!((one.applied, one.pending), (count, 0));
    assert!(after.partitions.is_sorted_by_key(|partition| partition.partition));
}

/// Whether it was delivered or not, and until it is acknowledged.
pub async fn the_monitor_tells_how_old_the_oldest_is(stores: LogStores) {
    let behind = async || stores.monitor.status().await.expect("status").behind();
    assert_eq!(behind().await, Duration::ZERO, "there is nothing");
    let first = stores.put(message("anna", "ben", "first")).await;
    assert!((1..5_000).contains(&behind().await.as_millis()), "{:?}", behind().await);
    let mut feed = (stores.consumer)("one").await;
    let batch = next(&mut *feed, WIDE).await;
    stores.put(message("anna", "ben", "second")).await;
    let status = stores.monitor.status().await.expect("status");
    let of_first = status.partitions.iter().find(|one| one.partition == first.position.partition);
    let of_first = of_first.expect("its partition").behind_ms;
    assert_eq!((status.behind(), status.pending()), (Duration::from_millis(of_first), 1));
    feed.ack(&batch).await.expect("ack");
    let of_second = behind().await;
    assert!(!of_second.is_zero(), "the second is not even delivered");
    let second = next(&mut *feed, WIDE).await;
    feed.ack(&second).await.expect("ack");
    assert_eq!(behind().await, Duration::ZERO);
    assert_eq!(stores.monitor.status().await.expect("status").applied(), 2);
}

pub async fn the_log_is_read_again_at_any_position(stores: LogStores) {
    let appends = [registration("anna"), message("anna", "ben", "hi"), message("ben", "carl", "ho")];
    let mut receipts = Vec::new();
    for append in &appends {
        receipts.push(stores.put(append.clone()).await);
    }
    let beside = Position { ms: receipts[1].position.ms - 60_000, ..receipts[1].position };
    let behind = Position { counter: receipts[2].position.counter + 1_000, ..receipts[2].position };
    let positions = [&receipts[2].position, &beside, &receipts[0].position, &receipts[2].position, &behind];
    let entries = stores.reader.entries_at(&positions.map(|position| *position)).await.expect("a read");
    let read_again: Vec<_> = entries.iter().map(|entry| entry.as_ref().map(read).map(receipt_of)).collect();
    assert_eq!(read_again, [Some(receipts[2]), None, Some(receipts[0]), Some(receipts[2]), None]);
    assert_eq!(entries[2].as_ref().map(|entry| read(entry).event.clone()), Some(appends[0].event.clone()));
    assert_eq!(stores.reader.entries_at(&[]).await.expect("a read"), []);
}

/// Events of every kind, over many subjects.
pub(super) fn a_bit_of_everything() -> Vec<Append> {
    let mut appends = Vec::new();
    for number in 0..12 {
        let user = format!("user{number}");
        appends.push(registration(&user));
        for content in ["hi", "two\nlines, \"quotes\" and \\", "\u{1f980} ünï\u{0}code"] {
            appends.push(message(&user, "anna", content));
        }
        appends.push(mark("anna", &user, 3));
        appends.push(message("anna", &user, &"long ".repeat(800)));
    }
    appends
}

pub(super) fn receipt_of(event: &RecordedEvent) -> Receipt {
    Receipt { id: event.id, seq: event.seq, at: event.at, position: event.position }
}

/// # Panics
/// If the entry cannot be read.
pub(super) fn read(delivery: &Delivery) -> &RecordedEvent {
    delivery.content.as_ref().unwrap_or_else(|unreadable| panic!("{}: {unreadable:?}", delivery.position))
}

pub(super) async fn next(feed: &mut dyn EventFeed, events_max: usize) -> Vec<Delivery> {
    let not_empty = async {
        loop {
            let batch = feed.next_batch(events_max).await.expect("next batch");
            if !batch.is_empty() {
                return batch;
            }
        }
    };
    let batch = soon("next batch", not_empty).await;
    let mut last: BTreeMap<u16, Position> = BTreeMap::new();
    for Delivery { position, .. } in &batch {
        let before = last.insert(position.partition, *position);
        assert!(before.is_none_or(|before| before < *position), "a batch is in log order: {position}");
    }
    batch
}

/// Reads and acknowledges until `count` events have come, each of them once.
pub(super) async fn take(feed: &mut dyn EventFeed, count: usize) -> BTreeMap<Position, RecordedEvent> {
    let mut taken = BTreeMap::new();
    while taken.len() < count {
        let batch = next(feed, WIDE).await;
        feed.ack(&batch).await.expect("ack");
        for delivery in &batch {
            let event = read(delivery).clone();
            assert!(taken.insert(delivery.position, event).is_none(), "{} came twice", delivery.position);
        }
    }
    assert_eq!(taken.len(), count);
    taken
}

fn sum(status: &shared::ports::FeedStatus, of: impl Fn(&shared::ports::PartitionStatus) -> u64) -> u64 {
    status.partitions.iter().map(of).sum()
}
