//! A directory that is opened again, and who may open it.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use fjall::{Database, KeyspaceCreateOptions};
use futures_util::TryStreamExt;
use shared::clock::{Clock, Timestamp};
use shared::event::{Event, RecordedEvent};
use shared::limits::{
    IDEMPOTENCY_WINDOW, INBOX_ROWS_PER_REQUEST, INBOXES_UNWRITTEN_FOR_MAX, SESSION_LIFETIME,
    SESSIONS_PER_USER_MAX,
};
use shared::message::Message;
use shared::ports::{
    Accounts, Append, AppendError, Appended, EventFeed, EventLog, FeedMonitor, Heads, Once, OnceKey, Probe,
    Refusal, SessionKey, Sessions, StoreError, ViewReader, ViewWriter,
};
use shared::view::{InboxChange, ViewChange};

use super::super::inbox::Numbers;
use super::super::place::{Place, has_views_of_another_shape, replace_views};
use super::super::recent::Recent;
use super::super::rows::Rows;
use super::super::{Embedded, Options, directory, inbox, keys, mark as mark_file};
use super::{killed, mark, message, name, next, open, open_at, pair, project, registration, send};

#[tokio::test]
async fn everything_is_there_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let once = Append {
        once: Some(Once { key: OnceKey::Header("key".to_owned()), fingerprint: [7; 16] }),
        ..message("samer", "lena", "once")
    };
    let store = open(dir.path()).unwrap();
    store.append(registration("samer")).await.unwrap();
    store.open_session(&name("samer"), &SessionKey([1; 32])).await.unwrap();
    let Appended::New(receipt) = store.append(once.clone()).await.unwrap() else { panic!("it is new") };
    store.append(mark("samer", "lena", 1)).await.unwrap();
    let mut feed = store.feed("one");
    let batch = next(&mut feed, 2).await;
    project(&store, &batch).await;
    feed.ack(&batch).await.unwrap();
    drop((store, feed));

    let store = open(dir.path()).unwrap();
    assert_eq!(store.password_hash(&name("samer")).await.unwrap().as_deref(), Some("hash of samer"));
    assert_eq!(store.find(&SessionKey([1; 32])).await.unwrap(), Some(name("samer")));
    assert_eq!(store.head(&pair("samer", "lena")).await.unwrap(), 1);
    assert_eq!(store.append(once).await.unwrap(), Appended::Replayed(receipt));
    assert_eq!(store.append(mark("samer", "lena", 1)).await.unwrap(), Appended::Unchanged);
    let taken = store.append(registration("samer")).await;
    assert!(matches!(taken, Err(AppendError::Refused(Refusal::UsernameTaken))));
    assert_eq!(store.timeline(&pair("samer", "lena"), 1, 100).await.unwrap().len(), 1);
    let status = store.status().await.unwrap();
    assert_eq!((status.partitions[0].head, status.lag(), status.consumers[0].applied), (3, 1, 2));
    let Appended::New(next) = store.append(message("lena", "samer", "next")).await.unwrap() else { panic!() };
    assert_eq!((next.seq, next.position.counter), (2, 4));
}

#[tokio::test]
async fn what_the_views_hold_is_not_delivered_again_even_if_it_was_not_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).unwrap();
    send(&store, 10).await;
    let mut feed = store.feed("one");
    let first = next(&mut feed, 4).await;
    let second = next(&mut feed, 4).await;
    project(&store, &second).await;
    drop((store, feed));

    let store = open(dir.path()).unwrap();
    let mut feed = store.feed("one");
    let left = next(&mut feed, 10).await;
    let offsets: Vec<_> = left.iter().map(|delivery| delivery.position.counter).collect();
    assert_eq!(offsets, [1, 2, 3, 4, 9, 10]);
    assert_eq!(left[..4], first);
    assert_eq!(store.status().await.unwrap().lag(), 6);
}

#[tokio::test]
async fn a_second_store_on_the_directory_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let other = tempfile::tempdir().unwrap();
    let store = open(dir.path()).unwrap();
    let refused = open(dir.path()).err().expect("it is refused");
    assert!(matches!(refused, StoreError::Unavailable { .. }));
    let why = std::error::Error::source(&refused).unwrap().to_string();
    assert_eq!(why, format!("the directory {} is in use by another process", dir.path().display()));

    let beside = open(other.path()).unwrap();
    send(&beside, 1).await;
    send(&store, 1).await;
    // A feed is a handle as well.
    let feed = store.feed("one");
    drop(store);
    assert!(open(dir.path()).is_err());
    drop(feed);
    open(dir.path()).unwrap();
}

