//! `/metrics`: the figures move as the traffic says, and each has its line in `docs/operations.md`.

use e2e::{Backend, Client, TestApp, eventually};
use serde_json::json;

use crate::caching::reader;

e2e::scenarios!(figures_move_with_traffic, figures_move_with_reads, every_metric_is_documented);

/// What one process shows.
struct Figures(String);

impl Figures {
    async fn of(operations: &Client) -> Self {
        let page = operations.get("/metrics").send().await.expect(200);
        Self(String::from_utf8(page.body.to_vec()).unwrap())
    }

    /// The sum over all lines of `name` that hold each of `labels`.
    fn sum(&self, name: &str, labels: &[&str]) -> f64 {
        let of_name = |line: &&str| line.split(['{', ' ']).next() == Some(name);
        let lines = self.0.lines().filter(of_name);
        let lines = lines.filter(|line| labels.iter().all(|label| line.contains(label)));
        lines.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
    }

    fn assert_moved(&self, before: &Self, (name, labels): (&str, &[&str]), expected: f64) {
        let moved = self.sum(name, labels) - before.sum(name, labels);
        assert!((moved - expected).abs() < 0.5, "{name} {labels:?} moved by {moved}, not {expected}");
    }
}

/// Past nginx: the figures of a process are of what went through it.
async fn door(app: &TestApp) -> Client {
    match app.backend() {
        Backend::Embedded => app.another_client(),
        Backend::Real => app.processes().direct("command-api-1").await,
    }
}

async fn figures_move_with_traffic(app: &TestApp) {
    let (samer, lena) = (app.register("samer").await, app.register("lena").await);
    let (operations, door) = (app.operations().remove(0), door(app).await);
    let samer = samer.at(&door);
    let before = Figures::of(&operations).await;

    let new_user = json!({ "username": "omar", "password": e2e::user::PASSWORD });
    door.post("/register").json(&new_user).send().await.expect(201);
    door.post("/register").json(&new_user).send().await.expect(409);
    door.post("/login").json(&new_user).send().await.expect(200);
    for (content, status) in [("hi", 201), ("hi", 201), ("ho", 422)] {
        let message = json!({ "recipient": lena.name, "content": content });
        let request = samer.post("/send").header("idempotency-key", "a").json(&message);
        request.send().await.expect(status);
    }
    samer.mark_read(&lena, 1).await;
    samer.mark_read(&lena, 1).await;
    door.get("/nothing/here").send().await.expect(404);

    let after = Figures::of(&operations).await;
    for (name, labels, expected) in [
        ("append_outcomes_total", &["outcome=\"new\""][..], 3.0),
        ("append_outcomes_total", &["outcome=\"replayed\""], 1.0),
        ("append_outcomes_total", &["outcome=\"unchanged\""], 1.0),
        ("append_outcomes_total", &["outcome=\"idempotency_conflict\""], 1.0),
        ("append_outcomes_total", &[], 6.0),
        ("append_duration_seconds_count", &[], 6.0),
        ("http_problems_total", &["code=\"username_taken\""], 1.0),
        ("http_problems_total", &["code=\"idempotency_conflict\""], 1.0),
        ("http_problems_total", &["code=\"not_found\""], 1.0),
        ("http_problems_total", &[], 3.0),
        (
            "http_request_duration_seconds_count",
            &["route=\"/send\"", "method=\"POST\"", "status=\"201\""],
            2.0,
        ),
        ("http_request_duration_seconds_count", &["route=\"none\"", "status=\"404\""], 1.0),
        ("password_hash_duration_seconds_count", &[], 2.0),
        ("password_hashes_refused_total", &[], 0.0),
        ("http_accept_failures_total", &[], 0.0),
    ] {
        after.assert_moved(&before, (name, labels), expected);
    }
    let commands = |figures: &Figures| figures.sum("append_commands_per_call_sum", &[]);
    assert!(commands(&after) - commands(&before) > 5.5, "{}", after.0);
    assert!(after.sum("http_connections_open", &[]) > 0.5, "{}", after.0);
    eventually("nothing is left over", async || {
        let now = Figures::of(&operations).await;
        let gauges = ["append_queued", "append_calls_in_flight", "password_hashes_running"];
        let left: f64 = gauges.iter().map(|name| now.sum(name, &[]).abs()).sum();
        (left < 0.5 && now.sum("password_hashes_waiting", &[]) < 0.5).then_some(())
    })
    .await;
}

async fn figures_move_with_reads(app: &TestApp) {
    let (samer, lena) = (app.register("samer").await, app.register("lena").await);
    for n in 1..=9 {
        samer.send(&lena, &format!("message {n}")).await;
    }
    samer.fresh("/messages?sender=samer&recipient=lena").await;
    let (door, operations) = reader(app).await;
    let reader = samer.at(&door);
    let before = Figures::of(&operations).await;

    let past = "/messages?sender=samer&recipient=lena&limit=3&before=5";
    for _ in 0..2 {
        reader.get(past).send().await.expect(200);
    }
    Figures::of(&operations).await.assert_moved(&before, ("page_cache_hits_total", &[]), 1.0);
    let beyond = reader.get("/messages?sender=samer&recipient=lena&min_seq=10").header("prefer", "wait=1");
    beyond.send().await.expect_problem(503, "not_yet_visible");
    reader.conversations().await;
    let mut events = reader.events().await;
    let sent = samer.send(&lena, "live").await;
    assert_eq!(events.messages(1).await, [sent]);

    let after = Figures::of(&operations).await;
    for (name, labels, expected) in [
        ("read_duration_seconds_count", &["kind=\"views\""][..], 1.0),
        ("read_duration_seconds_count", &["kind=\"cached\""], 1.0),
        ("read_duration_seconds_count", &["kind=\"waited\""], 0.0),
        ("read_duration_seconds_count", &["kind=\"inbox\""], 1.0),
        ("page_reads_coalesced_total", &[], 0.0),
        ("page_waits_total", &["outcome=\"not_yet_visible\""], 1.0),
        ("pages_waiting", &[], 0.0),
        ("live_streams_open", &[], 1.0),
        ("live_events_sent_total", &[], 1.0),
        ("live_delivery_seconds_count", &[], 1.0),
        ("live_resets_total", &[], 0.0),
        ("live_streams_cut_total", &[], 0.0),
    ] {
        after.assert_moved(&before, (name, labels), expected);
    }
    assert!(
        after.sum("live_ring_events", &[]) > 0.5 && after.sum("live_ring_bytes", &[]) > 0.5,
        "{}",
        after.0
    );
    drop(events);
    eventually("the stream is closed", async || {
        (Figures::of(&operations).await.sum("live_streams_open", &[]) < 0.5).then_some(())
    })
    .await;
}

async fn every_metric_is_documented(app: &TestApp) {
    let (samer, lena) = (app.register("samer").await, app.register("lena").await);
    samer.send(&lena, "hi").await;
    door(app).await.get("/nothing/here").send().await.expect_problem(404, "not_found");
    let table = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/operations.md");
    let table = std::fs::read_to_string(table).unwrap();
    let mut shown = 0;
    for operations in app.operations() {
        let figures = Figures::of(&operations).await;
        for line in figures.0.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
            let (name, kind) = line.split_once(' ').unwrap();
            let suffix = if kind == "counter" { "_total" } else { "" };
            let row = format!("| `{name}{suffix}` | {kind} |");
            assert!(table.lines().any(|line| line.starts_with(&row)), "docs/operations.md has no {row}");
            shown += 1;
        }
    }
    assert!(shown >= 24, "only {shown} metrics are shown");
}
