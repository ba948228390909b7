//! Entries, heads and streams that somebody damaged or deleted: what is damaged is found, and stops nothing else.

use redis::AsyncTypedCommands;
use shared::event::Malformed;
use shared::ports::{Append, AppendError, Appended, EventFeed, EventLog, FeedMonitor, OnceKey, StoreError};

use super::{GENERATION, fresh, message, once, plain, put, read};

#[tokio::test]
async fn garbage_in_the_stream_is_delivered_and_acknowledged() {
    let fresh = fresh().await;
    let trace = "0af7651916cd43dd8448eb211c80319c".parse().ok();
    let append = Append { trace, ..message("anna", "ben") };
    put(&fresh.store, append.clone()).await;
    let events = format!("{}:events", fresh.keys_of(&append));
    let mut redis = plain().await;
    let good: Vec<Vec<u8>> = redis::cmd("XRANGE")
        .arg(&events)
        .arg("-")
        .arg("+")
        .query_async::<Vec<(String, Vec<Vec<u8>>)>>(&mut redis)
        .await
        .unwrap()
        .remove(0)
        .1;
    let [_, header, _, payload] = good.as_slice() else { panic!("header and payload: {good:?}") };
    let with = |header: Vec<u8>| vec![b"e".to_vec(), header, b"p".to_vec(), payload.clone()];
    let words = || header.split(|byte| *byte == b' ');
    let with_word = |at: usize, word: &'static [u8]| {
        with(
            words()
                .enumerate()
                .map(|(nth, old)| if nth == at { word } else { old })
                .collect::<Vec<_>>()
                .join(&b' '),
        )
    };
    let cases = [
        (vec![b"e".to_vec(), vec![0xff, 0x00, 0x0d, 0x0a]], Malformed::Field("version")),
        (vec![b"hello".to_vec(), b"world".to_vec()], Malformed::Field("version")),
        (good[2..].to_vec(), Malformed::Field("version")),
        (with(words().take(5).collect::<Vec<_>>().join(&b' ')), Malformed::Field("seq")),
        (with(words().take(7).collect::<Vec<_>>().join(&b' ')), Malformed::Field("checksum")),
        (good[..2].to_vec(), Malformed::Field("payload")),
        (with_word(4, b"no-trace"), Malformed::Field("trace")),
    ];
    for (fields, _) in &cases {
        redis::cmd("XADD").arg(&events).arg("*").arg(fields).query_async::<String>(&mut redis).await.unwrap();
    }
    put(&fresh.store, message("anna", "ben")).await;

    let mut feed = fresh.store.feed(GENERATION, "one");
    let batch = read(&mut feed, cases.len() + 2).await;
    assert!(batch[0].content.is_ok() && batch[cases.len() + 1].content.is_ok(), "neighbours are unharmed");
    for ((fields, cause), delivery) in cases.iter().zip(&batch[1..]) {
        let unreadable = delivery.content.as_ref().unwrap_err();
        assert_eq!(unreadable.cause, *cause);
        let last = fields.last().unwrap();
        assert!(unreadable.bytes.windows(last.len()).any(|window| window == last), "its bytes are kept");
    }
    feed.ack(&batch).await.unwrap();
    assert_eq!(fresh.store.monitor(GENERATION).status().await.unwrap().lag(), 0);
}

#[tokio::test]
async fn a_pending_entry_that_was_deleted_is_not_skipped() {
    let fresh = fresh().await;
    let append = message("anna", "ben");
    let receipt = put(&fresh.store, append.clone()).await;
    let mut feed = fresh.store.feed(GENERATION, "one");
    read(&mut feed, 1).await;
    drop(feed);
    let events = format!("{}:events", fresh.keys_of(&append));
    let id = format!("{}-{}", receipt.position.ms, receipt.position.counter);
    plain().await.xdel(&events, &[id]).await.unwrap();

    let batch = read(&mut fresh.store.feed(GENERATION, "one"), 1).await;
    assert_eq!(batch[0].position, receipt.position);
    assert!(batch[0].content.is_err());
}

#[tokio::test]
async fn a_damaged_head_stops_its_subject_only() {
    let fresh = fresh().await;
    let append = message("anna", "ben");
    put(&fresh.store, append.clone()).await;
    let heads = format!("{}:heads", fresh.keys_of(&append));
    for damaged in ["1x", "1.5", "0x10", "nan", "-1", ""] {
        plain().await.hset(&heads, "c:anna:ben", damaged).await.unwrap();
        let refused = fresh.store.log().append(append.clone()).await;
        assert!(matches!(refused, Err(AppendError::Store(StoreError::Damaged { .. }))), "{refused:?}");
    }
    assert_eq!(put(&fresh.store, message("anna", "carl")).await.seq, 1);
}

/// Commands of several partitions share a call, and each has the record that is its own.
#[tokio::test]
async fn a_damaged_partition_stops_no_other() {
    for key in ["heads", "events"] {
        a_key_of_the_wrong_type_stops_its_partition_only(key).await;
    }
}

