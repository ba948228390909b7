//! The views are compared with the log: while both go on they are the same, and whatever is not is named.

use std::sync::Arc;
#[cfg(feature = "real")]
use std::time::{Duration, Instant};

use e2e::comparison::compare;
use e2e::traffic::{Pair, Traffic, assert_all_visible};
use e2e::{TestApp, eventually, poison};
use projector::{Counters, Progress, Projector, Verifier, Which};
use serde_json::{Value, json};
use shared::event::{Event, MessageSent, UserRegistered};
use shared::limits::IDEMPOTENCY_WINDOW;
use shared::message::Message;
use shared::ports::{Append, Appended, EventLog, FeedMonitor, LogReader, Receipt, ViewWriter};
use shared::view::{InboxChange, TimelineChange, ViewChange};
use shared::{Clock, Position, Username};
use storage::contract::RawEntry;
use storage::embedded::{Embedded, Options};
use tokio_util::sync::CancellationToken;

e2e::scenarios!(views_under_load_are_what_the_log_says, a_parked_event_is_a_difference_once_it_can_be_read);

e2e::embedded_scenarios!(rows_that_are_not_the_logs_are_named_on_a_directory);

#[cfg(feature = "real")]
e2e::real_scenarios!(rows_that_are_not_the_logs_are_named, the_log_is_read_no_faster_than_told);

async fn views_under_load_are_what_the_log_says(app: &TestApp) {
    let users = app.users(5).await;
    let pairs = Pair::of(&users, 10);
    let traffic = Traffic::start(&pairs, 8).await;
    let mut events = 0;
    for round in 1..=4 {
        traffic.go_on_for(100).await;
        for Pair { sender, recipient } in &pairs {
            recipient.mark_read(sender, round).await;
        }
        let comparison = app.compare().await;
        assert_eq!(comparison["listed"], json!([]), "{comparison}");
        let compared = comparison["events"].as_u64().unwrap();
        assert!(compared >= events + 100, "{compared} events, {events} before");
        events = compared;
    }
    let sent = traffic.end().await;
    assert_all_visible(&pairs, &sent).await;
    let comparison = app.compare().await;
    assert_eq!((&comparison["listed"], &comparison["differences"]), (&json!([]), &json!(0)));
    assert_eq!(comparison["conversations"], 10);
    assert_eq!(comparison["users"], 5);
    assert!(comparison["events"].as_u64().unwrap() >= (users.len() + sent.len()) as u64);
    assert_eq!(comparison["rows"], json!(sent.len() + 2 * pairs.len() + users.len()));
}

async fn a_parked_event_is_a_difference_once_it_can_be_read(app: &TestApp) {
    let (samer, lena) = (app.register("samer").await, app.register("lena").await);
    samer.send(&lena, "before").await;
    let planted = app.plant(RawEntry { checksum_flipped: 1, ..poison("samer", "lena", 2, "spoilt") }).await;
    let parked = eventually("it is parked", async || app.parked().await.pop()).await;
    let position: Position = parked["position"].as_str().unwrap().parse().unwrap();
    assert_eq!(app.compare().await["listed"], json!([]), "a marker, as nobody can read it");

    app.repair(&planted, position, poison("samer", "lena", 2, "spoilt")).await;
    let differences = texts(&app.compare().await);
    assert_eq!(differences.len(), 3, "{differences:?}");
    assert_eq!(differences[0], "timeline lena:samer 2 parked: `projector parked retry` applies it");

    let retried = app.retry_parked(Which::All).await;
    assert_eq!(retried, json!({ "applied": 1, "parked": 0 }));
    assert_eq!(app.compare().await["listed"], json!([]));
}

/// Each difference as its place and what it is.
fn texts(comparison: &Value) -> Vec<String> {
    let text = |difference: &Value| {
        let parts = ["view", "conversation", "seq", "owner", "peer", "user", "what"].map(|key| {
            let value = &difference[key];
            value.as_str().map_or_else(|| value.to_string(), str::to_owned)
        });
        parts.into_iter().filter(|part| part != "null").collect::<Vec<_>>().join(" ")
    };
    comparison["listed"].as_array().unwrap().iter().map(text).collect()
}

