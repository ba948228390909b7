//! What clients may do, and what they are told of it: rates, failed logins, whose address counts.

use std::time::{Duration, Instant};

use e2e::user::PASSWORD;
use e2e::{Answer, Backend, Client, Settings, TestApp, eventually, new_id};
use serde_json::json;
use shared::limits::{BODY_BYTES_MAX, LOGIN_FAILURES_FREE, PASSWORD_HASHES_QUEUED_MAX};
use shared::process::config::{InFlightOptions, LimitOptions};

use tokio::task::JoinSet;

use crate::at_once;

/// More than any test does.
const PLENTY: &str = "1000000/s:1000000";

/// Only this limit; 127.0.0.1 is believed when it says who came to it.
fn only(flag: &str, rate: &str) -> Settings {
    let rate = |of: &str| (if of == flag { rate } else { PLENTY }).parse().unwrap();
    let limits = LimitOptions {
        in_flight: InFlightOptions { in_flight_limit: 1_000, ..InFlightOptions::default() },
        send_limit: rate("send"),
        login_limit: rate("login"),
        register_limit: rate("register"),
        trusted_proxies: vec!["127.0.0.1".parse().unwrap()],
    };
    Settings { limits: Some(limits), ..Settings::default() }
}

fn without_proxy(mut settings: Settings) -> Settings {
    settings.limits.as_mut().unwrap().trusted_proxies.clear();
    settings
}

e2e::scenarios!(only("send", "1/s:4") => a_burst_and_then_a_wait_that_is_true);
e2e::scenarios!(only("send", "1/h:1") => the_limit_is_checked_last);
e2e::scenarios!(only("login", "1/h:3") => logins_are_limited_by_address);
e2e::scenarios!(only("register", "1/h:3") => registrations_are_limited_by_address);
e2e::scenarios!(only("none", PLENTY) => failed_logins_wait_longer_and_longer, a_name_that_does_not_exist_waits_too);
e2e::scenarios!(only("none", PLENTY) => a_login_that_meets_a_full_queue_has_not_failed);
e2e::scenarios!(without_proxy(only("login", "1/h:3")) => who_is_not_trusted_is_not_believed);
e2e::scenarios!(off_lifts_all);
e2e::embedded_scenarios!(at_most_so_many_at_once, refusals_are_counted);
#[cfg(feature = "real")]
e2e::real_scenarios!(instances_share_the_limit);

/// Where clients are told apart by `X-Forwarded-For`: nginx would put its own there.
async fn door(app: &TestApp) -> Client {
    match app.backend() {
        Backend::Embedded => app.another_client(),
        Backend::Real => app.processes().direct("command-api-1").await,
    }
}

async fn log_in(door: &Client, address: &str, name: &str, password: &str) -> Answer {
    let body = json!({ "username": name, "password": password });
    door.post("/login").header("x-forwarded-for", address).json(&body).once().await
}

async fn register(door: &Client, address: &str, name: &str) -> Answer {
    let body = json!({ "username": name, "password": PASSWORD });
    door.post("/register").header("x-forwarded-for", address).json(&body).send().await
}

/// That this is a refusal in every detail, and how long it asks to wait.
#[track_caller]
fn refused(answer: &Answer) -> u64 {
    answer.expect_problem(429, "rate_limited");
    let seconds = answer.header("retry-after").and_then(|seconds| seconds.parse().ok()).unwrap();
    assert!(seconds >= 1, "{answer:?}");
    seconds
}