async fn a_key_of_the_wrong_type_stops_its_partition_only(key: &str) {
    let fresh = fresh().await;
    let sends: Vec<_> = (0..64).map(|n| once(message("anna", &format!("peer{n}")), OnceKey::Id)).collect();
    let damaged = fresh.keys_of(&sends[0]);
    let mut redis = plain().await;
    redis.set(format!("{damaged}:{key}"), "neither hash nor stream").await.unwrap();
    let log = fresh.store.log();
    let append_all = || futures_util::future::join_all(sends.iter().map(|send| log.append(send.clone())));
    for (send, outcome) in sends.iter().zip(append_all().await) {
        let is_damaged = matches!(outcome, Err(AppendError::Store(StoreError::Damaged { .. })));
        assert_eq!(is_damaged, fresh.keys_of(send) == damaged, "{outcome:?}");
        assert!(is_damaged || matches!(outcome, Ok(Appended::New(_))), "{outcome:?}");
    }
    redis.del(format!("{damaged}:{key}")).await.unwrap();
    for (send, outcome) in sends.iter().zip(append_all().await) {
        match outcome.unwrap() {
            Appended::New(receipt) => {
                assert_eq!((fresh.keys_of(send), receipt.id), (damaged.clone(), send.id))
            }
            Appended::Replayed(receipt) => assert_eq!((receipt.id, receipt.seq), (send.id, 1)),
            Appended::Unchanged => panic!("a send is never unchanged"),
        }
    }
}

#[tokio::test]
async fn a_lost_head_gives_no_number_twice() {
    let fresh = fresh().await;
    let append = once(message("anna", "ben"), OnceKey::Id);
    put(&fresh.store, append.clone()).await;
    put(&fresh.store, message("anna", "ben")).await;
    let heads = format!("{}:heads", fresh.keys_of(&append));
    plain().await.del(&heads).await.unwrap();
    for append in [append, message("anna", "ben")] {
        let refused = fresh.store.log().append(append).await;
        let what = match refused {
            Err(AppendError::Store(StoreError::Damaged { what, .. })) => what,
            other => panic!("{other:?}"),
        };
        assert_eq!(what, "the last offset is 0, the last entry has 2");
    }
}

/// Its events are lost, as far as anybody can tell: the partition stops alone, until somebody puts the stream back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_is_gone_is_not_begun_anew() {
    let fresh = fresh().await;
    let lost = message("anna", "ben");
    let others = ["carl", "dora", "emil", "fay"].map(|peer| message("anna", peer));
    let other = others.into_iter().find(|other| fresh.keys_of(other) != fresh.keys_of(&lost)).unwrap();
    let monitor = fresh.store.monitor(GENERATION);
    let lost_partitions = async || {
        let partitions = monitor.status().await.unwrap().partitions;
        partitions.into_iter().filter(|one| one.loss.is_some()).map(|one| one.partition).collect::<Vec<_>>()
    };
    let partition = put(&fresh.store, lost.clone()).await.position.partition;
    put(&fresh.store, other.clone()).await;
    let mut feed = fresh.store.feed(GENERATION, "one");
    let batch = read(&mut feed, 2).await;
    feed.ack(&batch).await.unwrap();
    assert_eq!(lost_partitions().await, [] as [u16; 0]);
    assert_eq!(put(&fresh.store, lost.clone()).await.seq, 2);
    let held = read(&mut feed, 1).await;

    let (events, away) = (format!("{}:events", fresh.keys_of(&lost)), format!("{}:away", fresh.prefix));
    plain().await.rename(&events, &away).await.unwrap();
    for _ in 0..2 {
        let refused = fresh.store.log().append(lost.clone()).await;
        let Err(AppendError::Store(StoreError::Damaged { what, .. })) = refused else {
            panic!("{refused:?}")
        };
        assert_eq!(what, "the stream is gone, 2 events were in it");
        put(&fresh.store, other.clone()).await;
        let batch = read(&mut feed, 1).await;
        feed.ack(&batch).await.unwrap();
        assert_eq!(lost_partitions().await, [partition]);
    }
    feed.ack(&held).await.unwrap();
    // Nor by whoever comes now.
    let mut late = fresh.store.feed(GENERATION + 1, "late");
    read(&mut late, 3).await;

    assert!(plain().await.rename_nx(&away, &events).await.unwrap());
    assert_eq!(put(&fresh.store, lost).await.seq, 3);
    let batch = read(&mut feed, 2).await;
    assert_eq!(batch[0], held[0], "what was not acknowledged then comes first");
    feed.ack(&batch).await.unwrap();
    read(&mut late, 3).await;
    let status = monitor.status().await.unwrap();
    assert!(status.partitions.iter().all(|one| one.loss.is_none() && one.lag == 0), "{status:?}");
}
