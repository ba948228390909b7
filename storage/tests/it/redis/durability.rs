//! What a Redis may lose, and who refuses it; replicas that have an event before it is acknowledged.

use std::time::Duration;

use shared::Clock;
use shared::event::{Event, UserRegistered};
use shared::limits::LOG_TIMEOUT;
use shared::ports::{
    Accounts, Append, AppendError, Appended, EventFeed, EventLog, Heads, Once, OnceKey, Probe, Receipt,
    StoreError,
};
use shared::process::config::DurabilityOptions;
use storage::redis::{Options, Redis, connect};
use tokio::time::{Instant, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use super::outage::{ANSWER_WITHIN, BACK_WITHIN, conversation, is_unavailable, ready};
use super::server::Server;
use super::{Fresh, GENERATION, eventually, message, once, put, read, start};

fn with(durability: Option<DurabilityOptions>, server: &Server) -> Options {
    Options { durability, ..server.patient() }
}

fn replicated(server: &Server) -> Options {
    let options = DurabilityOptions { log_replicas: 1, allow_data_loss: false };
    Options { durability: Some(options), ..server.options() }
}

/// Not waiting until it is ready.
fn connecting(options: &Options) -> (Redis, DropGuard) {
    let stop = CancellationToken::new();
    let store = connect(options, Clock::system(), &TaskTracker::new(), stop.clone()).unwrap();
    (store, stop.drop_guard())
}

fn is_unfit(error: &StoreError, why: &str) -> bool {
    matches!(error, StoreError::Unfit { what, .. } if what.contains(why) && what.ends_with("--allow-data-loss"))
}

async fn expect_refusal(store: &Redis, why: &str) {
    let probe = store.probe();
    eventually("refused", || async { probe.check().await.is_err_and(|error| is_unfit(&error, why)) }).await;
    let refused = store.log().append(message("anna", "ben")).await;
    assert!(matches!(&refused, Err(AppendError::Store(error)) if is_unfit(error, why)), "{refused:?}");
    let refused = store.feed(GENERATION, "one").next_batch(10).await;
    assert!(refused.is_err_and(|error| is_unfit(&error, why)));
}

#[tokio::test]
async fn what_may_lose_events_is_refused_unless_allowed() {
    for (setting, value, why, told) in [
        ("--appendonly", "no", "no append-only file", "redis: no append-only file"),
        ("--maxmemory-policy", "allkeys-lru", "maxmemory-policy allkeys-lru", "may evict acknowledged data"),
    ] {
        let server = Server::start_with(&[setting, value]).await;
        let (store, _stop) = connecting(&server.patient());
        expect_refusal(&store, why).await;
        let keys: u64 = redis::cmd("DBSIZE").query_async(&mut server.plain().await.unwrap()).await.unwrap();
        assert_eq!(keys, 0, "nothing is written to what is refused");

        let allowed = DurabilityOptions { allow_data_loss: true, log_replicas: 0 };
        let Fresh { store, _stop, .. } = start(&with(Some(allowed), &server)).await;
        put(&store, message("anna", "ben")).await;
        let text = store.probe().durability().unwrap();
        assert!(text.contains(told), "{text}");

        let Fresh { store, _stop, .. } = start(&with(None, &server)).await;
        read(&mut store.feed(GENERATION, "one"), 1).await;
        assert!(store.probe().durability().unwrap().contains(told), "who only reads may, and says so");
    }
}

#[tokio::test]
async fn a_restart_with_other_settings_is_found() {
    let mut server = Server::start().await;
    let Fresh { store, _stop, .. } = start(&server.patient()).await;
    put(&store, message("anna", "ben")).await;
    server.kill();
    server.restart_with(&["--maxmemory-policy", "volatile-ttl"]).await;
    expect_refusal(&store, "maxmemory-policy volatile-ttl").await;
    server.kill();
    server.restart().await;
    timeout(BACK_WITHIN, ready(&store)).await.expect("back in time");
    assert_eq!(put(&store, message("anna", "ben")).await.seq, 2, "nothing refused was done");
}

#[tokio::test]
async fn a_setting_changed_while_it_runs_is_found_by_the_probe() {
    let server = Server::start().await;
    let Fresh { store, _stop, .. } = start(&server.patient()).await;
    put(&store, message("anna", "ben")).await;
    server.ask(&["CONFIG", "SET", "appendonly", "no"]).await;
    let probe = store.probe();
    assert!(probe.check().await.is_err_and(|error| is_unfit(&error, "no append-only file")));
    assert!(probe.durability().unwrap().starts_with("redis: no append-only file"));
    expect_refusal(&store, "no append-only file").await;
    server.ask(&["CONFIG", "SET", "appendonly", "yes"]).await;
    timeout(BACK_WITHIN, ready(&store)).await.expect("back in time");
    assert_eq!(put(&store, message("anna", "ben")).await.seq, 2, "nothing refused was done");
}

#[tokio::test]
async fn what_a_server_keeps_to_itself_is_unknown() {
    let server = Server::start().await;
    for (hidden, told) in [
        (&["-config"][..], "redis: append-only file, fsync unknown"),
        (&["-config", "-info"], "redis: unknown (it does not tell its settings)"),
    ] {
        let account = ["ACL", "SETUSER", "app", "on", ">secret", "~*", "&*", "+@all"];
        server.ask(&[&account[..], hidden].concat()).await;
        let url = format!("redis://app:secret@127.0.0.1:{}/", server.port);
        let Fresh { store, _stop, .. } = start(&Options { url, ..server.patient() }).await;
        put(&store, message("anna", "ben")).await;
        let text = store.probe().durability().unwrap();
        assert!(text.starts_with(told), "{text}");
    }
}

fn too_few(outcome: &Result<Appended, AppendError>) -> bool {
    let Err(AppendError::Store(error)) = outcome else { return false };
    matches!(error, StoreError::Unreplicated { replicas: 0, required: 1, .. })
}

/// Again and again, until enough replicas have it.
async fn acknowledged(store: &Redis, append: &Append) -> Appended {
    let started = Instant::now();
    loop {
        let outcome = store.log().append(append.clone()).await;
        match outcome {
            Ok(appended) => return appended,
            Err(AppendError::Store(error)) if error.is_retryable() => {
                assert!(started.elapsed() < Duration::from_secs(20), "{error}");
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            other => panic!("{other:?}"),
        }
    }
}

fn receipt(appended: Appended) -> Receipt {
    match appended {
        Appended::New(receipt) | Appended::Replayed(receipt) => receipt,
        Appended::Unchanged => panic!("unchanged"),
    }
}

#[tokio::test]
async fn what_is_acknowledged_is_on_the_replica() {
    let server = Server::start().await;
    let replica = server.replica().await;
    let Fresh { store, _stop, .. } = start(&replicated(&server)).await;
    let text = store.probe().durability().unwrap();
    assert!(text.ends_with("; acknowledged by at least 1 replica (1 connected)"), "{text}");
    let mut redis = replica.plain().await.unwrap();
    for seq in 1..=20 {
        let sent = receipt(acknowledged(&store, &once(message("anna", "ben"), OnceKey::Id)).await);
        assert_eq!(sent.seq, seq);
        let heads = format!("{{{}}}:heads", sent.position.partition);
        let head: u64 =
            redis::cmd("HGET").arg(heads).arg("c:anna:ben").query_async(&mut redis).await.unwrap();
        assert!(head >= seq, "acknowledged {seq}, the replica has {head}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paused_replica_leaves_the_outcome_unknown() {
    let server = Server::start().await;
    let replica = server.replica().await;
    let Fresh { store, _stop, .. } = start(&replicated(&server)).await;
    let before = once(message("anna", "ben"), OnceKey::Id);
    let first = receipt(acknowledged(&store, &before).await);
    replica.signal("STOP");

    let sent = once(message("anna", "ben"), OnceKey::Id);
    let started = Instant::now();
    let (log, accounts) = (store.log(), store.accounts());
    let append = async { (log.append(sent.clone()).await, started.elapsed()) };
    let anna = "anna".parse().unwrap();
    let reading = async { (accounts.exists(&anna).await, started.elapsed()) };
    let ((outcome, waited), (read, read_after)) = tokio::join!(append, reading);
    assert!(too_few(&outcome), "{outcome:?}");
    assert!(waited < ANSWER_WITHIN, "{waited:?}");
    assert!(read.is_ok() && read_after < waited, "reads wait for no replica: {read:?} after {read_after:?}");

    // What only reads rests on the same: repetitions and refusals, whichever connection wrote what they found.
    let Fresh { store: other, _stop: _other_stop, .. } = start(&replicated(&server)).await;
    let conflict = Some(Once { key: OnceKey::Id, fingerprint: [0; 16] });
    for append in [sent.clone(), before.clone(), Append { once: conflict, ..sent.clone() }] {
        for store in [&other, &store] {
            let outcome = store.log().append(append.clone()).await;
            assert!(too_few(&outcome), "{outcome:?}");
        }
    }
    let user = UserRegistered { username: anna.clone(), password_hash: "hash".into() };
    let register = Append { id: sent.id, event: Event::UserRegistered(user), once: None, trace: None };
    for store in [&store, &other] {
        let outcome = store.log().append(register.clone()).await;
        assert!(too_few(&outcome), "registered, then taken: {outcome:?}");
    }

    replica.signal("CONT");
    assert_eq!(acknowledged(&other, &before).await, Appended::Replayed(first));
    let replayed = acknowledged(&store, &sent).await;
    assert!(matches!(replayed, Appended::Replayed(receipt) if receipt.seq == 2), "{replayed:?}");
    assert_eq!(accounts.head(&conversation()).await.unwrap(), 2, "one id, one event");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_replica_is_missed_until_it_is_back() {
    let server = Server::start().await;
    let mut replica = server.replica().await;
    let Fresh { store, _stop, .. } = start(&replicated(&server)).await;
    replica.kill();
    let mut sent = Vec::new();
    for _ in 0..3 {
        let append = once(message("anna", "ben"), OnceKey::Id);
        let outcome = store.log().append(append.clone()).await;
        assert!(too_few(&outcome), "{outcome:?}");
        sent.push(append);
    }
    let probe = store.probe();
    probe.check().await.expect("it serves all the same");
    assert!(probe.durability().unwrap().ends_with("(0 connected)"));

    // Who refuses at once what no replica will have appends nothing that he cannot acknowledge.
    server.ask(&["CONFIG", "SET", "min-replicas-to-write", "1"]).await;
    let outcome = store.log().append(message("anna", "ben")).await;
    assert!(is_unavailable(&outcome), "{outcome:?}");

    replica.restart_with(&["--replicaof", "127.0.0.1", &server.port.to_string()]).await;
    for (append, seq) in sent.iter().zip(1..) {
        let replayed = acknowledged(&store, append).await;
        assert!(matches!(replayed, Appended::Replayed(receipt) if receipt.seq == seq), "{replayed:?}");
    }
    let next = acknowledged(&store, &once(message("anna", "ben"), OnceKey::Id)).await;
    assert_eq!(receipt(next).seq, 4, "nothing refused was done");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_that_waits_for_replicas_drains_in_time() {
    let server = Server::start().await;
    let replica = server.replica().await;
    let Fresh { store, _stop, .. } = start(&replicated(&server)).await;
    replica.signal("STOP");
    let log = store.log();
    let appends = (0..1_000).map(|_| log.append(message("anna", "ben")));
    let started = Instant::now();
    let outcomes = futures_util::future::join_all(appends).await;
    assert!(started.elapsed() < LOG_TIMEOUT * 8, "{:?}", started.elapsed());
    let done = outcomes.iter().filter(|outcome| too_few(outcome)).count();
    let refused = outcomes.iter().filter(|outcome| is_unavailable(outcome)).count();
    assert!(done > 0 && refused > 0, "{done} done, {refused} refused");
    let unknown = outcomes.len() - done - refused;
    let head = store.accounts().head(&conversation()).await.unwrap();
    assert!((done..=done + unknown).contains(&usize::try_from(head).unwrap()), "{head}: {done} to {unknown}");
    replica.signal("CONT");
    acknowledged(&store, &once(message("anna", "ben"), OnceKey::Id)).await;
}
