//! What the log forgets, and what a group that comes later is told to read from the archive instead.

use redis::AsyncTypedCommands;
use shared::limits::{ACK_TRAIL_SPANS, ARCHIVE_BLOCK_ENTRIES, TRIM_TRAIL_SPANS};
use shared::ports::{Backlog, EventFeed, FeedMonitor, HotLog, LogEntry, Trimmed};
use storage::redis::Hot;

use super::{Fresh, GENERATION, eventually, fresh, message, plain, put, read};

const BLOCK: usize = ARCHIVE_BLOCK_ENTRIES as usize;

/// A log with `count` messages of one conversation, and all of its entries.
pub(super) async fn filled(count: usize) -> (Fresh, Hot, Vec<LogEntry>) {
    let fresh = fresh().await;
    let mut partition = 0;
    for _ in 0..count {
        partition = put(&fresh.store, message("anna", "ben")).await.position.partition;
    }
    let hot = fresh.store.hot();
    let entries = hot.entries(partition, None, 2 * count).await.unwrap();
    assert_eq!(entries.len(), count);
    (fresh, hot, entries)
}

/// As if the last acknowledgement were some time ago.
pub(super) async fn age_trail(fresh: &Fresh, partition: u16) {
    let (mut redis, key) = (plain().await, format!("{}{{{partition}}}:trail:g{GENERATION}", fresh.prefix));
    for (span, noted) in redis.hgetall(&key).await.unwrap() {
        let older = span.parse::<u64>().unwrap() - TRIM_TRAIL_SPANS - 1;
        redis.hdel(&key, &span).await.unwrap();
        redis.hset(&key, older.to_string(), noted).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_what_every_group_has_acknowledged_is_trimmed() {
    let (fresh, hot, entries) = filled(BLOCK + 5).await;
    let (partition, last) = (entries[0].position.partition, entries[BLOCK - 1].position);
    let nobody = Trimmed::Held { group: "nobody".to_owned(), generation: None };
    assert_eq!(hot.trim(last, 1).await.unwrap(), nobody);
    let held = |group: &str| Trimmed::Held { group: group.to_owned(), generation: Some(GENERATION) };

    let mut feed = fresh.store.feed(GENERATION, "one");
    let given = read(&mut feed, BLOCK + 5).await;
    assert_eq!(hot.trim(last, 1).await.unwrap(), held("g1"), "it is given, not acknowledged");
    feed.ack(&given[1..]).await.unwrap();
    age_trail(&fresh, partition).await;
    assert_eq!(hot.trim(last, 1).await.unwrap(), held("g1"), "the first one is not acknowledged");
    feed.ack(&given[..1]).await.unwrap();
    assert_eq!(hot.trim(last, 1).await.unwrap(), held("g1"), "it was acknowledged only just now");
    age_trail(&fresh, partition).await;
    let newest = entries[BLOCK + 4].position;
    assert!(hot.trim(newest, 1).await.is_err(), "the last entry stays");
    assert_eq!(hot.trim(last, 1).await.unwrap(), Trimmed::Done);
    assert_eq!(hot.trim(last, 1).await.unwrap(), Trimmed::Done, "again changes nothing");

    let standing = hot.standing().await.unwrap().partitions[usize::from(partition)];
    assert_eq!((standing.entries, standing.blocks_trimmed), (5, 1));
    assert_eq!(hot.entries(partition, None, 100).await.unwrap(), &entries[BLOCK..]);
    let status = fresh.store.monitor(GENERATION).status().await.unwrap();
    assert_eq!((status.lag(), status.behind().as_millis()), (0, 0));
    assert!(status.partitions.iter().all(|one| one.loss.is_none()));
    put(&fresh.store, message("anna", "ben")).await;
}

/// A log of which two blocks are trimmed and five entries are left, and all that there were.
async fn trimmed() -> (Fresh, Vec<LogEntry>) {
    let (fresh, hot, entries) = filled(2 * BLOCK + 5).await;
    let mut feed = fresh.store.feed(GENERATION, "one");
    let given = read(&mut feed, entries.len()).await;
    feed.ack(&given).await.unwrap();
    age_trail(&fresh, entries[0].position.partition).await;
    assert_eq!(hot.trim(entries[2 * BLOCK - 1].position, 2).await.unwrap(), Trimmed::Done);
    (fresh, entries)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_made_late_owes_what_was_trimmed_until_somebody_has_read_it() {
    let (fresh, entries) = trimmed().await;
    let (partition, events) = (entries[0].position.partition, 2 * ARCHIVE_BLOCK_ENTRIES);
    let (monitor, backlog) = (fresh.store.monitor(2), fresh.store.backlog(2, "late"));
    let unapplied = async || {
        let status = monitor.status().await.unwrap();
        (status.lag(), monitor.first_unacknowledged().await.unwrap().first() == Some(&entries[0].position))
    };
    assert_eq!(unapplied().await, (events + 5, true), "there is no group yet");
    assert_eq!(backlog.take(5).await.unwrap(), []);
    let mut late = fresh.store.feed(2, "late");
    let given = read(&mut late, 5).await;
    assert_eq!(given[0].position, entries[2 * BLOCK].position);
    late.ack(&given).await.unwrap();
    assert_eq!(unapplied().await, (events, true));
    assert!(monitor.status().await.unwrap().behind().as_millis() > 0);

    assert_eq!(backlog.take(1).await.unwrap(), [(partition, 0)]);
    assert_eq!(fresh.store.backlog(2, "other").take(5).await.unwrap(), [(partition, 1)]);
    assert_eq!(backlog.take(5).await.unwrap(), [], "the others have them");
    backlog.done(partition, &[0]).await.unwrap();
    backlog.done(partition, &[0]).await.unwrap();
    assert_eq!(unapplied().await, (ARCHIVE_BLOCK_ENTRIES, true));
    eventually("what was left by its taker is given again", || async {
        backlog.take(5).await.unwrap() == [(partition, 1)]
    })
    .await;
    backlog.done(partition, &[0, 1]).await.unwrap();
    assert_eq!(unapplied().await, (0, false));
    let applied = monitor.status().await.unwrap().applied();
    assert_eq!(applied, events + 5, "each counts once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn blocks_done_lately_are_owed_again_until_they_are_done_again() {
    let (fresh, entries) = trimmed().await;
    let partition = entries[0].position.partition;
    let (one, other) = (fresh.store.backlog(2, "one"), fresh.store.backlog(2, "other"));
    let monitor = fresh.store.monitor(2);
    let lag = async || monitor.status().await.unwrap().lag();
    let mut late = fresh.store.feed(2, "one");
    let given = read(&mut late, 5).await;
    late.ack(&given).await.unwrap();
    assert_eq!(one.take(2).await.unwrap(), [(partition, 0), (partition, 1)]);
    assert_eq!(one.owe_again().await.unwrap(), 0, "none is done yet");

    one.done(partition, &[1]).await.unwrap();
    assert_eq!(other.owe_again().await.unwrap(), 1);
    assert_eq!(one.owe_again().await.unwrap(), 0, "it is owed already");
    assert_eq!(lag().await, 2 * ARCHIVE_BLOCK_ENTRIES);
    assert_eq!(other.take(5).await.unwrap(), [(partition, 1)], "the other one is somebody's still");
    other.done(partition, &[1]).await.unwrap();
    one.done(partition, &[0]).await.unwrap();
    assert_eq!(lag().await, 0);

    // All was done, and twice the store loses it.
    for _ in 0..2 {
        assert_eq!(one.owe_again().await.unwrap(), 2);
        assert_eq!(lag().await, 2 * ARCHIVE_BLOCK_ENTRIES);
        let mut taken = other.take(5).await.unwrap();
        taken.sort_unstable();
        assert_eq!(taken, [(partition, 0), (partition, 1)]);
        other.done(partition, &[1]).await.unwrap();
        assert_eq!(one.owe_again().await.unwrap(), 1);
        assert_eq!(one.take(5).await.unwrap(), [(partition, 1)]);
        other.done(partition, &[0]).await.unwrap();
        one.done(partition, &[1]).await.unwrap();
        assert_eq!((lag().await, one.take(5).await.unwrap()), (0, vec![]));
    }

    // What was acknowledged since shows that the store kept what is older.
    let mut redis = plain().await;
    let key = |name: &str| format!("{}{{{partition}}}:{name}:g2", fresh.prefix);
    for span in 0..ACK_TRAIL_SPANS {
        redis.hset(key("trail"), format!("9{span}99999999"), "1-0 2-0").await.unwrap();
    }
    assert_eq!(one.owe_again().await.unwrap(), 0);

    // Of a group that was made anew, what was done before it is not known.
    redis.hset(key("replayed"), "9999999999", "0 1").await.unwrap();
    redis.hset_multiple(key("backlog"), &[("blocks", 2), ("next", 1), ("done", 1)]).await.unwrap();
    assert_eq!(one.owe_again().await.unwrap(), 1);
    let mut taken = one.take(5).await.unwrap();
    taken.sort_unstable();
    assert_eq!(taken, [(partition, 0), (partition, 1)]);
    one.done(partition, &[0, 1]).await.unwrap();
    assert_eq!(lag().await, 0);
}