#[cfg(feature = "real")]
async fn rows_that_are_not_the_logs_are_named() {
    let app = TestApp::start(e2e::Backend::Real).await;
    let [samer, lena, omar] =
        [app.register("samer").await, app.register("lena").await, app.register("omar").await];
    for content in ["one", "two", "three"] {
        samer.send(&lena, content).await;
        omar.send(&samer, content).await;
    }
    lena.mark_read(&samer, 2).await;
    let run = async |arguments: &[&str]| {
        let output = app.processes().verify(arguments).await;
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
    };
    let (code, out, err) = run(&[]).await;
    assert!(code == 0 && out.ends_with("\nno difference\n"), "{out}{err}");
    assert!(err.contains("events folded: ") && err.contains("parts of the tables compared: "), "{err}");
    let (code, out, err) = run(&["--generation", "9"]).await;
    assert_eq!((code, out.as_str()), (1, ""));
    assert!(err.contains("there is no generation 9"), "{err}");

    let lena_samer = "WHERE conversation = 'lena:samer' AND bucket = 0 AND seq =";
    let omar_samer = "WHERE conversation = 'omar:samer' AND bucket = 0 AND seq =";
    let statements = [
        format!("UPDATE {{views}}.timeline USING TIMESTAMP 99 SET content = 'forged' {lena_samer} 2"),
        format!("DELETE FROM {{views}}.timeline USING TIMESTAMP 99 {omar_samer} 1"),
        format!("UPDATE {{views}}.timeline USING TIMESTAMP 99 SET sender = 'nobody' {omar_samer} 3"),
        format!("UPDATE {{views}}.timeline USING TIMESTAMP 99 SET parked = true {lena_samer} 7"),
        "INSERT INTO {views}.timeline (conversation, bucket, seq, id, sender, content, sent_at) VALUES \
         ('lena:samer', 0, 9, '01KAQ3V6B4Y6V3Z9T8S7R6Q5P4', 'lena', 'forged', 0) USING TIMESTAMP 18"
            .to_owned(),
        "UPDATE {views}.inbox USING TIMESTAMP 99 SET read_mark = 3 WHERE owner = 'lena' AND peer = 'samer'"
            .to_owned(),
        "UPDATE {views}.inbox USING TIMESTAMP 99 SET content = 'forged' WHERE owner = 'omar' AND peer = 'samer'"
            .to_owned(),
        "DELETE FROM {views}.inbox USING TIMESTAMP 99 WHERE owner = 'samer' AND peer = 'omar'".to_owned(),
        "DELETE FROM {views}.users USING TIMESTAMP 99 WHERE username = 'omar'".to_owned(),
        "INSERT INTO {views}.users (username, registered_at) VALUES ('nobody', 5) USING TIMESTAMP 2".to_owned(),
    ];
    e2e::comparison::spoil(app.processes(), &statements.each_ref().map(String::as_str)).await;
    let comparison = app.compare().await;
    assert_eq!(
        texts(&comparison),
        [
            "timeline lena:samer 2 other content",
            "timeline lena:samer 7 extra: not in the log",
            "timeline lena:samer 9 extra: not in the log",
            "timeline omar:samer 1 missing",
            "timeline omar:samer 3 missing",
            "inbox lena samer read mark 3 is not the log's",
            "inbox omar samer other last message 3",
            "inbox samer omar missing",
            "users nobody extra: not in the log",
            "users omar missing",
            "broken timeline row 3 in bucket 0 of omar:samer",
        ]
    );
    assert_eq!(comparison["differences"], 11);
    let (code, out, err) = run(&["--generation", "1"]).await;
    assert_eq!(code, 1, "{out}{err}");
    assert!(out.starts_with("timeline lena:samer 2: other content\n"), "{out}");
    assert!(out.ends_with("\n11 differences\n") && !out.contains("forged"), "{out}");
    assert!(err.contains("generation 1 is not what the log says"), "{err}");
    app.finish().await;
}

#[cfg(feature = "real")]
async fn the_log_is_read_no_faster_than_told() {
    let app = TestApp::start(e2e::Backend::Real).await;
    app.users(6).await;
    let begun = Instant::now();
    let output = app.processes().verify(&["--rate", "4"]).await;
    assert!(output.status.success(), "{output:?}");
    assert!(begun.elapsed() >= Duration::from_millis(1_400), "six events, in {:?}", begun.elapsed());
    app.finish().await;
}

