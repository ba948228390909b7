//! nginx when nobody is behind it: docs/faults.md, "no instance is there, or all are silent".

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use e2e::traffic::{Pair, Traffic, assert_all_visible};
use e2e::{Answer, Request, Shape, TestApp, User, new_id, seqs};
use serde_json::json;

use crate::at_once;

e2e::real_scenarios!(all_upstreams_down, all_upstreams_silent, one_more_of_each);

const APIS: [&str; 4] = ["command-api-1", "command-api-2", "query-api-1", "query-api-2"];

/// From a request to its answer, whatever is down.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(5);

async fn in_time(request: Request) -> Answer {
    let begun = Instant::now();
    let answer = request.once().await;
    let took = begun.elapsed();
    assert!(took <= ANSWER_TIME_MAX, "{took:?}: {answer:?}");
    // Which nginx it is, is nobody's business.
    assert!(matches!(answer.header("server"), None | Some("nginx")), "{answer:?}");
    answer
}

fn reads(user: &User) -> [Request; 3] {
    [
        user.get("/messages?sender=user1&recipient=user2"),
        user.get("/conversations"),
        user.get("/messages?sender=user1&recipient=user2&limit=7"),
    ]
}

fn writes(user: &User, peer: &User) -> [Request; 5] {
    let message = json!({ "recipient": peer.name, "content": "hi" });
    let account = json!({ "username": "somebody", "password": "password123" });
    [
        user.post("/send").json(&message),
        user.post("/register").json(&account),
        user.post("/login").json(&account),
        user.put(&format!("/messages/{}", new_id())).json(&message),
        user.put(&format!("/conversations/{}/read", peer.name)).json(&json!({ "seq": 1 })),
    ]
}

async fn all_upstreams_down() {
    let app = TestApp::real(Shape { projectors: 1, ..Shape::default() }).await;
    let (user, peer) = (app.user().await, app.user().await);
    user.send(&peer, "before").await;
    for name in APIS {
        app.processes().kill(name).await;
    }
    for request in writes(&user, &peer) {
        let problem = in_time(request).await.expect_problem(503, "unavailable");
        assert_eq!(problem["outcome"], "not_applied", "nobody was there to apply it: {problem}");
    }
    for request in reads(&user) {
        in_time(request).await.expect_problem(503, "unavailable");
    }
    let seconds = at_once(50, || user.get("/conversations").once()).await;
    let seconds: BTreeSet<_> =
        seconds.iter().map(|answer| answer.header("retry-after").expect("seconds")).collect();
    assert_eq!(seconds, ["1", "2", "3"].into(), "who was refused together does not come back together");
    // What the edge knows by itself, it still answers.
    app.get("/healthz").once().await.expect(200);
    app.get("/nothing").once().await.expect_problem(404, "not_found");
    for name in APIS {
        app.processes().restart(name).await;
    }
    assert_eq!(user.send(&peer, "after").await["seq"], 2);
    assert_eq!(peer.conversation(&user).await.len(), 2);
    app.finish().await;
}

async fn all_upstreams_silent() {
    let app = TestApp::real(Shape { projectors: 1, ..Shape::default() }).await;
    let (user, peer) = (app.user().await, app.user().await);
    user.send(&peer, "before").await;
    for name in APIS {
        app.processes().pause(name).await;
    }
    let mut answers = tokio::task::JoinSet::new();
    for request in writes(&user, &peer) {
        answers.spawn(async move { drop(in_time(request).await.expect_problem(504, "outcome_unknown")) });
    }
    for request in reads(&user) {
        answers.spawn(async move { drop(in_time(request).await.expect_problem(503, "unavailable")) });
    }
    let id = new_id();
    let unknown =
        in_time(user.put_message(id, &peer, "unknown")).await.expect_problem(504, "outcome_unknown");
    assert_eq!(unknown["outcome"], "unknown");
    answers.join_all().await;
    for name in APIS {
        app.processes().resume(name).await;
    }
    // Whether it was applied when they woke or is applied now: it is one message.
    let sent = user.put_message(id, &peer, "unknown").once().await;
    assert!(matches!(sent.status, 200 | 201), "{sent:?}");
    assert_eq!(user.put_message(id, &peer, "unknown").once().await.expect(200).body, sent.body);
    let shown = peer.conversation(&user).await;
    assert_eq!(seqs(&shown), (1..=shown.len() as u64).collect::<Vec<_>>());
    assert_eq!(shown.iter().filter(|message| message["id"] == id.to_string()).count(), 1);
    app.finish().await;
}

/// Instances join under load, and nobody notices.
async fn one_more_of_each() {
    use e2e::Role::{CommandApi, Projector, QueryApi};
    let app =
        TestApp::real(Shape { command_apis: 1, query_apis: 1, projectors: 1, ..Shape::default() }).await;
    let pairs = Pair::of(&app.users(4).await, 6);
    let traffic = Traffic::start(&pairs, 8).await;
    traffic.go_on_for(50).await;
    for (role, name) in [(CommandApi, "command-api-2"), (QueryApi, "query-api-2"), (Projector, "projector-2")]
    {
        assert_eq!(app.processes().start_one_more(role).await, name);
        traffic.go_on_for(100).await;
    }
    // The new ones do the work when the old ones are gone.
    for name in ["command-api-1", "query-api-1", "projector-1"] {
        app.processes().terminate(name).await;
        traffic.go_on_for(100).await;
    }
    let sent = traffic.end().await;
    assert_all_visible(&pairs, &sent).await;
    app.finish().await;
}
