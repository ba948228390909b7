//! A log beside views: a process that shows them uses no other log than theirs, and begins none.

use shared::Clock;
use shared::ports::{
    Accounts, EmptyLog as _, Epoch, EventFeed, Heads, HotLog, LogEpoch, LogTail, Origin, Probe, SessionKey,
    Sessions,
};
use storage::redis::{EmptyLog, Options, Redis};
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use super::outage::{conversation, is_other};
use super::server::Server;
use super::{Fresh, GENERATION, eventually, message, options, plain, put, read, start};

const SESSION: SessionKey = SessionKey([7; 32]);

fn beside(options: &Options, origin: &watch::Sender<Origin>) -> (Redis, DropGuard) {
    let options = Options { views: Some(origin.subscribe()), ..options.clone() };
    let stop = CancellationToken::new();
    let store =
        storage::redis::connect(&options, Clock::system(), &TaskTracker::new(), stop.clone()).unwrap();
    (store, stop.drop_guard())
}

async fn refused(store: &Redis, said: &str) {
    let probe = store.probe();
    eventually(said, || async { probe.check().await.is_err_and(|error| is_other(&error, said)) }).await;
    let accounts = store.accounts();
    assert!(accounts.find(&SESSION).await.is_err_and(|error| error.is_retryable()));
    // What was found is told to whoever holds the connection, and he gives it up.
    let head = || async { accounts.head(&conversation()).await.is_err() };
    eventually("the connection is given up", head).await;
    assert!(accounts.answers(&conversation()).is_err());
    assert!(store.tail().end(10).await.is_err());
}

async fn used(store: &Redis) {
    let probe = store.probe();
    eventually("it is used", || async { probe.check().await.is_ok() }).await;
    assert!(store.accounts().find(&SESSION).await.unwrap().is_some());
    assert_eq!(store.accounts().head(&conversation()).await.unwrap(), 1);
    assert!(store.tail().end(10).await.unwrap().is_some());
}

#[tokio::test]
async fn only_the_log_of_the_views_is_used() {
    let prefix = format!("test:{}:", Clock::system().new_id());
    let options = options(&prefix);
    let origin = watch::Sender::new(Origin::Unknown);
    let (store, _stop) = beside(&options, &origin);
    let lost: Epoch = "lost".parse().unwrap();
    assert!(store.probe().check().await.is_err_and(|error| error.is_retryable()), "nobody has looked yet");
    origin.send_replace(Origin::Log(lost.clone()));
    refused(&store, "there is none").await;
    let key = format!("{prefix}{{0}}:log");
    let begun: bool = redis::cmd("EXISTS").arg(&key).query_async(&mut plain().await).await.unwrap();
    assert!(!begun, "no new log is begun in its place");

    let Fresh { store: another, _stop: _another, .. } = start(&options).await;
    put(&another, message("anna", "ben")).await;
    another.accounts().open_session(&"anna".parse().unwrap(), &SESSION).await.unwrap();
    refused(&store, "the views have seen log lost").await;
    let epoch = another.epoch().epoch().await.unwrap();
    // What was refused was never known: the right one is taken without a new start.
    origin.send_replace(Origin::Log(epoch.clone()));
    used(&store).await;
    assert_eq!(*store.found().borrow(), Some(epoch.clone()));

    // Other views are read.
    origin.send_replace(Origin::Log(lost));
    assert!(store.accounts().head(&conversation()).await.is_err(), "at once");
    assert!(store.accounts().find(&SESSION).await.is_err());
    refused(&store, "the views have seen log lost").await;
    origin.send_replace(Origin::Log(epoch.clone()));
    used(&store).await;

    another.epoch().begin(&Epoch { repairs: 1, ..epoch.clone() }).await.unwrap();
    refused(&store, "was repaired").await;
    origin.send_replace(Origin::Log(Epoch { repairs: 1, ..epoch }));
    used(&store).await;
}

/// Who waits for the log of the views goes on waiting while it is put back.
#[tokio::test]
async fn a_log_that_is_being_restored_is_waited_for() {
    let server = Server::start().await;
    let epoch: Epoch = "lost".parse().unwrap();
    let origin = watch::Sender::new(Origin::Log(epoch.clone()));
    let (store, _stop) = beside(&server.patient(), &origin);
    let mut log = EmptyLog::connect(&server.patient(), Clock::system()).await.unwrap();
    log.close().await.unwrap();
    refused(&store, "restored in part").await;
    log.open(&epoch).await.unwrap();
    let probe = store.probe();
    eventually("it is used", || async { probe.check().await.is_ok() }).await;
}

#[tokio::test]
async fn beside_views_that_have_seen_nothing_any_log_will_do() {
    let options = options(&format!("test:{}:", Clock::system().new_id()));
    let origin = watch::Sender::new(Origin::Nothing);
    let (store, _stop) = beside(&options, &origin);
    let probe = store.probe();
    eventually("it has begun one", || async { probe.check().await.is_ok() }).await;
    origin.send_replace(Origin::Log(store.epoch().epoch().await.unwrap()));
    probe.check().await.unwrap();
}

/// Views that have seen only a part of a log cannot tell by its entries that another one is in its place.
#[tokio::test]
async fn a_consumer_gives_nothing_of_a_log_that_was_begun_in_place_of_its_own() {
    let server = Server::start().await;
    let Fresh { store, _stop, .. } = start(&server.patient()).await;
    let mut feed = store.feed(GENERATION, "one");
    put(&store, message("anna", "ben")).await;
    let given = read(&mut feed, 1).await;
    feed.ack(&given).await.unwrap();

    server.ask(&["FLUSHALL"]).await;
    let Fresh { store: another, _stop: _another, .. } = start(&server.patient()).await;
    let strange = [message("anna", "ben"), message("cleo", "dana"), message("emil", "fay")];
    let mut stranger = another.feed(GENERATION, "stranger");
    put(&another, strange[0].clone()).await;
    // It has made the groups anew.
    read(&mut stranger, 1).await;
    for message in &strange[1..] {
        put(&another, message.clone()).await;
        let refused = feed.next_batch(10).await;
        assert!(
            refused.as_ref().is_err_and(|error| is_other(error, "this program began with")),
            "{refused:?}"
        );
    }
    // Nor is any archived. Whoever asks first may find that the connection was given up.
    assert!(store.hot().entries(given[0].position.partition, None, 1).await.is_err());
}