async fn a_burst_and_then_a_wait_that_is_true(app: &TestApp) {
    let (samer, lena) = (app.register("samer").await, app.register("lena").await);
    let id = new_id();
    let first = samer.put_message(id, &lena, "hi").send().await.expect(201);
    assert_eq!(first.header("ratelimit-policy"), Some("\"send\";q=4;w=4"), "{first:?}");
    assert_eq!(first.header("ratelimit"), Some("\"send\";r=3;t=1"), "{first:?}");
    let again = samer.put_message(id, &lena, "hi").send().await.expect(200);
    assert_eq!(again.header("idempotency-replayed"), Some("true"));
    assert!(again.header("ratelimit").is_some_and(|left| left.starts_with("\"send\";r=")), "{again:?}");

    let begun = Instant::now();
    let body = json!({ "recipient": "lena", "content": "hi" });
    let answers = at_once(12, || samer.post("/send").json(&body).send()).await;
    let sent = answers.iter().filter(|answer| answer.status == 201).count();
    // Of the burst of 4, two are used.
    assert!((2..=3 + begun.elapsed().as_secs() as usize + 2).contains(&sent), "{sent} sent");
    let last = answers.iter().find(|answer| answer.status != 201).expect("some are refused");
    let seconds = refused(last);
    assert_eq!(last.header("ratelimit"), Some(format!("\"send\";r=0;t={seconds}").as_str()), "{last:?}");
    assert_eq!(last.header("ratelimit-policy"), Some("\"send\";q=4;w=4"));
    lena.post("/send").json(&json!({ "recipient": "samer", "content": "hi" })).send().await.expect(201);

    tokio::time::sleep(Duration::from_secs(seconds)).await;
    let after = samer.post("/send").json(&body).send().await.expect(201);
    assert!(after.header("ratelimit").is_some(), "{after:?}");
}

async fn the_limit_is_checked_last(app: &TestApp) {
    let (samer, lena) = (app.register("samer").await, app.register("lena").await);
    samer.send(&lena, "hi").await;
    let as_json =
        |body: &str| samer.post("/send").header("content-type", "application/json").body(body.to_owned());
    let send = |sender: &str, recipient: &str, content: &str| {
        samer.post("/send").json(&json!({ "sender": sender, "recipient": recipient, "content": content }))
    };
    for (status, request) in [
        (404, app.post("/nothing")),
        (405, app.get("/send")),
        (401, app.post("/send")),
        (413, as_json(&"x".repeat(BODY_BYTES_MAX + 1))),
        (415, samer.post("/send").body("x")),
        (400, as_json("x")),
        (422, send("samer", "lena", "")),
        (403, send("lena", "samer", "hi")),
        (404, send("samer", "nobody", "hi")),
        (429, send("samer", "lena", "hi")),
        (429, samer.put_message(new_id(), &lena, "hi")),
    ] {
        request.send().await.expect(status);
    }
    // Other routes have no such limit.
    samer.mark_read(&lena, 1).await;
    samer.page(&lena, "").await.expect(200);
    lena.send(&samer, "hi").await;
}

async fn logins_are_limited_by_address(app: &TestApp) {
    let door = door(app).await;
    register(&door, "203.0.113.1", "samer").await.expect(201);
    for (password, status) in [(PASSWORD, 200), ("wrong password", 401), (PASSWORD, 200)] {
        let answer = log_in(&door, "203.0.113.1", "samer", password).await.expect(status);
        assert_eq!(answer.header("ratelimit-policy"), Some("\"login\";q=3;w=10800"), "{answer:?}");
        assert!(
            answer.header("ratelimit").is_some_and(|left| left.starts_with("\"login\";r=")),
            "{answer:?}"
        );
    }
    for (name, password) in
        [("samer", PASSWORD), ("samer", "wrong password"), ("nobody", PASSWORD), ("?", "?")]
    {
        let answer = log_in(&door, "203.0.113.1", name, password).await;
        let seconds = refused(&answer);
        assert!((3_500..=3_600).contains(&seconds), "{answer:?}");
    }
    door.post("/login").json(&json!({})).send().await.expect_problem(422, "invalid_fields");
    log_in(&door, "203.0.113.2", "samer", PASSWORD).await.expect(200);
    // A /64 of IPv6 is one address.
    for (address, status) in [("2001:db8::1", 200), ("2001:db8::2", 200), ("2001:db8::3:4", 200)] {
        log_in(&door, address, "samer", PASSWORD).await.expect(status);
    }
    refused(&log_in(&door, "2001:db8::5", "samer", PASSWORD).await);
    log_in(&door, "2001:db8:0:1::5", "samer", PASSWORD).await.expect(200);
}

