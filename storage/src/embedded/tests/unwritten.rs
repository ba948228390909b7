//! What is written behind: when it is written, what a kill takes of it, and what is read meanwhile.

use std::collections::BTreeMap;

use futures_util::TryStreamExt;
use shared::event::{Event, RecordedEvent};
use shared::limits::{INBOX_ROWS_PER_REQUEST, INBOXES_UNWRITTEN_FOR_MAX};
use shared::message::Message;
use shared::ports::{EventFeed, EventLog, FeedMonitor, StoreError, ViewReader, ViewWriter};
use shared::view::{InboxChange, ViewChange};

use super::super::inbox::Numbers;
use super::super::recent::Recent;
use super::super::rows::Rows;
use super::super::{Embedded, inbox, keys};
use super::{killed, message, name, next, open, project, send};

/// Peers, heads and own last messages of an inbox.
async fn inbox_of(store: &Embedded, owner: &str) -> Vec<(String, u64, u64)> {
    let rows: Vec<_> = store.inbox(&name(owner)).try_collect().await.unwrap();
    rows.into_iter().map(|row| (row.peer.to_string(), row.head_seq(), row.own_seq)).collect()
}

/// Rows of inboxes and the cursor are written together, later than the rest.
#[tokio::test]
async fn after_a_kill_the_feed_gives_again_what_inboxes_may_lack() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).unwrap();
    send(&store, 6).await;
    let mut feed = store.feed("one");
    let batch = next(&mut feed, 4).await;
    project(&store, &batch).await;
    feed.ack(&batch).await.unwrap();
    let seen = [("peer0", 2, 2), ("peer1", 1, 1), ("peer2", 1, 1)]
        .map(|(peer, head, own)| (peer.to_owned(), head, own));
    assert_eq!(inbox_of(&store, "samer").await, seen);

    let copy = killed(dir.path());
    let after = open(copy.path()).unwrap();
    assert!(inbox_of(&after, "samer").await.is_empty(), "nothing made it write them");
    let mut feed_after = after.feed("one");
    let given = next(&mut feed_after, 4).await;
    assert_eq!(given, batch);
    project(&after, &given).await;
    feed_after.ack(&given).await.unwrap();
    assert_eq!(inbox_of(&after, "samer").await, seen);
    assert_eq!(after.status().await.unwrap().consumers[0].applied, 4);
    assert_eq!(next(&mut feed_after, 4).await.len(), 2);

    // In a moment without traffic they are written.
    project(&store, &next(&mut feed, 100).await).await;
    assert!(feed.next_batch(100).await.unwrap().is_empty());
    let copy = killed(dir.path());
    let after = open(copy.path()).unwrap();
    assert_eq!(inbox_of(&after, "samer").await, inbox_of(&store, "samer").await);
    assert!(after.feed("one").next_batch(100).await.unwrap().is_empty());
}

#[tokio::test]
async fn under_traffic_inboxes_are_written_once_they_are_old() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).unwrap();
    send(&store, 2).await;
    let mut feed = store.feed("one");
    project(&store, &next(&mut feed, 1).await).await;
    tokio::time::sleep(INBOXES_UNWRITTEN_FOR_MAX).await;
    project(&store, &next(&mut feed, 1).await).await;
    let copy = killed(dir.path());
    let after = open(copy.path()).unwrap();
    assert_eq!(inbox_of(&after, "samer").await, inbox_of(&store, "samer").await);
    assert!(after.feed("one").next_batch(100).await.unwrap().is_empty());
}

