//! What is not a request, and requests that mean harm. Whatever comes, the system serves others.

use std::time::{Duration, Instant};

use e2e::{Backend, TestApp};
use serde_json::json;
use shared::limits::{BODY_DEADLINE, HEADERS_DEADLINE};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::until_closed;

e2e::scenarios!(what_is_not_http, names_that_mean_harm, slow_clients_are_closed);

async fn what_is_not_http(app: &TestApp) {
    let request =
        |line: &str, headers: &str| format!("{line}\r\nHost: chat\r\n{headers}Connection: close\r\n\r\n");
    let long = "a".repeat(40_000);
    let many: String = (0..200).map(|n| format!("X-Header-{n}: x\r\n")).collect();
    for bytes in [
        "\0\0\0\0\r\n\r\n".to_owned(),
        "\u{16}\u{3}\u{1}\u{2}\0\u{1}\0\u{1}\u{fc}\u{3}\u{3}\r\n\r\n".to_owned(),
        "HELO chat\r\n\r\n".to_owned(),
        "GET\r\n\r\n".to_owned(),
        request("GET /messages", "").replace("GET /messages\r\n", "GET /messages HTTP/9.9\r\n"),
        request("GET mess ages HTTP/1.1", ""),
        request("GET /healthz HTTP/1.1", "no colon\r\n"),
        request("GET /healthz HTTP/1.1", "X: a\0b\r\n"),
        request("GET /healthz HTTP/1.1", "X y: z\r\n"),
        request("GET /healthz HTTP/1.1", "X-Request-Id: a\rX-Injected: 1\r\n"),
        request("POST /login HTTP/1.1", "Content-Length: -1\r\n"),
        request("POST /login HTTP/1.1", "Content-Length: 1\r\nContent-Length: 2\r\n"),
        request("POST /login HTTP/1.1", "Content-Length: 99999999999999999999999\r\n"),
        request(&format!("GET /{long}{long} HTTP/1.1"), ""),
        request("GET /conversations HTTP/1.1", &format!("X-Long: {long}\r\n")),
        request("GET /conversations HTTP/1.1", &many),
    ] {
        let answer = app.raw(bytes.as_bytes()).await;
        let answer = String::from_utf8_lossy(&answer);
        let refused = ["HTTP/1.1 400 ", "HTTP/1.1 414 ", "HTTP/1.1 431 "];
        let closed = answer.is_empty() || refused.iter().any(|status| answer.starts_with(status));
        assert!(closed, "{bytes:.100?}: {answer:.500}");
        assert!(!answer.contains('<'), "no HTML: {answer:.500}");
    }
    app.get("/healthz").send().await.expect(200);
}

async fn names_that_mean_harm(app: &TestApp) {
    let (samer, lena) = (app.register("samer").await, app.register("lena").await);
    let harmful = [
        "lena\r\nX-Injected: 1",
        "lena\n{\"level\":\"INFO\"}",
        "*",
        "lena:samer",
        "{0}:events",
        "lena' OR '1'='1",
        "lena\u{0}",
        "../lena",
        "%2e%2e%2flena",
        "$(id)",
        "\u{1b}[31mlena",
        "lena\u{202e}",
        "ⅼena",
        "ＬＥＮＡ",
        "lena ",
    ];
    for name in harmful {
        let body = json!({ "recipient": name, "content": "hi" });
        samer.post("/send").json(&body).send().await.expect_problem(422, "invalid_fields");
        let body = json!({ "username": name, "password": "password123" });
        app.post("/register").json(&body).send().await.expect_problem(422, "invalid_fields");
        app.post("/login").json(&body).send().await.expect_problem(401, "invalid_credentials");
        let encoded: String = name.bytes().map(|byte| format!("%{byte:02x}")).collect();
        let query = format!("/messages?sender=samer&recipient={encoded}");
        samer.get(&query).send().await.expect_problem(400, "invalid_request");
        let path = format!("/conversations/{encoded}/read");
        let answer = samer.put(&path).json(&json!({ "seq": 1 })).send().await;
        // Two dots are a step up for nginx, as they are for URLs: there is nothing there.
        match (app.backend(), name.contains("../")) {
            (Backend::Real, true) => answer.expect_problem(404, "not_found"),
            _ => answer.expect_problem(400, "invalid_request"),
        };
    }
    // Dots and slashes that a proxy might resolve lead nowhere.
    for path in [
        "/x/../send",
        "/./send",
        "/conversations/../send",
        "/messages/..%2f..%2fsend",
        "/conversations/%2e%2e/send",
    ] {
        let answer = samer.post(path).json(&json!({ "recipient": "lena", "content": "hi" })).send().await;
        assert!(matches!(answer.status, 400 | 404 | 405), "{answer:?}");
    }
    assert_eq!(samer.conversation(&lena).await.len(), 0);
    assert_eq!(samer.send(&lena, "hi").await["seq"], 1);
}

