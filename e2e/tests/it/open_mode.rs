//! `--auth open`: names are believed, as the original chat system did. Only the embedded backend has it.

use e2e::{Backend, Settings, TestApp, new_id};
use serde_json::{Value, json};
use shared::process::auth::Access;

e2e::embedded_scenarios!(names_are_believed);

async fn names_are_believed() {
    let app =
        TestApp::with(Backend::Embedded, Settings { access: Access::Open, ..Settings::default() }).await;
    let (samer, lena) = (app.register("samer").await, app.register("lena").await);

    let body = json!({ "sender": "samer", "recipient": "lena", "content": "no token" });
    let one = app.post("/send").json(&body).send().await.expect(201).json();
    let two = app.put(&format!("/messages/{}", new_id())).json(&body).send().await.expect(201).json();
    // Whoever has a token may still say another name, and an unreadable token is none.
    let of_lena = json!({ "sender": "lena", "recipient": "samer", "content": "as lena" });
    let three = samer.post("/send").json(&of_lena).send().await.expect(201).json();
    let four = app.post("/send").token("x").json(&body).send().await.expect(201).json();
    let five = samer.send(&lena, "left out").await;
    assert_eq!((&three["sender"], &five["sender"]), (&json!("lena"), &json!("samer")));

    let all = json!([one, two, three, four, five]);
    for query in ["sender=samer&recipient=lena", "sender=lena&recipient=samer"] {
        assert_eq!(app.get(&format!("/messages?{query}")).send().await.expect(200).json(), all);
    }
    let tarek = app.register("tarek").await;
    assert_eq!(tarek.get("/messages?sender=samer&recipient=lena").send().await.expect(200).json(), all);

    // Where the request holds no name, only a token tells who asks.
    let nameless = json!({ "recipient": "lena", "content": "hi" });
    for request in [
        app.post("/send").json(&nameless),
        app.put(&format!("/messages/{}", new_id())).json(&nameless),
        app.get("/conversations"),
        app.put("/conversations/lena/read").json(&json!({ "seq": 1 })),
        app.post("/logout"),
    ] {
        request.send().await.expect_problem(401, "unauthenticated");
    }
    // All else is as strict as ever.
    for (body, status, code) in [
        (json!({ "sender": "samer", "recipient": "samer", "content": "hi" }), 422, "invalid_fields"),
        (json!({ "sender": "?", "recipient": "lena", "content": "hi" }), 422, "invalid_fields"),
        (json!({ "sender": "samer", "recipient": "nobody", "content": "hi" }), 404, "recipient_not_found"),
        (Value::Null, 422, "invalid_fields"),
    ] {
        app.post("/send").json(&body).send().await.expect_problem(status, code);
    }
    app.finish().await;
}