#[tokio::test]
async fn what_was_queued_is_written_before_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).unwrap();
    let appends = (0..100).map(|_| store.append(message("samer", "lena", "hi")));
    let answers = futures_util::future::join_all(appends).await;
    assert!(answers.iter().all(Result::is_ok));
    // Polled once each, so that they are queued, and given up; the writer may be done with some of them by then.
    for _ in 0..100 {
        let polled = futures_util::FutureExt::now_or_never(store.append(message("samer", "lena", "hi")));
        assert!(polled.is_none_or(|answer| answer.is_ok()));
    }
    drop(store);
    assert_eq!(open(dir.path()).unwrap().head(&pair("samer", "lena")).await.unwrap(), 200);
}

#[tokio::test]
async fn a_full_queue_refuses_at_once_and_forgets_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).unwrap();
    let append = message("samer", "lena", "hi");
    let (mut queued, mut done) = (Vec::new(), 0);
    // Far faster than any disk: the queue fills up.
    let refused = (0..1_000_000).find_map(|_| {
        let mut answer = store.append(append.clone());
        match futures_util::FutureExt::now_or_never(&mut answer) {
            None => queued.push(answer),
            Some(Ok(_)) => done += 1,
            Some(Err(refused)) => return Some(refused),
        }
        None
    });
    assert!(matches!(refused, Some(AppendError::Store(StoreError::Busy { .. }))), "{refused:?}");
    let answers = futures_util::future::join_all(queued).await;
    assert!(answers.iter().all(|answer| matches!(answer, Ok(Appended::New(_)))));
    let appended = done + answers.len() as u64;
    assert_eq!(store.head(&pair("samer", "lena")).await.unwrap(), appended);
}

#[tokio::test]
async fn a_new_consumer_takes_over() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).unwrap();
    send(&store, 3).await;
    let mut old = store.feed("old");
    let given = next(&mut old, 2).await;
    let mut new = store.feed("new");
    assert_eq!(next(&mut new, 10).await.len(), 3);
    assert!(matches!(old.next_batch(1).await, Err(StoreError::Unfit { .. })));
    old.ack(&given).await.unwrap();
    let status = store.status().await.unwrap();
    let applied: Vec<_> = status.consumers.iter().map(|c| (c.name.as_str(), c.applied, c.pending)).collect();
    assert_eq!(applied, [("new", 0, 3), ("old", 0, 0)], "what it acknowledged was no longer its own");
}

#[tokio::test]
async fn time_never_falls_when_the_clock_does() {
    let dir = tempfile::tempdir().unwrap();
    let ahead = Clock::standing_at(Timestamp(2_000_000_000_000));
    let append = |number: u64| message("samer", "lena", &number.to_string());
    let at = |appended| if let Appended::New(receipt) = appended { receipt.at } else { panic!("it is new") };
    let store = open_at(dir.path(), ahead).unwrap();
    let first = at(store.append(append(1)).await.unwrap());
    drop(store);
    let store = open_at(dir.path(), Clock::standing_at(Timestamp(1_000_000_000_000))).unwrap();
    assert_eq!(at(store.append(append(2)).await.unwrap()), first);
}

#[tokio::test]
async fn what_is_over_gives_its_space_back() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Clock::standing_at(Timestamp(1_795_339_800_000));
    let store = open_at(dir.path(), clock.clone()).unwrap();
    let (samer, empty) = (name("samer"), store.directory().state.len().unwrap());
    for number in 0..SESSIONS_PER_USER_MAX + 10 {
        store.open_session(&samer, &SessionKey([u8::try_from(number).unwrap(); 32])).await.unwrap();
    }
    clock.advance(SESSION_LIFETIME / 2);
    // Renewed: its first entry in the index is over before it is.
    assert!(store.find(&SessionKey([50; 32])).await.unwrap().is_some());
    clock.advance(SESSION_LIFETIME / 2);
    store.close_session(&SessionKey([0; 32])).await.unwrap();
    assert_eq!(store.find(&SessionKey([50; 32])).await.unwrap(), Some(samer.clone()));
    assert_eq!(store.directory().state.get(keys::sessions(&samer)).unwrap().unwrap().len(), 32);
    assert_eq!(store.directory().state.len().unwrap(), empty + 4, "session, list, an index row per renewal");

    clock.advance(SESSION_LIFETIME);
    let once = |number| Append {
        once: Some(Once { key: OnceKey::Header(format!("{number}")), fingerprint: [7; 16] }),
        ..message("samer", "lena", "once")
    };
    for number in 0..20 {
        store.append(once(number)).await.unwrap();
    }
    let full = store.directory().state.len().unwrap();
    clock.advance(Duration::from_secs(3 * 3600));
    assert!(matches!(store.append(once(3)).await.unwrap(), Appended::New(_)), "its record is over");
    let pruned = store.directory().state.len().unwrap();
    assert_eq!(full - pruned, 2 * 19, "records and their index, but for the new one's");
}