async fn registrations_are_limited_by_address(app: &TestApp) {
    let door = door(app).await;
    for name in ["samer", "lena", "tarek"] {
        let answer = register(&door, "203.0.113.1", name).await.expect(201);
        assert_eq!(answer.header("ratelimit-policy"), Some("\"register\";q=3;w=10800"), "{answer:?}");
    }
    for name in ["nour", "samer"] {
        refused(&register(&door, "203.0.113.1", name).await);
    }
    register(&door, "203.0.113.1", "?").await.expect_problem(422, "invalid_fields");
    let taken = register(&door, "203.0.113.2", "samer").await;
    taken.expect_problem(409, "username_taken");
    assert!(taken.header("ratelimit").is_some_and(|left| left.starts_with("\"register\";r=2;")), "{taken:?}");
    register(&door, "203.0.113.2", "nour").await.expect(201);
}

async fn failed_logins_wait_longer_and_longer(app: &TestApp) {
    let door = door(app).await;
    register(&door, "203.0.113.1", "samer").await.expect(201);
    let attempt = async |password| log_in(&door, "203.0.113.1", "Samer", password).await;
    for _ in 0..LOGIN_FAILURES_FREE {
        attempt("wrong password").await.expect_problem(401, "invalid_credentials");
    }
    for expected in [1, 2] {
        let answer = attempt(PASSWORD).await;
        assert_eq!(refused(&answer), expected, "not even with the right password");
        tokio::time::sleep(Duration::from_secs(expected)).await;
        attempt("wrong password").await.expect_problem(401, "invalid_credentials");
    }
    assert!((3..=4).contains(&refused(&attempt(PASSWORD).await)));
    log_in(&door, "203.0.113.2", "samer", PASSWORD).await.expect(200);
    register(&door, "203.0.113.1", "lena").await.expect(201);
    log_in(&door, "203.0.113.1", "lena", PASSWORD).await.expect(200);
    assert!(refused(&attempt(PASSWORD).await) >= 1, "the success of another changes nothing");

    let wait = refused(&attempt(PASSWORD).await);
    tokio::time::sleep(Duration::from_secs(wait)).await;
    attempt(PASSWORD).await.expect(200);
    for _ in 0..LOGIN_FAILURES_FREE {
        attempt("wrong password").await.expect_problem(401, "invalid_credentials");
    }
    refused(&attempt(PASSWORD).await);
}

async fn a_name_that_does_not_exist_waits_too(app: &TestApp) {
    let door = door(app).await;
    let long = "x".repeat(10_000);
    for name in ["nobody", "cannot exist\r\n", &long] {
        for _ in 0..LOGIN_FAILURES_FREE {
            let answer = log_in(&door, "203.0.113.1", name, PASSWORD).await;
            answer.expect_problem(401, "invalid_credentials");
        }
        assert_eq!(refused(&log_in(&door, "203.0.113.1", name, PASSWORD).await), 1);
    }
}

async fn a_login_that_meets_a_full_queue_has_not_failed(app: &TestApp) {
    let door = door(app).await;
    register(&door, "203.0.113.1", "samer").await.expect(201);
    let attempt = async |password| log_in(&door, "203.0.113.1", "samer", password).await;
    let (mut busy, mut tried) = (0, 0);
    while busy <= LOGIN_FAILURES_FREE {
        let mut flood = JoinSet::new();
        for number in 0..2 * PASSWORD_HASHES_QUEUED_MAX {
            let door = door.clone();
            flood.spawn(async move {
                log_in(&door, "203.0.113.2", &format!("nobody{number}"), PASSWORD).await.status
            });
        }
        while flood.join_next().await.expect("the queue has a bound").expect("no panic") != 503 {}
        for _ in 0..LOGIN_FAILURES_FREE {
            match attempt("wrong password").await.problem_code().as_str() {
                "busy" => busy += 1,
                "invalid_credentials" => {
                    tried += 1;
                    break;
                }
                other => panic!("{other} after {tried} failures and {busy} times busy"),
            }
        }
        flood.join_all().await;
    }
    assert!(tried < LOGIN_FAILURES_FREE, "{tried} tried: the queue was not full for long enough");
    eventually("the queue is empty", async || {
        let answer = attempt(PASSWORD).await;
        (answer.problem_code() != "busy").then_some(answer)
    })
    .await
    .expect(200);
}

