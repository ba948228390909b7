//! `POST /login`, `POST /logout`, and what a token opens.

use std::time::{Duration, Instant};

use e2e::user::PASSWORD;
use e2e::{Answer, Backend, TestApp, User, within};
use serde_json::{Value, json};
use shared::limits::{SESSION_BELIEVED_MAX, SESSION_LIFETIME};
use shared::{Clock, Timestamp};

e2e::scenarios!(
    a_login_gives_a_token,
    wrong_credentials_are_all_the_same,
    a_logout_ends_one_session_or_all,
    only_a_valid_token_opens,
);
e2e::embedded_scenarios!(a_login_tells_nothing_by_its_time);
#[cfg(feature = "real")]
e2e::real_scenarios!(a_logout_holds_on_every_instance);

/// For the time that requests take.
const MARGIN: Duration = Duration::from_secs(1);

async fn log_in(app: &TestApp, name: &str, password: &str) -> Answer {
    app.post("/login").json(&json!({ "username": name, "password": password })).send().await
}

async fn a_login_gives_a_token(app: &TestApp) {
    app.register("samer").await;
    let before = Clock::system().now();
    let (one, other) =
        (log_in(app, "samer", PASSWORD).await.expect(200), log_in(app, "SaMeR", PASSWORD).await.expect(200));
    let after = Clock::system().now();
    assert_eq!(one.header("cache-control"), Some("no-store"));
    let token = |answer: &Answer| answer.json()["token"].as_str().expect("a token").to_owned();
    assert_ne!(token(&one), token(&other));
    assert!(token(&one).len() >= 43, "256 bits");
    // RFC 3339 in UTC with a fixed width sorts like the time itself.
    let expires = one.json()["expires_at"].as_str().expect("a time").to_owned();
    let bound = |time: Timestamp| time.plus(SESSION_LIFETIME).to_string();
    assert!(bound(before) <= expires && expires <= bound(after), "{expires}");
    for answer in [&one, &other] {
        app.get("/conversations").token(&token(answer)).send().await.expect(200);
    }
}

async fn wrong_credentials_are_all_the_same(app: &TestApp) {
    app.register("samer").await;
    let mut bodies = Vec::new();
    for (name, password) in [
        ("samer", "password124"),
        ("samer", "Password123"),
        ("samer", "short"),
        ("samer", ""),
        ("nobody", PASSWORD),
        ("", PASSWORD),
        ("no name\r\n", PASSWORD),
        ("samer\0", PASSWORD),
        (&"n".repeat(100), &"p".repeat(1_000)),
    ] {
        let mut body = log_in(app, name, password).await.expect_problem(401, "invalid_credentials");
        body["request_id"] = Value::Null;
        bodies.push(body);
    }
    assert!(bodies.windows(2).all(|two| two[0] == two[1]), "{bodies:?}");
}

async fn is_open(session: &User) -> bool {
    let answer = session.get("/conversations").send().await;
    match answer.status {
        200 => true,
        _ => {
            answer.expect_problem(401, "unauthenticated");
            false
        }
    }
}

async fn a_logout_ends_one_session_or_all(app: &TestApp) {
    let [samer, lena, tarek, nour] = [
        app.register("samer").await,
        app.register("lena").await,
        app.register("tarek").await,
        app.register("nour").await,
    ];
    let [samer_too, lena_too, tarek_too] =
        [app.log_in("samer").await, app.log_in("lena").await, app.log_in("tarek").await];
    for session in [&samer, &samer_too, &lena, &lena_too, &tarek, &tarek_too, &nour] {
        assert!(is_open(session).await);
    }

    for query in ["everywhere=maybe", "everywhere=", "everywhere=1", "everywhere=true&everywhere=true"] {
        let answer = samer.post(&format!("/logout?{query}")).send().await;
        answer.expect_problem(400, "invalid_request");
    }
    assert!(is_open(&samer).await, "a refused logout ends nothing");

    let ended = samer.post("/logout").send().await.expect(204);
    assert!(ended.body.is_empty() && ended.header("content-type").is_none(), "{ended:?}");
    lena.post("/logout?everywhere=false&unknown=1").send().await.expect(204);
    tarek.post("/logout?everywhere=true").send().await.expect(204);

    for session in [&samer, &lena, &tarek, &tarek_too] {
        expect_closed(app, session).await;
    }
    for session in [&samer_too, &lena_too, &nour, &app.log_in("tarek").await] {
        assert!(is_open(session).await, "{} has other sessions", session.name);
    }
}

/// At once where the process that is asked ended the session; another one believes it for a while.
async fn expect_closed(app: &TestApp, session: &User) {
    let closed = async || {
        let read = is_open(session).await;
        let write = session.post("/logout").send().await.status != 401;
        (!read && !write).then_some(())
    };
    match app.backend() {
        Backend::Embedded => assert_eq!(closed().await, Some(()), "{} is logged out", session.name),
        Backend::Real => within(SESSION_BELIEVED_MAX + MARGIN, "the session is closed", closed).await,
    }
}

