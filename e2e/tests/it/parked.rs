//! Events that cannot be applied: rows of docs/faults.md. They are parked with their cause, their neighbours do not
//! notice, and an operator has the last word on them.

use std::sync::Arc;

use e2e::{Planted, TestApp, User, eventually, poison};
use projector::{Counters, Progress, Projector, StormGuard, Which};
use serde_json::{Value, json};
use shared::event::Envelope;
use shared::limits::{IDEMPOTENCY_WINDOW, STORM_UNREADABLE_MAX};
use shared::ports::{ParkedEvents, Probe};
use shared::{Clock, Position};
use storage::contract::RawEntry;
use storage::embedded::{Embedded, Options};
use tokio_util::sync::CancellationToken;

e2e::scenarios!(
    poison_is_parked_and_neighbours_are_unharmed,
    what_is_parked_is_applied_after_a_repair,
    what_is_repaired_is_on_pages_that_were_read_before,
);

e2e::embedded_scenarios!(a_consumer_stops_in_a_storm);

#[cfg(feature = "real")]
e2e::real_scenarios!(
    the_commands_say_what_they_do_and_fail_on_what_is_unknown,
    projectors_stop_in_a_storm_and_park_it_when_told_to,
);

/// One message with the wrong checksum, one of a kind that nobody knows, one of the next version, and one that is
/// no JSON: numbers 2 to 5 of the conversation, between two good ones.
async fn plant(app: &TestApp, samer: &User, lena: &User) -> Vec<Planted> {
    samer.send(lena, "before").await;
    let entry = |seq| poison("samer", "lena", seq, "spoilt");
    let spoilt = |seq, spoil: fn(&mut Envelope)| {
        let mut entry = entry(seq);
        spoil(&mut entry.envelope);
        entry
    };
    let entries = [
        RawEntry { checksum_flipped: 1, ..entry(2) },
        spoilt(3, |envelope| envelope.kind = "MessageSung".to_owned()),
        spoilt(4, |envelope| envelope.version = 2),
        spoilt(5, |envelope| envelope.payload = "{\"sender\":".to_owned()),
    ];
    let mut planted = Vec::new();
    for entry in entries {
        planted.push(app.plant(entry).await);
    }
    samer.send(lena, "after").await;
    planted
}

async fn all_parked(app: &TestApp, count: usize) -> Vec<Value> {
    eventually("they are parked", async || {
        let parked = app.parked().await;
        (parked.len() == count).then_some(parked)
    })
    .await
}

fn contents<'a>(messages: &'a [Value]) -> Vec<(u64, &'a str)> {
    let content =
        |message: &'a Value| (message["seq"].as_u64().unwrap(), message["content"].as_str().unwrap());
    messages.iter().map(content).collect()
}

fn position(parked: &Value) -> Position {
    parked["position"].as_str().unwrap().parse().unwrap()
}

async fn poison_is_parked_and_neighbours_are_unharmed(app: &TestApp) {
    let [samer, lena, omar] = [app.register("samer").await, app.register("lena").await, app.user().await];
    plant(app, &samer, &lena).await;
    samer.send(&omar, "beside").await;

    let parked = all_parked(app, 4).await;
    let causes: Vec<_> = parked.iter().map(|event| event["cause"].as_str().unwrap()).collect();
    for (cause, expected) in
        causes.iter().zip(["checksum", "event type \"MessageSung\"", "schema version 2", "payload: EOF"])
    {
        assert!(cause.contains(expected), "{cause}");
    }
    for (event, seq) in parked.iter().zip(2..) {
        assert_eq!((&event["conversation"], &event["seq"]), (&json!("lena:samer"), &json!(seq)));
        assert_eq!(event["attempts"], 1);
    }
    assert_eq!(contents(&samer.conversation(&lena).await), [(1, "before"), (6, "after")]);
    assert_eq!(contents(&omar.conversation(&samer).await), [(1, "beside")]);
    assert_eq!(app.standing().await.lag, 0);

    app.discard_parked(Which::One(position(&parked[0]))).await;
    assert_eq!(app.parked().await.len(), 3);
    app.discard_parked(Which::Cause("schema version".to_owned())).await;
    app.discard_parked(Which::All).await;
    assert_eq!(app.parked().await, [] as [Value; 0]);
    assert_eq!(contents(&samer.conversation(&lena).await), [(1, "before"), (6, "after")], "no hole");
}

