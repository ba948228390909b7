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
    let put = || samer.put(&format!("/messages/{}", new_id()));
    let too_old = Clock::system().now().minus(2 * IDEMPOTENCY_WINDOW);
    let put_too_old = samer.put(&format!("/messages/{}", EventId(Ulid::from_parts(too_old.0, 1))));

    for (name, request, status, code) in [
        ("404 before 413", as_json(app.post("/nothing"), &large), 404, "not_found"),
        ("405 before 401", app.post("/conversations"), 405, "method_not_allowed"),
        ("405 before 413", as_json(app.post("/messages"), &large), 405, "method_not_allowed"),
        ("401 before 413", as_json(app.post("/send"), &large), 401, "unauthenticated"),
        ("401 before 413", as_json(app.put("/messages/x"), &large), 401, "unauthenticated"),
        ("401 before 415", app.post("/send").body("x"), 401, "unauthenticated"),
        ("401 before 400", as_json(app.put("/messages/x"), "x"), 401, "unauthenticated"),
        ("401 before 400", app.get("/messages?limit=0"), 401, "unauthenticated"),
        ("401 before 400", app.get("/conversations?limit=0"), 401, "unauthenticated"),
        ("401 before 400", app.post("/logout?everywhere=maybe"), 401, "unauthenticated"),
        ("401 before 422", app.post("/send").json(&invalid), 401, "unauthenticated"),
        ("413 before 400", as_json(samer.post("/send"), &large), 413, "body_too_large"),
        ("413 before 400", as_json(samer.put("/messages/x"), &large), 413, "body_too_large"),
        ("415 before 400", samer.post("/send").body("x"), 415, "unsupported_media_type"),
        ("415 before 400", samer.put("/messages/x").body("x"), 415, "unsupported_media_type"),
        ("415 before 400", samer.put("/conversations/_/read").body("x"), 415, "unsupported_media_type"),
        ("400 before 422", samer.put("/messages/x").json(&invalid), 400, "invalid_request"),
        ("400 before 422", put().header("idempotency-key", "k").json(&invalid), 400, "invalid_request"),
        (
            "400 before 422",
            samer.post("/send").header("idempotency-key", "no key").json(&invalid),
            400,
            "invalid_request",
        ),
        ("400 before 422", as_json(samer.post("/send"), r#"{"x":1,"#), 400, "invalid_request"),
        (
            "400 before 422",
            samer.put("/conversations/_/read").json(&json!({ "seq": 0 })),
            400,
            "invalid_request",
        ),
        (
            "400 before 403",
            samer.get("/messages?sender=lena&recipient=tarek&limit=0"),
            400,
            "invalid_request",
        ),
        ("422 before 403", samer.post("/send").json(&not_mine("samer", "")), 422, "invalid_fields"),
        ("422 before 403", put().json(&not_mine("?", "hi")), 422, "invalid_fields"),
        ("422 before 403", put_too_old.clone().json(&not_mine("samer", "hi")), 422, "id_out_of_window"),
        (
            "422 before 404",
            samer.post("/send").json(&json!({ "recipient": "nobody", "content": " " })),
            422,
            "invalid_fields",
        ),
        (
            "422 before 404",
            put_too_old.json(&json!({ "recipient": "nobody", "content": "hi" })),
            422,
            "id_out_of_window",
        ),
        (
            "422 before 404",
            samer.put("/conversations/nobody/read").json(&json!({ "seq": 0 })),
            422,
            "invalid_fields",
        ),
        ("403 before 404", samer.post("/send").json(&not_mine("nobody", "hi")), 403, "not_your_name"),
        ("403 before 404", put().json(&not_mine("nobody", "hi")), 403, "not_your_name"),
    ] {
        let answer = request.send().await;
        assert_eq!((answer.status, answer.problem_code().as_str()), (status, code), "{name}: {answer:?}");
        answer.expect_problem(status, code);
    }
}