/// Between two drops of a client that says a little now and then.
const DROP_INTERVAL: Duration = Duration::from_millis(500);

/// Writes `bytes`, and then `drop` again and again, which may be nothing: what comes back until the server closes, and
/// how long that takes.
async fn dawdle(app: &TestApp, bytes: &str, drop: &str) -> (String, Duration) {
    let begun = Instant::now();
    let stream = TcpStream::connect(app.address()).await.expect("the server accepts");
    let (reading, mut writing) = stream.into_split();
    writing.write_all(bytes.as_bytes()).await.expect("the server reads");
    let dripping = async {
        loop {
            tokio::time::sleep(DROP_INTERVAL).await;
            // Where this fails, reading ends.
            let _ = writing.write_all(drop.as_bytes()).await;
        }
    };
    let patience = HEADERS_DEADLINE.max(BODY_DEADLINE) + Duration::from_secs(5);
    let answer = until_closed(reading, dripping, patience).await;
    let answer = answer.unwrap_or_else(|| panic!("still open after {patience:?}: {bytes:?} and {drop:?}"));
    (answer, begun.elapsed())
}

/// Deadlines are for the whole of the headers, and of the body: a byte now and then is no way around them.
async fn slow_clients_are_closed(app: &TestApp) {
    let half_a_body =
        "POST /login HTTP/1.1\r\nHost: chat\r\nContent-Type: application/json\r\nContent-Length: 50\r\n\r\n{";
    let (silent, headers, dripped_headers, body, dripped_body) = tokio::join!(
        dawdle(app, "", ""),
        dawdle(app, "GET /healthz HTTP/1.1\r\nHost: ch", ""),
        dawdle(app, "GET /healthz HTTP/1.1\r\nHost: ch", "a"),
        dawdle(app, half_a_body, ""),
        dawdle(app, half_a_body, " "),
    );
    for (answer, _) in [&silent, &headers, &dripped_headers] {
        assert_eq!(answer, "");
    }
    assert_timeout(&dripped_body.0);
    match app.backend() {
        Backend::Embedded => {
            assert_timeout(&body.0);
            // nginx lets a connection idle for longer (nginx.conf), and no service sees it.
            let idle = dawdle(app, "GET /healthz HTTP/1.1\r\nHost: chat\r\n\r\n", "").await;
            assert!(idle.0.starts_with("HTTP/1.1 200 "), "{idle:?}");
        }
        // nginx and the service give up at the same time; nginx has no answer and closes the connection.
        Backend::Real if body.0.is_empty() => {}
        Backend::Real => assert_timeout(&body.0),
    }
    for (_, took) in [silent, headers, dripped_headers, body, dripped_body] {
        assert!(took > Duration::from_secs(5), "closed after {took:?}: no client is that slow");
    }
    app.get("/healthz").send().await.expect(200);
}

fn assert_timeout(answer: &str) {
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    assert!(answer.contains("\"code\":\"timeout\""), "{answer}");
}