async fn what_is_parked_is_applied_after_a_repair(app: &TestApp) {
    let (samer, lena) = (app.register("samer").await, app.register("lena").await);
    let planted = plant(app, &samer, &lena).await;
    let parked = all_parked(app, 4).await;
    assert_eq!(app.retry_parked(Which::All).await, json!({ "applied": 0, "parked": 4 }));
    assert!(app.parked().await.iter().all(|event| event["attempts"] == 2));

    app.repair(&planted[0], position(&parked[0]), poison("samer", "lena", 2, "spoilt")).await;
    let retried = app.retry_parked(Which::Cause("checksum".to_owned())).await;
    assert_eq!(retried, json!({ "applied": 1, "parked": 0 }));
    let expected = [(1, "before"), (2, "spoilt"), (6, "after")];
    assert_eq!(contents(&samer.conversation(&lena).await), expected);
    assert_eq!(app.parked().await.len(), 3);
    let last = Which::One(position(&parked[3]));
    assert_eq!(app.retry_parked(last.clone()).await, json!({ "applied": 0, "parked": 1 }));
    let attempts: Vec<_> = app.parked().await.iter().map(|event| event["attempts"].clone()).collect();
    assert_eq!(attempts, [2, 2, 3]);

    // The log goes on behind what was repaired.
    samer.send(&lena, "later").await;
    let messages = lena.conversation(&samer).await;
    assert_eq!(contents(&messages)[2..], [(6, "after"), (7, "later")]);
    app.discard_parked(Which::All).await;
}

async fn what_is_repaired_is_on_pages_that_were_read_before(app: &TestApp) {
    let (samer, lena) = (app.register("samer").await, app.register("lena").await);
    let planted = plant(app, &samer, &lena).await;
    let parked = all_parked(app, 4).await;
    let pages = ["", "&limit=5&before=6", "&limit=2&after=1"]
        .map(|query| format!("/messages?sender=samer&recipient=lena{query}"));
    let mut before = Vec::new();
    for page in pages.iter().cycle().take(3 * pages.len()) {
        let page = samer.fresh(page).await;
        assert_eq!(page.header("cache-control"), Some("private, no-cache"), "it may still change: {page:?}");
        before.push(page);
    }
    let min_seq = || samer.get(&format!("{}&min_seq=2", pages[0])).header("prefer", "wait=0").send();
    min_seq().await.expect_problem(503, "not_yet_visible");

    app.repair(&planted[0], position(&parked[0]), poison("samer", "lena", 2, "spoilt")).await;
    app.retry_parked(Which::Cause("checksum".to_owned())).await;
    for (page, before) in pages.iter().zip(&before) {
        let after = samer.fresh(page).await;
        assert!(contents(&after.items()).contains(&(2, "spoilt")), "{after:?}");
        assert_ne!(after.header("etag"), before.header("etag"));
    }
    min_seq().await.expect(200);
    app.discard_parked(Which::All).await;
}

#[cfg(feature = "real")]
async fn the_commands_say_what_they_do_and_fail_on_what_is_unknown() {
    let app = TestApp::start(e2e::Backend::Real).await;
    let (samer, lena) = (app.register("samer").await, app.register("lena").await);
    plant(&app, &samer, &lena).await;
    let parked = all_parked(&app, 4).await;
    let first = position(&parked[0]).to_string();
    let run = async |arguments: &[&str]| {
        let output = app.processes().parked(arguments).await;
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
    };
    for (arguments, code, printed, said) in [
        (&["list"][..], 0, "generation 1: 4 parked\n", ""),
        (&["list", "--limit", "1"], 0, "the first 1; go on with --after ", ""),
        (&["list", "--after", &first, "--cause", "MessageSung"], 0, "generation 1: 1 parked\n", ""),
        (&["list", "--cause", "nothing like it"], 0, "generation 1: 0 parked\n", ""),
        (&["list", "--generation", "9"], 1, "", "there is no generation 9"),
        (&["show", &first], 0, "place       lena:samer 2\n", ""),
        (&["show", &first], 0, "bytes       *4\\r\\n$1\\r\\ne\\r\\n", ""),
        (&["show", "3/1-0"], 1, "", "no event is parked at 3/1-0 in generation 1"),
        (&["show", "3"], 2, "", "a position looks like"),
        (&["retry"], 2, "", "POSITION"),
        (&["retry", "--all", "--cause", "x"], 2, "", "cannot be used with"),
        (&["retry", "3/1-0"], 1, "", "no event is parked at 3/1-0 in generation 1"),
        (&["retry", "--cause", "nothing"], 1, "", "no event is parked in generation 1 for \"nothing\""),
        (&["retry", &first], 1, "applied 0, still parked 1\n", "1 cannot be applied still"),
        (&["discard", "--all"], 1, "", "4 would be given up for good: --yes does it"),
        (&["discard", &first, "--yes"], 0, "discarded 1\n", "a parked event is discarded"),
        (&["discard", &first, "--yes"], 1, "", "no event is parked at"),
        (&["discard", "--all", "--yes", "--json"], 0, "{\"discarded\":3}\n", "a parked event is discarded"),
        (&["retry", "--all"], 0, "nothing is parked\n", ""),
        (&["discard", "--all"], 0, "nothing is parked\n", ""),
        (&["discard", "--all", "--yes", "--json"], 0, "{\"discarded\":0}\n", ""),
    ] {
        let (status, out, err) = run(arguments).await;
        assert_eq!(status, code, "{arguments:?}: {out}{err}");
        assert!(out.contains(printed) && err.contains(said), "{arguments:?}: {out}{err}");
        assert!(!err.contains("spoilt"), "a log never holds a message: {err}");
    }
    app.finish().await;
}

