//! Which of two things that are wrong is told: 404 route, 405, 401, 413 / 415, 400, 422, 403, 404 recipient.

use e2e::{Request, TestApp, new_id};
use serde_json::json;
use shared::limits::{BODY_BYTES_MAX, IDEMPOTENCY_WINDOW};
use shared::{Clock, EventId, ids::Ulid};

e2e::scenarios!(the_order_of_checks);

async fn the_order_of_checks(app: &TestApp) {
    let (samer, _lena) = (app.register("samer").await, app.register("lena").await);
    let large = "x".repeat(BODY_BYTES_MAX + 1);
    let as_json = |request: Request, body: &str| {
        request.header("content-type", "application/json").body(body.to_owned())
    };
    let invalid = json!({ "recipient": "?", "content": "" });
    let not_mine = |recipient: &str, content: &str| json!({ "sender": "lena", "recipient": recipient, "content": content });
    let to_nobody = |content: &str| json!({ "recipient": "nobody", "content": content });
    let put = || samer.put(&format!("/messages/{}", new_id()));
    let too_old = Clock::system().now().minus(2 * IDEMPOTENCY_WINDOW);
    let put_too_old = || samer.put(&format!("/messages/{}", EventId(Ulid::from_parts(too_old.0, 1))));
    let with_key = |key: &str| samer.post("/send").header("idempotency-key", key);

    // Each request is wrong in two ways: what is told of it, and what is not.
    let told = [
        (404, "not_found", 413, as_json(app.post("/nothing"), &large)),
        (405, "method_not_allowed", 401, app.post("/conversations")),
        (405, "method_not_allowed", 413, as_json(app.post("/messages"), &large)),
        (401, "unauthenticated", 413, as_json(app.post("/send"), &large)),
        (401, "unauthenticated", 413, as_json(app.put("/messages/x"), &large)),
        (401, "unauthenticated", 415, app.post("/send").body("x")),
        (401, "unauthenticated", 400, as_json(app.put("/messages/x"), "x")),
        (401, "unauthenticated", 400, app.get("/messages?limit=0")),
        (401, "unauthenticated", 400, app.get("/conversations?limit=0")),
        (401, "unauthenticated", 400, app.post("/logout?everywhere=x")),
        (401, "unauthenticated", 422, app.post("/send").json(&invalid)),
        (413, "body_too_large", 400, as_json(samer.post("/send"), &large)),
        (413, "body_too_large", 400, as_json(samer.put("/messages/x"), &large)),
        (415, "unsupported_media_type", 400, samer.post("/send").body("x")),
        (415, "unsupported_media_type", 400, samer.put("/messages/x").body("x")),
        (415, "unsupported_media_type", 400, samer.put("/conversations/_/read").body("x")),
        (400, "invalid_request", 422, samer.put("/messages/x").json(&invalid)),
        (400, "invalid_request", 422, put().header("idempotency-key", "k").json(&invalid)),
        (400, "invalid_request", 422, with_key("no key").json(&invalid)),
        (400, "invalid_request", 422, as_json(samer.post("/send"), r#"{"x":1,"#)),
        (400, "invalid_request", 422, samer.put("/conversations/_/read").json(&json!({ "seq": 0 }))),
        (400, "invalid_request", 403, samer.get("/messages?sender=lena&recipient=tarek&limit=0")),
        (422, "invalid_fields", 403, samer.post("/send").json(&not_mine("samer", ""))),
        (422, "invalid_fields", 403, put().json(&not_mine("?", "hi"))),
        (422, "id_out_of_window", 403, put_too_old().json(&not_mine("samer", "hi"))),
        (422, "invalid_fields", 404, samer.post("/send").json(&to_nobody(" "))),
        (422, "id_out_of_window", 404, put_too_old().json(&to_nobody("hi"))),
        (422, "invalid_fields", 404, samer.put("/conversations/nobody/read").json(&json!({ "seq": 0 }))),
        (403, "not_your_name", 404, samer.post("/send").json(&not_mine("nobody", "hi"))),
        (403, "not_your_name", 404, put().json(&not_mine("nobody", "hi"))),
    ];
    for (status, code, after, request) in told {
        let answer = request.send().await;
        assert_eq!(answer.status, status, "{status} comes before {after}: {answer:?}");
        answer.expect_problem(status, code);
    }
}
