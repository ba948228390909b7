//! What holds on every route: request ids, methods, unknown paths, probes.

use std::collections::BTreeSet;

use e2e::{Answer, TestApp, new_id};
use serde_json::{Value, json};

e2e::scenarios!(
    every_answer_has_a_request_id,
    a_path_tells_its_methods,
    head_is_get_without_a_body,
    what_is_not_there,
    probes_and_metrics,
);

async fn every_answer_has_a_request_id(app: &TestApp) {
    let (samer, lena) = (app.register("samer").await, app.register("lena").await);
    samer.send(&lena, "hi").await;
    let message = json!({ "recipient": "lena", "content": "hi" });
    let requests = || {
        [
            (200, samer.get("/messages?sender=samer&recipient=lena")),
            (200, samer.get("/conversations")),
            (200, app.get("/healthz")),
            (200, app.get("/readyz")),
            (201, samer.post("/send").json(&message)),
            (201, samer.put(&format!("/messages/{}", new_id())).json(&message)),
            (204, samer.put("/conversations/lena/read").json(&json!({ "seq": 1 }))),
            (204, app.request("OPTIONS", "/send")),
            (204, app.request("OPTIONS", "/messages")),
            (204, app.request("OPTIONS", "/healthz")),
            (400, samer.get("/messages?limit=0")),
            (401, app.get("/conversations")),
            (404, app.get("/nothing/here")),
            (405, app.get("/send")),
            (415, app.post("/login").body("{}")),
            (422, app.post("/login").json(&json!({}))),
        ]
    };
    let mut seen = BTreeSet::new();
    for (status, request) in requests() {
        let answer = request.send().await.expect(status);
        let made =
            answer.header("x-request-id").unwrap_or_else(|| panic!("no request id: {answer:?}")).to_owned();
        assert!(is_well_formed(&made), "{made}");
        assert!(seen.insert(made), "the request id is not fresh: {answer:?}");
    }
    let longest = "A".repeat(64);
    for (given, (status, request)) in ["a", "0-._Z", longest.as_str()].iter().cycle().zip(requests()) {
        let answer = request.header("x-request-id", given).send().await.expect(status);
        assert_eq!(answer.header("x-request-id"), Some(*given), "{answer:?}");
    }
    let too_long = "A".repeat(65);
    let malformed = ["", "two words", "a/b", "a:b", "é", "a\tb", "\"a\"", "<script>", too_long.as_str()];
    for (given, (status, request)) in malformed.iter().cycle().zip(requests()) {
        let answer = request.header("x-request-id", given).send().await.expect(status);
        let made = answer.header("x-request-id").unwrap_or_else(|| panic!("no request id: {answer:?}"));
        assert!(is_well_formed(made) && made != *given, "{given:?} became {made:?}");
    }
}

fn is_well_formed(id: &str) -> bool {
    (1..=64).contains(&id.len())
        && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}

fn allowed(answer: &Answer) -> BTreeSet<String> {
    let allow = answer.header("allow").unwrap_or_else(|| panic!("no Allow: {answer:?}"));
    allow.split(',').map(|method| method.trim().to_owned()).collect()
}

async fn a_path_tells_its_methods(app: &TestApp) {
    let read = &["GET", "HEAD"][..];
    for (path, methods) in [
        ("/register", &["POST"][..]),
        ("/login", &["POST"]),
        ("/logout", &["POST"]),
        ("/send", &["POST"]),
        ("/messages/01JD0000000000000000000000", &["PUT"]),
        ("/messages/not-an-id", &["PUT"]),
        ("/conversations/lena/read", &["PUT"]),
        ("/messages", read),
        ("/conversations", read),
        ("/healthz", read),
        ("/readyz", read),
    ] {
        let set: BTreeSet<String> = methods.iter().map(|method| (*method).to_owned()).collect();
        let mut with_options = set.clone();
        with_options.insert("OPTIONS".to_owned());

        // OPTIONS works everywhere, whether it is listed or not.
        let expect_allowed = |answer: &Answer| {
            let told = allowed(answer);
            assert!(told.is_superset(&set) && told.is_subset(&with_options), "{answer:?}");
        };

        // Neither a token nor anything else is needed to ask.
        let options = app.request("OPTIONS", &format!("{path}?limit=0")).send().await.expect(204);
        expect_allowed(&options);
        assert!(options.body.is_empty() && options.header("content-type").is_none(), "{options:?}");

        for method in ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "TRACE"] {
            let answer = app.request(method, path).send().await;
            if methods.contains(&method) {
                assert!(!matches!(answer.status, 404 | 405), "{answer:?}");
                continue;
            }
            if method != "HEAD" {
                answer.expect_problem(405, "method_not_allowed");
            }
            expect_allowed(&answer.expect(405));
        }
    }
}

