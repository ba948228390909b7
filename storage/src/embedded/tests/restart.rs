//! A directory that is opened again, and who may open it.

use std::fs;
use std::path::Path;
use std::time::Duration;

use fjall::{Database, KeyspaceCreateOptions};
use shared::clock::{Clock, Timestamp};
use shared::limits::{IDEMPOTENCY_WINDOW, SESSION_LIFETIME, SESSIONS_PER_USER_MAX};
use shared::ports::{
    Accounts, Append, AppendError, Appended, EventFeed, EventLog, FeedMonitor, Heads, Once, OnceKey, Probe,
    Refusal, SessionKey, Sessions, StoreError, ViewReader,
};
use shared::view::SHAPE;

use super::super::place::{Place, has_views_of_another_shape, replace_views};
use super::super::{Embedded, Options, directory, keys, mark as mark_file};
use super::{mark, message, name, next, open, open_at, pair, project, registration, send};

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
    let is_told = |text: &str, is_other| {
        assert_eq!(has_views_of_another_shape(dir.path()), is_other, "{text}");
        assert_eq!(matches!(open(dir.path()), Err(StoreError::Unfit { .. })), is_other, "{text}");
    };
    let [older, own, newer] = [SHAPE - 1, SHAPE, SHAPE + 1].map(|shape| shape.to_string());
    for (text, is_other) in [(&*older, true), (&*newer, true), ("", true), (&*own, false)] {
        fs::write(&shape, text).unwrap();
        is_told(text, is_other);
    }
    // Programs that did not write it down made the first shape.
    fs::remove_file(&shape).unwrap();
    is_told("no file", SHAPE != 1);

    fs::write(&shape, &older).unwrap();
    drop(open_beside(dir.path()).unwrap());
    replace_views(dir.path()).unwrap();
    assert!(!has_views_of_another_shape(dir.path()));
    drop(open(dir.path()).unwrap());
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