/// On the real backend nginx is the peer, and says who came to it whatever the client says.
async fn who_is_not_trusted_is_not_believed(app: &TestApp) {
    let body = json!({ "username": "samer", "password": PASSWORD });
    app.post("/register").json(&body).send().await.expect(201);
    for address in ["203.0.113.1", "203.0.113.2", "203.0.113.3"] {
        log_in(app, address, "samer", PASSWORD).await.expect(200);
    }
    refused(&log_in(app, "203.0.113.4", "samer", PASSWORD).await);
}

async fn off_lifts_all(app: &TestApp) {
    let (samer, lena) = (app.register("samer").await, app.register("lena").await);
    let body = json!({ "recipient": "lena", "content": "hi" });
    for answer in at_once(60, || samer.post("/send").json(&body).send()).await {
        let answer = answer.expect(201);
        assert!(
            answer.header("ratelimit").is_none() && answer.header("ratelimit-policy").is_none(),
            "{answer:?}"
        );
    }
    for _ in 0..LOGIN_FAILURES_FREE + 2 {
        log_in(app, "203.0.113.1", "samer", "wrong password").await.expect(401);
    }
    app.log_in("samer").await.send(&lena, "and in").await;
}

async fn at_most_so_many_at_once() {
    let mut settings = only("none", PLENTY);
    settings.limits.as_mut().unwrap().in_flight.in_flight_limit = 1;
    let app = TestApp::with(Backend::Embedded, settings).await;
    let (samer, lena) = (app.register("samer").await, app.register("lena").await);
    let body = json!({ "recipient": "lena", "content": "hi" });
    let answers = at_once(64, || samer.post("/send").json(&body).send()).await;
    let (sent, refusals): (Vec<_>, Vec<_>) = answers.iter().partition(|answer| answer.status == 201);
    assert!(!sent.is_empty() && !refusals.is_empty(), "{} sent", sent.len());
    for answer in refusals {
        assert_eq!(refused(answer), 1);
    }
    samer.send(&lena, "the place is free again").await;
    app.finish().await;
}

async fn refusals_are_counted() {
    let app = TestApp::with(Backend::Embedded, only("send", "1/h:2")).await;
    let (samer, lena) = (app.register("samer").await, app.register("lena").await);
    let body = json!({ "recipient": "lena", "content": "hi" });
    for status in [201, 201, 429, 429, 429] {
        samer.post("/send").json(&body).send().await.expect(status);
    }
    lena.send(&samer, "hi").await;
    let page = app.operations()[0].get("/metrics").send().await.expect(200);
    let text = String::from_utf8(page.body.to_vec()).unwrap();
    for line in [
        "limit_permits_leased_total{policy=\"send\"} 3",
        "limit_refusals_total{policy=\"send\"} 3",
        "limit_cached_subjects{policy=\"send\"} 2",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is not in {text}");
    }
    app.finish().await;
}

#[cfg(feature = "real")]
async fn instances_share_the_limit() {
    let app = TestApp::with(Backend::Real, only("send", "1/h:8")).await;
    let (samer, lena) = (app.register("samer").await, app.register("lena").await);
    let mut sent = Vec::new();
    for name in ["command-api-1", "command-api-2"] {
        let samer = samer.at(&app.processes().direct(name).await);
        let body = json!({ "recipient": lena.name, "content": "hi" });
        let answers = at_once(6, || samer.post("/send").json(&body).send()).await;
        sent.push(answers.iter().filter(|answer| answer.status == 201).count());
    }
    assert_eq!(sent, [6, 2], "eight over both");
    app.finish().await;
}
