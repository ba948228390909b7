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
    a_login_tells_nothing_by_its_time,
);
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

/// Whatever is wrong with a name or a password, the answer takes as long as for a wrong password, within 5 %. Other work
/// on the machine can make any round a bad one, so there are several; without a hash for nobody none would come near.
async fn a_login_tells_nothing_by_its_time(app: &TestApp) {
    const ROUNDS: usize = 20;
    app.register("samer").await;
    let wrong_password = ("samer", "password124");
    for other in [("nobody", PASSWORD), ("no name", PASSWORD), ("samer", "short")] {
        let mut rounds = Vec::new();
        let alike = loop {
            let times @ [one, two] = times_of(app, [wrong_password, other]).await;
            rounds.push(times);
            let alike = one.abs_diff(two) <= one.mul_f64(0.05);
            if alike || rounds.len() == ROUNDS {
                break alike;
            }
        };
        assert!(alike, "times of logins with a wrong password, and of {other:?}: {rounds:?}");
    }
}

/// What each of two logins that fail takes when little else is in its way: a quarter of its tries took less. Hashes in
/// turn may find one of two threads or cores slower, always the same one; so the logins change who is first.
async fn times_of(app: &TestApp, logins: [(&str, &str); 2]) -> [Duration; 2] {
    const TRIES: usize = 16;
    let mut took = [Vec::new(), Vec::new()];
    for turn in 0..TRIES {
        for which in [turn % 2, 1 - turn % 2] {
            let (name, password) = logins[which];
            let begun = Instant::now();
            log_in(app, name, password).await.expect(401);
            took[which].push(begun.elapsed());
        }
    }
    took.map(|mut times| {
        times.sort();
        times[TRIES / 4]
    })
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