/// What the embedded store lets one spoil: rows that are written past the log, and events that are never applied.
async fn rows_that_are_not_the_logs_are_named_on_a_directory() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options { dir: dir.path().join("data"), idempotency_window: IDEMPOTENCY_WINDOW };
    let store = Arc::new(Embedded::open(&options, Clock::system()).unwrap());
    for user in ["samer", "lena"] {
        append(&store, registration(user)).await;
    }
    let mut first = None;
    for content in ["one", "two", "three"] {
        let sent = message("samer", "lena", content);
        let receipt = append(&store, Event::MessageSent(sent.clone())).await;
        first.get_or_insert(message_of(receipt, sent));
    }
    project_all(&store).await;
    let verifier =
        Verifier { generation: 1, log: store.clone(), views: store.clone(), monitor: store.clone() };
    let comparison = compare(&verifier).await;
    assert!(comparison.is_clean(), "{}", comparison.lines());
    assert_eq!((comparison.events, comparison.rows), (5, 3 + 2 + 2));

    // Acknowledged and not applied.
    let mut skipped = Vec::new();
    for event in [registration("omar"), Event::MessageSent(message("lena", "samer", "four"))] {
        skipped.push(append(&store, event).await.position);
    }
    let first = first.unwrap();
    let forged = Message { content: "forged".to_owned(), ..first.clone() };
    let extra = Message { seq: 9, ..first.clone() };
    let read = InboxChange::PutReadMark { owner: first.recipient, peer: first.sender, seq: 2 };
    let changes = vec![
        ViewChange::Timeline(TimelineChange::PutMessage(forged)),
        ViewChange::Timeline(TimelineChange::PutMessage(extra)),
        ViewChange::Inbox(read),
    ];
    let skipped = store.entries_at(&skipped).await.unwrap();
    store.apply(changes, &skipped.into_iter().flatten().collect::<Vec<_>>()).await.unwrap();
    let comparison = compare(&verifier).await;
    let listed: Vec<_> = comparison.differences.listed.iter().map(ToString::to_string).collect();
    assert_eq!(
        listed,
        [
            "timeline lena:samer 1: other content",
            "timeline lena:samer 4: missing",
            "timeline lena:samer 9: extra: not in the log",
            "inbox of lena with samer: last message 3, 4 in the log, no own last number, 4 in the log",
            "inbox of lena with samer: read mark 2 is not the log's",
            "inbox of samer with lena: last message 3, 4 in the log",
            "user omar: missing",
        ]
    );
}

fn registration(user: &str) -> Event {
    let username: Username = user.parse().unwrap();
    Event::UserRegistered(UserRegistered { username, password_hash: "$argon2id$".to_owned() })
}

fn message(sender: &str, recipient: &str, content: &str) -> MessageSent {
    let (sender, recipient) = (sender.parse().unwrap(), recipient.parse().unwrap());
    MessageSent { sender, recipient, content: content.to_owned() }
}

fn message_of(receipt: Receipt, sent: MessageSent) -> Message {
    let Receipt { id, seq, at, .. } = receipt;
    let MessageSent { sender, recipient, content } = sent;
    Message { id, seq, sender, recipient, content, timestamp: at }
}

async fn append(store: &Embedded, event: Event) -> Receipt {
    let append = Append { id: Clock::system().new_id(), event, once: None, trace: None };
    match store.append(append).await.unwrap() {
        Appended::New(receipt) => receipt,
        other => panic!("{other:?}"),
    }
}

async fn project_all(store: &Arc<Embedded>) {
    let projector = Projector {
        feed: Box::new(store.feed("one")),
        views: store.clone(),
        counters: Counters::default(),
        clock: Clock::system(),
        guard: None,
        progress: Progress::default(),
    };
    let shutdown = CancellationToken::new();
    tokio::join!(projector::run(projector, shutdown.clone()), async {
        let applied = async || (store.status().await.unwrap().lag() == 0).then_some(());
        eventually("all is applied", applied).await;
        shutdown.cancel();
    });
}
