//! The four calls of the original chat system, exactly as its clients make them.

use e2e::{TestApp, User};
use serde_json::json;

e2e::scenarios!(a_client_of_the_original_works);

async fn a_client_of_the_original_works(app: &TestApp) {
    for name in ["samer", "lena"] {
        let body = json!({ "username": name, "password": "password123" });
        let registered = app.post("/register").json(&body).send().await.expect(201);
        assert_eq!(registered.body, r#"{"message":"User registered successfully"}"#);
        assert_eq!(registered.header("content-type"), Some("application/json"));
    }

    let body = json!({ "username": "samer", "password": "password123" });
    let logged_in = app.post("/login").json(&body).send().await.expect(200);
    assert_eq!(logged_in.header("content-type"), Some("application/json"));
    let keys: Vec<_> = logged_in.json().as_object().expect("an object").keys().cloned().collect();
    assert_eq!(keys, ["expires_at", "token"]);
    let samer = User::with_token(app, "samer", logged_in.json()["token"].as_str().expect("a token"));

    let body = json!({ "sender": "samer", "recipient": "lena", "content": "Hello, Lena!" });
    let sent = samer.post("/send").json(&body).send().await.expect(201);
    assert_eq!(sent.header("content-type"), Some("application/json"));
    let message = sent.json();
    let (id, time) = (message["id"].as_str().expect("an id"), message["timestamp"].as_str().expect("a time"));
    // The order of the fields is part of "exact".
    let expected = format!(
        r#"{{"id":"{id}","seq":1,"sender":"samer","recipient":"lena","content":"Hello, Lena!","timestamp":"{time}"}}"#
    );
    assert_eq!(sent.body, expected);
    assert_eq!((id.len(), time.len(), &time[19..20], &time[23..]), (26, 24, ".", "Z"), "{message}");

    // The very next read shows it, and both directions are one conversation.
    for query in ["sender=samer&recipient=lena", "sender=lena&recipient=samer"] {
        let shown = samer.fresh(&format!("/messages?{query}")).await;
        assert_eq!(shown.header("content-type"), Some("application/json"));
        assert_eq!(shown.body, format!("[{expected}]"));
    }
}