#[tokio::test]
async fn an_interrupted_creation_is_begun_again() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path()).unwrap());
    std::fs::remove_file(dir.path().join("mark")).unwrap();
    for file in ["keyspaces/2/current", "version"] {
        std::fs::remove_file(dir.path().join("db").join(file)).unwrap();
        let store = open(dir.path()).unwrap();
        store.check().await.unwrap();
        drop(store);
        std::fs::remove_file(dir.path().join("mark")).unwrap();
    }
    fs::rename(dir.path().join("views"), dir.path().join("views-new")).unwrap();
    fs::remove_file(dir.path().join("views-new/version")).unwrap();
    let opened = directory::open(dir.path(), Place::Served, &Clock::system()).unwrap();
    assert_eq!(opened.last.offset, 0);
}

#[tokio::test]
async fn views_whose_directory_was_removed_are_made_again() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).unwrap();
    send(&store, 10).await;
    project(&store, &next(&mut store.feed("one"), 100).await).await;
    drop(store);
    fs::remove_dir_all(dir.path().join("views")).unwrap();
    are_made_again(&open(dir.path()).unwrap()).await;
}

fn open_beside(dir: &Path) -> Result<Embedded, StoreError> {
    let options = Options { dir: dir.to_owned(), idempotency_window: IDEMPOTENCY_WINDOW };
    Embedded::open_beside_views(&options, Clock::system())
}

/// How many messages the views show of a conversation.
async fn shown(store: &Embedded) -> usize {
    store.timeline(&pair("samer", "peer0"), 1, 100).await.unwrap().len()
}

#[tokio::test]
async fn views_are_replaced_by_others_that_are_complete_and_by_no_others() {
    let dir = tempfile::tempdir().unwrap();
    let (views, rebuilt) = (dir.path().join("views"), dir.path().join("views-rebuilt"));
    let store = open(dir.path()).unwrap();
    send(&store, 10).await;
    project(&store, &next(&mut store.feed("one"), 5).await).await;
    assert_eq!(shown(&store).await, 2);
    drop(store);

    // Killed before the others are complete.
    let beside = open_beside(dir.path()).unwrap();
    assert_eq!(shown(&beside).await, 0);
    project(&beside, &next(&mut beside.feed("one"), 100).await).await;
    assert_eq!(shown(&beside).await, 4);
    assert!(replace_views(dir.path()).is_err(), "the directory is in use");
    drop(beside);
    assert_eq!(shown(&open(dir.path()).unwrap()).await, 2);
    assert!(replace_views(dir.path()).is_err(), "whoever opened it has removed the others");
    assert_eq!(shown(&open(dir.path()).unwrap()).await, 2);

    // Killed while they take the place of those before.
    let beside = open_beside(dir.path()).unwrap();
    project(&beside, &next(&mut beside.feed("one"), 100).await).await;
    drop(beside);
    fs::rename(dir.path().join("views-new"), &rebuilt).unwrap();
    fs::remove_file(views.join("version")).unwrap();
    assert_eq!(shown(&open(dir.path()).unwrap()).await, 4);
    assert!(!rebuilt.exists());
    fs::rename(&views, &rebuilt).unwrap();
    assert_eq!(shown(&open(dir.path()).unwrap()).await, 4);

    drop(open_beside(dir.path()).unwrap());
    replace_views(dir.path()).unwrap();
    assert_eq!(shown(&open(dir.path()).unwrap()).await, 0, "complete is what the caller says");
}

