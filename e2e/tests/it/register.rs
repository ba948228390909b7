//! `POST /register`.

use e2e::user::PASSWORD;
use e2e::{Answer, Backend, Settings, TestApp};
use serde_json::{Value, json};

e2e::scenarios!(names_and_passwords, a_name_is_taken_once);

async fn register(app: &TestApp, body: &Value) -> Answer {
    app.post("/register").json(body).send().await
}

async fn names_and_passwords(app: &TestApp) {
    let longest = "n".repeat(32);
    for name in ["ab", "A1", "0-._", "samer.al_k-1", longest.as_str()] {
        let answer = register(app, &json!({ "username": name, "password": PASSWORD })).await;
        assert_eq!(answer.status, 201, "{name}: {answer:?}");
    }
    // Characters are Unicode scalar values, and a password is taken as is.
    for (n, password) in
        ["12345678", "é".repeat(128).as_str(), "        ", "\u{1f642}234567\u{0}"].iter().enumerate()
    {
        let name = format!("password{n}");
        register(app, &json!({ "username": name, "password": password })).await.expect(201);
        let log_in = json!({ "username": name, "password": password });
        app.post("/login").json(&log_in).send().await.expect(200);
    }

    let too_long = "n".repeat(33);
    for name in [
        "",
        "a",
        too_long.as_str(),
        "_ab",
        ".ab",
        "-ab",
        "a b",
        "a:b",
        "a/b",
        "é12",
        "ab\u{0}",
        "ab\r\nx",
        "ab\u{7f}",
        "{ab}",
    ] {
        let answer = register(app, &json!({ "username": name, "password": PASSWORD })).await;
        let problem = answer.expect_problem(422, "invalid_fields");
        assert_eq!(
            (&problem["errors"][0]["field"], &problem["errors"][1]),
            (&json!("username"), &Value::Null),
            "{name:?}"
        );
    }
    for (password, code) in [("", "too_short"), ("1234567", "too_short"), (&"é".repeat(129), "too_long")] {
        let answer = register(app, &json!({ "username": "nobody", "password": password })).await;
        let error = &answer.expect_problem(422, "invalid_fields")["errors"][0];
        assert_eq!((&error["field"], &error["code"]), (&json!("password"), &json!(code)));
    }
    let both = register(app, &json!({ "username": "?", "password": "short" })).await;
    let errors = both.expect_problem(422, "invalid_fields")["errors"].as_array().expect("errors").len();
    assert_eq!(errors, 2, "all that is wrong is said at once");
    // None of these became anything.
    let nobody = json!({ "username": "nobody", "password": "1234567" });
    app.post("/login").json(&nobody).send().await.expect_problem(401, "invalid_credentials");
}

async fn a_name_is_taken_once(app: &TestApp) {
    register(app, &json!({ "username": "samer", "password": PASSWORD })).await.expect(201);
    for name in ["samer", "SAMER", "Samer"] {
        let again = register(app, &json!({ "username": name, "password": "another password" })).await;
        again.expect_problem(409, "username_taken");
    }
    app.log_in("samer").await;

    // Of many at once one wins; of the others each is told the truth.
    let body = json!({ "username": "lena", "password": PASSWORD });
    let all = crate::at_once(8, || app.post("/register").json(&body).send()).await;
    let won = all.iter().filter(|answer| answer.status == 201).count();
    for answer in all.iter().filter(|answer| answer.status != 201) {
        answer.expect_problem(409, "username_taken");
    }
    assert_eq!(won, 1);
}

mod a_blocked_password_is_refused {
    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn embedded() {
        as_too_common(Backend::Embedded).await;
    }

    #[cfg(feature = "real")]
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn real() {
        as_too_common(Backend::Real).await;
    }

    async fn as_too_common(backend: Backend) {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("blocklist");
        std::fs::write(&file, "12345678\nqwertyuiop\n").unwrap();
        let settings = Settings { password_blocklist: Some(file), ..Settings::default() };
        let app = TestApp::with(backend, settings).await;
        let blocked = register(&app, &json!({ "username": "samer", "password": "qwertyuiop" })).await;
        let error = &blocked.expect_problem(422, "invalid_fields")["errors"][0];
        assert_eq!((&error["field"], &error["code"]), (&json!("password"), &json!("too_common")));
        // No other spelling of it, and not the list itself.
        for (name, password) in [("samer", "Qwertyuiop"), ("lena", "12345678 ")] {
            register(&app, &json!({ "username": name, "password": password })).await.expect(201);
        }
        app.finish().await;
    }
}