async fn head_is_get_without_a_body(app: &TestApp) {
    let (samer, lena) = (app.register("samer").await, app.register("lena").await);
    for _ in 0..3 {
        samer.send(&lena, "hi").await;
    }
    for (path, status) in [
        ("/messages?sender=samer&recipient=lena&limit=2", 200),
        ("/messages?sender=samer&recipient=lena&limit=0", 400),
        ("/messages?sender=nobody&recipient=lena", 403),
        ("/conversations?limit=1", 200),
        ("/healthz", 200),
        ("/readyz", 200),
        ("/nothing/here", 404),
    ] {
        let request_id = |request: e2e::Request| request.header("x-request-id", "same");
        let get = request_id(samer.get(path)).send().await.expect(status);
        let head = request_id(samer.request("HEAD", path)).send().await.expect(status);
        assert!(head.body.is_empty(), "{head:?}");
        for header in ["content-type", "link", "cache-control", "x-request-id"] {
            assert_eq!(head.header(header), get.header(header), "{header} of {path}");
        }
    }
    let head = app.request("HEAD", "/conversations").send().await.expect(401);
    assert_eq!((head.header("www-authenticate"), head.body.as_ref()), (Some("Bearer"), &b""[..]));
}

async fn what_is_not_there(app: &TestApp) {
    let samer = app.register("samer").await;
    for path in [
        "/",
        "/nothing",
        "/Send",
        "/send/",
        "/send/x",
        "//send",
        "/register/",
        "/messages/",
        "/messages/a/b",
        "/conversations/",
        "/conversations/lena",
        "/conversations/lena/",
        "/conversations/lena/unread",
        "/conversations/lena/read/",
        "/metrics",
        "/healthz/",
        "/index.html",
        "/.git/config",
        "/send%2f",
        "/s%65nd/x",
        "/favicon.ico?x=1",
    ] {
        for method in ["GET", "POST", "PUT", "DELETE", "OPTIONS"] {
            // With a token and without, the answer is the same.
            app.request(method, path).send().await.expect_problem(404, "not_found");
            samer.request(method, path).json(&Value::Null).send().await.expect_problem(404, "not_found");
        }
    }
}

async fn probes_and_metrics(app: &TestApp) {
    let alive = app.get("/healthz").send().await.expect(200);
    assert_eq!(
        (alive.header("content-type"), &alive.json()["status"]),
        (Some("application/json"), &json!("ok"))
    );
    let ready = app.get("/readyz").send().await.expect(200);
    assert_eq!(ready.header("content-type"), Some("application/json"));
    let report = ready.json();
    assert_eq!((&report["status"], &report["waiting_for"]), (&json!("ok"), &json!([])));
    let durability = report["durability"].as_str().expect("what a 201 means");
    assert!(durability.contains("survives a power cut"), "{durability}");

    for operations in app.operations() {
        assert_eq!(operations.get("/healthz").send().await.expect(200).json()["status"], "ok");
        assert_eq!(operations.get("/readyz").send().await.expect(200).json()["status"], "ok");
        let metrics = operations.get("/metrics").send().await.expect(200);
        let content_type = metrics.header("content-type").unwrap_or_default();
        assert!(content_type.starts_with("application/openmetrics-text; "), "{metrics:?}");
        assert!(metrics.body.ends_with(b"# EOF\n"), "{metrics:?}");
    }
}