#[tokio::test]
async fn views_of_another_shape_are_refused_and_can_be_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let shape = dir.path().join("views/shape");
    drop(open(dir.path()).unwrap());
    for (text, is_other) in [("0", true), ("", true), ("2", true), ("1", false)] {
        fs::write(&shape, text).unwrap();
        assert_eq!(has_views_of_another_shape(dir.path()), is_other, "{text}");
        assert_eq!(matches!(open(dir.path()), Err(StoreError::Unfit { .. })), is_other, "{text}");
    }
    // Of a program that did not write it down.
    fs::remove_file(&shape).unwrap();
    drop(open(dir.path()).unwrap());

    fs::write(&shape, "0").unwrap();
    drop(open_beside(dir.path()).unwrap());
    replace_views(dir.path()).unwrap();
    assert!(!has_views_of_another_shape(dir.path()));
    drop(open(dir.path()).unwrap());
}

fn fail(_: &mut Rows<'_>, _: &mut Recent<Numbers>) -> Result<(), StoreError> {
    Err(StoreError::Busy { queue: "a queue" })
}

/// So many wait that the next read goes on while the batch before it is applied.
#[tokio::test]
async fn what_is_read_ahead_is_neither_lost_nor_given_to_two() {
    const EVENTS: u64 = 3_000;
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).unwrap();
    let appends = (0..EVENTS).map(|number| store.append(message("samer", "lena", &number.to_string())));
    for appended in futures_util::future::join_all(appends).await {
        appended.unwrap();
    }
    let mut one = store.feed("one");
    let (mut given, mut dropped) = (0, 0);
    while given < EVENTS {
        // Dropped while it waits, or it has something.
        let polled = futures_util::FutureExt::now_or_never(one.next_batch(8_192));
        dropped += u64::from(polled.is_none());
        let batch = match polled {
            Some(batch) => batch.unwrap(),
            None => next(&mut one, 8_192).await,
        };
        for delivery in batch {
            given += 1;
            assert_eq!(delivery.position.counter, given);
        }
    }
    assert!(dropped > 0, "nothing was read ahead");

    let mut two = store.feed("two");
    let batch = next(&mut two, 8_192).await;
    assert_eq!(batch[0].position.counter, 1, "nothing was acknowledged");
    let _three = store.feed("three");
    assert!(two.next_batch(8_192).await.is_err(), "also of what it had read ahead");
}

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
        fail(rows, recent)
    };
    assert!(store.commit_views(put_and_fail, &[]).is_err());
    project(&store, &batch[3..]).await;
    let inbox: Vec<_> = store.inbox(&name("samer")).try_collect().await.unwrap();
    let seen: Vec<_> = inbox.iter().map(|row| (row.head_seq(), row.own_seq)).collect();
    assert_eq!(seen, [(2, 2); 3]);
}

async fn are_made_again(store: &Embedded) {
    let conversation = pair("samer", "peer0");
    assert!(store.timeline(&conversation, 1, 100).await.unwrap().is_empty());
    let batch = next(&mut store.feed("one"), 100).await;
    assert_eq!(batch.len(), 10);
    project(store, &batch).await;
    assert_eq!(store.timeline(&conversation, 1, 100).await.unwrap().len(), 4);
}

#[tokio::test]
async fn views_that_lie_beside_the_log_are_given_up_and_made_again() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).unwrap();
    send(&store, 10).await;
    drop(store);
    // As it was left by a program from before the views had a place of their own.
    fs::remove_dir_all(dir.path().join("views")).unwrap();
    let database = Database::builder(dir.path().join("db")).open().unwrap();
    let views = database.keyspace("views_1", KeyspaceCreateOptions::default).unwrap();
    views.insert(keys::ACKNOWLEDGED, "whatever").unwrap();
    drop((views, database));
    let mark = dir.path().join("mark");
    mark_file::write_layout_before(&mark, 10);

    are_made_again(&open(dir.path()).unwrap()).await;
    assert_eq!(mark_file::layouts(&mark), [2, 2], "the program from before refuses it");
    let store = open(dir.path()).unwrap();
    assert_eq!(store.timeline(&pair("samer", "peer0"), 1, 100).await.unwrap().len(), 4);
    let folders = fs::read_dir(dir.path().join("db/keyspaces")).unwrap().count();
    assert_eq!(folders, 3, "their space is given back");
}