/// More than two projectors park before they stop.
const STORM: usize = 2 * STORM_UNREADABLE_MAX + 100;

/// Entries of one conversation that nobody can read: numbers 1, 2, …
fn storm() -> impl Iterator<Item = RawEntry> {
    let spoilt = |seq| RawEntry { checksum_flipped: 1, ..poison("samer", "lena", seq, "spoilt") };
    (1..).take(STORM).map(spoilt)
}

/// One parks at most the bound, ends by itself and says why; one without a guard goes on where it stopped.
async fn a_consumer_stops_in_a_storm() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options { dir: dir.path().join("data"), idempotency_window: IDEMPOTENCY_WINDOW };
    let store = Embedded::open(&options, Clock::system()).unwrap();
    for entry in storm() {
        store.put_raw(entry).await.unwrap();
    }

    let progress = Progress::default();
    let projector = |guard| Projector {
        feed: Box::new(store.feed("one")),
        views: Arc::new(store.clone()),
        counters: Counters::default(),
        clock: Clock::system(),
        guard,
        progress: progress.clone(),
    };
    let shutdown = CancellationToken::new();
    assert!(progress.check().await.is_ok());
    projector::run(projector(Some(StormGuard::default())), shutdown.clone()).await;
    let said = progress.check().await.unwrap_err().to_string();
    assert!(said.contains("events read cannot be applied"), "{said}");
    let parked = async || store.parked(None, 10_000).await.unwrap().len();
    let before = parked().await;
    assert!((1..=STORM_UNREADABLE_MAX).contains(&before), "{before} are parked");

    let all_parked = eventually("all are parked", async || (parked().await == STORM).then_some(()));
    let running = projector::run(projector(None), shutdown.clone());
    tokio::join!(running, async {
        all_parked.await;
        shutdown.cancel();
    });
}

#[cfg(feature = "real")]
async fn projectors_stop_in_a_storm_and_park_it_when_told_to() {
    let app = TestApp::start(e2e::Backend::Real).await;
    let (samer, lena) = (app.register("samer").await, app.register("lena").await);
    for entry in storm() {
        app.plant(entry).await;
    }
    for name in ["projector-1", "projector-2"] {
        let operations = app.processes().operations_of(name).await;
        let waiting = eventually("it stops", async || {
            let answer = operations.get("/readyz").send().await;
            (answer.status == 503).then(|| answer.json()["waiting_for"][0].as_str().unwrap().to_owned())
        });
        let waiting = waiting.await;
        assert!(waiting.starts_with("this projector does not fit: "), "{waiting}");
        assert!(waiting.ends_with(" events read cannot be applied"), "{waiting}");
    }
    let parked = app.parked().await.len();
    assert!(parked <= 2 * STORM_UNREADABLE_MAX, "{parked} are parked");
    let logs = app.processes().logs().await;
    for name in ["projector-1", "projector-2"] {
        let stopped = |line: &&str| line.contains("this projector stops") && line.contains("ERROR");
        assert!(logs[name].lines().any(|line| stopped(&line)), "{name}");
    }

    // Others go on: sends, and what was visible before.
    samer.send(&lena, "meanwhile").await;
    app.processes().terminate("projector-1").await;
    app.processes().restart_with("projector-1", "--park-storms").await;
    all_parked(&app, STORM).await;
    let newest = "/messages?sender=samer&recipient=lena";
    eventually("the good one behind them is visible", async || {
        let page = samer.get(newest).send().await.expect(200).items();
        (contents(&page) == [(STORM as u64 + 1, "meanwhile")]).then_some(())
    })
    .await;
    app.discard_parked(Which::All).await;
    app.finish().await;
}