/// As when a parked event is tried again: its effects, which the feed would not give again, and then that it is settled.
#[tokio::test]
async fn an_event_is_not_settled_before_its_effects_are_written() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).unwrap();
    send(&store, 1).await;
    let batch = next(&mut store.feed("one"), 1).await;
    store.apply(Vec::new(), &batch).await.unwrap();
    store.write_views().await.unwrap();

    project(&store, &batch).await;
    let key = keys::inbox(&name("samer"), &name("peer0"));
    let is_written = || store.directory().views.contains_key(&key).unwrap();
    assert!(!is_written());
    let settle = |rows: &mut Rows<'_>, _: &mut Recent<Numbers>| {
        assert!(is_written(), "a commit of the settling alone would survive it");
        rows.put(keys::parked(batch[0].position), vec![1]);
        Ok(())
    };
    store.commit_views(settle, &[]).unwrap();

    let mut recorded = batch[0].content.clone().unwrap();
    recorded.seq = 2;
    let Event::MessageSent(sent) = &recorded.event else { panic!("it is a message") };
    let put = InboxChange::PutMessage { owner: name("samer"), message: Message::new(&recorded, sent) };
    store.apply(vec![ViewChange::Inbox(put)], &[]).await.unwrap();
    let copy = killed(dir.path());
    let rows: Vec<_> = open(copy.path()).unwrap().inbox(&name("samer")).try_collect().await.unwrap();
    assert_eq!(rows[0].head_seq(), 2, "what nobody gives again is written at once");
}

#[tokio::test]
async fn who_was_taken_over_from_keeps_the_count_of_what_he_applied() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).unwrap();
    send(&store, 6).await;
    for (consumer, events) in [("one", 4), ("two", 2)] {
        let mut feed = store.feed(consumer);
        let batch = next(&mut feed, events).await;
        project(&store, &batch).await;
        feed.ack(&batch).await.unwrap();
    }
    drop(store);
    let consumers = open(dir.path()).unwrap().status().await.unwrap().consumers;
    let applied: Vec<_> = consumers.iter().map(|one| (one.name.as_str(), one.applied)).collect();
    assert_eq!(applied, [("one", 4), ("two", 2)]);
}

/// Some are in the tables, some in memory, some in both, and there are more than one page of them.
#[tokio::test]
async fn an_inbox_is_read_from_the_tables_and_from_memory() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).unwrap();
    let (mut feed, mut expected, mut sent, mut applied) = (store.feed("one"), BTreeMap::new(), 0, 0);
    for (begin, step, is_written) in [(0, 2, true), (1, 2, false), (0, 3, false)] {
        let peers =
            (begin..INBOX_ROWS_PER_REQUEST + 50).step_by(step).map(|number| format!("peer{number:05}"));
        let appends = peers.map(|peer| {
            let append = message("samer", &peer, "hi");
            *expected.entry(peer).or_default() += 1;
            sent += 1;
            store.append(append)
        });
        futures_util::future::try_join_all(appends).await.unwrap();
        while applied < sent {
            let batch = next(&mut feed, 1_000).await;
            project(&store, &batch).await;
            applied += batch.len();
        }
        if is_written {
            store.write_views().await.unwrap();
        }
    }
    let expected: Vec<_> = expected.into_iter().map(|(peer, head)| (peer, head, head)).collect();
    assert_eq!(inbox_of(&store, "samer").await, expected);
    assert_eq!(inbox_of(&store, "peer00000").await, [("samer".to_owned(), 2, 0)]);
    assert!(inbox_of(&store, "peer").await.is_empty(), "others' names begin with it");
}

/// What was merged into it is not taken for written.
#[tokio::test]
async fn an_inbox_after_a_batch_that_was_not_written_is_read_again() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).unwrap();
    send(&store, 6).await;
    let batch = next(&mut store.feed("one"), 100).await;
    project(&store, &batch[..3]).await;
    let Event::MessageSent(sent) = &batch[3].content.as_ref().unwrap().event else {
        panic!("it is a message")
    };
    let put = |seq| {
        let recorded = RecordedEvent { seq, ..batch[3].content.clone().unwrap() };
        InboxChange::PutMessage { owner: sent.sender.clone(), message: Message::new(&recorded, sent) }
    };
    let put_and_fail = |rows: &mut Rows<'_>, recent: &mut Recent<Numbers>| {
        inbox::put(rows, recent, &put(9))?;
        Err(StoreError::Busy { queue: "a queue" })
    };
    assert!(store.commit_views(put_and_fail, &[]).is_err());
    project(&store, &batch[3..]).await;
    let inbox: Vec<_> = store.inbox(&name("samer")).try_collect().await.unwrap();
    let seen: Vec<_> = inbox.iter().map(|row| (row.head_seq(), row.own_seq)).collect();
    assert_eq!(seen, [(2, 2); 3]);
}