async fn only_a_valid_token_opens(app: &TestApp) {
    let samer = app.register("samer").await;
    let ended = app.log_in("samer").await;
    ended.post("/logout").send().await.expect(204);
    let (good, garbled) = (&samer.token, samer.token.to_uppercase());

    let mut bodies = Vec::new();
    for header in [
        None,
        Some(String::new()),
        Some("Bearer".to_owned()),
        Some("Bearer ".to_owned()),
        Some(good.clone()),
        Some(format!("Basic {good}")),
        Some(format!("Bearer {garbled}")),
        Some(format!("Bearer {good}=")),
        Some(format!("Bearer {good} x")),
        Some(format!("Bearer {}", &good[1..])),
        Some(format!("Bearer {}", ended.token)),
        Some(format!("Bearer {}", "A".repeat(43))),
        Some(format!("Bearer {}", "a".repeat(4_000))),
    ] {
        // A token in the URL is never accepted.
        let request = app.get(&format!("/conversations?token={good}&access_token={good}"));
        let request = match &header {
            Some(header) => request.header("authorization", header),
            None => request,
        };
        let mut body = request.send().await.expect_problem(401, "unauthenticated");
        body["request_id"] = Value::Null;
        bodies.push(body);
    }
    assert!(bodies.windows(2).all(|two| two[0] == two[1]), "{bodies:?}");
    app.get("/conversations").header("authorization", format!("bearer {good}")).send().await.expect(200);

    for (method, path) in [
        ("POST", "/logout"),
        ("POST", "/send"),
        ("PUT", "/messages/01JD0000000000000000000000"),
        ("PUT", "/conversations/lena/read"),
        ("GET", "/messages?sender=samer&recipient=lena"),
        ("GET", "/conversations"),
    ] {
        app.request(method, path).json(&json!({})).send().await.expect_problem(401, "unauthenticated");
    }
}

/// An unknown user and a wrong password take the same time, within 5 %. Other work on the machine adds to either; so
/// they take turns, and there are several rounds. Without a hash for nobody no round would come near.
async fn a_login_tells_nothing_by_its_time() {
    const TRIES: usize = 15;
    const ROUNDS: usize = 20;
    let app = TestApp::start(Backend::Embedded).await;
    app.register("samer").await;
    let mut rounds = Vec::new();
    for _ in 0..ROUNDS {
        let mut took = [Vec::new(), Vec::new()];
        for _ in 0..TRIES {
            for (times, (name, password)) in
                took.iter_mut().zip([("samer", "password124"), ("nobody", PASSWORD)])
            {
                let begun = Instant::now();
                log_in(&app, name, password).await.expect(401);
                times.push(begun.elapsed());
            }
        }
        let medians = took.map(|mut times| {
            times.sort();
            times[TRIES / 2]
        });
        let [wrong_password, unknown_user] = medians;
        if unknown_user.abs_diff(wrong_password) <= wrong_password.mul_f64(0.05) {
            return app.finish().await;
        }
        rounds.push(medians);
    }
    panic!("medians of logins with a wrong password, and of an unknown user: {rounds:?}");
}

/// Whichever instance has seen the session a moment ago, and whichever ended it.
#[cfg(feature = "real")]
async fn a_logout_holds_on_every_instance() {
    let app = TestApp::start(Backend::Real).await;
    let sessions = [app.register("samer").await, app.log_in("samer").await, app.register("lena").await];
    let [samer, samer_too, lena] = &sessions;
    let mut command_apis = Vec::new();
    let mut query_apis = Vec::new();
    for number in [1, 2] {
        command_apis.push(app.processes().direct(&format!("command-api-{number}")).await);
        query_apis.push(app.processes().direct(&format!("query-api-{number}")).await);
    }
    let is_open_at = async |session: &User, door: usize| {
        let answer = match door {
            0 | 1 => {
                let body = json!({ "recipient": "somebody", "content": "hi" });
                session.at(&command_apis[door]).post("/send").json(&body).send().await
            }
            _ => session.at(&query_apis[door - 2]).get("/conversations").send().await,
        };
        match answer.status {
            401 => drop(answer.expect_problem(401, "unauthenticated")),
            status => assert!(matches!(status, 200 | 404), "{answer:?}"),
        }
        answer.status != 401
    };
    for session in &sessions {
        for door in 0..4 {
            assert!(is_open_at(session, door).await, "{} at {door}", session.name);
        }
    }
    samer.at(&command_apis[0]).post("/logout?everywhere=true").send().await.expect(204);
    for (door, session) in (0..4).flat_map(|door| [(door, samer), (door, samer_too)]) {
        within(SESSION_BELIEVED_MAX + MARGIN, &format!("it is closed at {door}"), async || {
            (!is_open_at(session, door).await).then_some(())
        })
        .await;
    }
    for door in 0..4 {
        assert!(!is_open_at(samer, door).await, "it stays closed at {door}");
        assert!(is_open_at(lena, door).await, "the session of another");
    }
    app.finish().await;
}
