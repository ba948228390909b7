//! Bodies: their type, their size, and strict JSON.

use std::time::Duration;

use e2e::TestApp;
use serde_json::{Value, json};
use shared::limits::{BODY_BYTES_MAX, BODY_DEADLINE};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::until_closed;

e2e::scenarios!(only_plain_json_is_read, a_body_has_a_size, json_is_read_strictly);

/// A service cuts off at once what is too large, nginx after 10 s, so that its answer arrives.
const ENDLESS_TIME_MAX: Duration = BODY_DEADLINE.saturating_add(Duration::from_secs(5));

async fn only_plain_json_is_read(app: &TestApp) {
    let (samer, _lena) = (app.register("samer").await, app.register("lena").await);
    let body = || json!({ "recipient": "lena", "content": "hi" }).to_string();
    for (content_type, accepted) in [
        (Some("application/json"), true),
        (Some("Application/JSON"), true),
        (Some("application/json; charset=utf-8"), true),
        (Some("application/json;charset=UTF-8"), true),
        (Some("application/json; charset=\"utf-8\""), true),
        (None, false),
        (Some(""), false),
        (Some("text/plain"), false),
        (Some("text/json"), false),
        (Some("application/jsonx"), false),
        (Some("application/problem+json"), false),
        (Some("application/x-www-form-urlencoded"), false),
        (Some("multipart/form-data; boundary=x"), false),
        (Some("application/json; charset=latin1"), false),
        (Some("application/json; charset=utf-16"), false),
    ] {
        let request = samer.post("/send").body(body());
        let request = match content_type {
            Some(content_type) => request.header("content-type", content_type),
            None => request,
        };
        let answer = request.send().await;
        if accepted {
            assert_eq!(answer.status, 201, "{content_type:?}: {answer:?}");
        } else {
            answer.expect_problem(415, "unsupported_media_type");
        }
    }
    for encoding in ["gzip", "br", "deflate", "x"] {
        let request = samer.post("/send").header("content-type", "application/json").body(body());
        let answer = request.header("content-encoding", encoding).send().await;
        answer.expect_problem(415, "unsupported_media_type");
    }
    // Not only sends: every route with a body.
    for path in ["/register", "/login"] {
        app.post(path).body(body()).send().await.expect_problem(415, "unsupported_media_type");
    }
    samer
        .put("/conversations/lena/read")
        .body("{}")
        .send()
        .await
        .expect_problem(415, "unsupported_media_type");
}

async fn a_body_has_a_size(app: &TestApp) {
    let (samer, lena) = (app.register("samer").await, app.register("lena").await);
    let padded = |length: usize| {
        let body = json!({ "recipient": "lena", "content": "hi" }).to_string();
        let spaces = " ".repeat(length - body.len());
        body + &spaces
    };
    let send =
        |body: String| samer.post("/send").header("content-type", "application/json").body(body).send();
    send(padded(BODY_BYTES_MAX)).await.expect(201);
    // Valid or not: over the limit it is not looked at.
    send(padded(BODY_BYTES_MAX + 1)).await.expect_problem(413, "body_too_large");
    send("x".repeat(BODY_BYTES_MAX + 1)).await.expect_problem(413, "body_too_large");
    send(padded(20 * BODY_BYTES_MAX)).await.expect_problem(413, "body_too_large");
    for path in ["/register", "/login"] {
        let request =
            app.post(path).header("content-type", "application/json").body(padded(BODY_BYTES_MAX + 1));
        request.send().await.expect_problem(413, "body_too_large");
    }

    // In chunks, so that no length is announced.
    for (bytes, status) in [(BODY_BYTES_MAX, "201"), (BODY_BYTES_MAX + 1, "413")] {
        let answer = app.raw(&in_chunks(&samer.token, &padded(bytes))).await;
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{bytes} bytes in chunks: {answer:.500}");
    }
    // Without end: refused, and then cut off.
    let (sent, nowhere) =
        tokio::join!(endless(app, "/send", &samer.token), endless(app, "/nothing", &samer.token));
    assert!(sent.starts_with("HTTP/1.1 413 "), "{sent:.500}");
    assert!(nowhere.starts_with("HTTP/1.1 404 "), "{nowhere:.500}");
    assert_eq!(samer.conversation(&lena).await.len(), 2);
}

fn head_of_chunks(path: &str, token: &str) -> Vec<u8> {
    format!(
        "POST {path} HTTP/1.1\r\nHost: chat\r\nAuthorization: Bearer {token}\r\nContent-Type: application/json\r\n\
         Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    )
    .into_bytes()
}

fn chunk(bytes: &[u8]) -> Vec<u8> {
    [format!("{:x}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat()
}

fn in_chunks(token: &str, body: &str) -> Vec<u8> {
    let mut bytes = head_of_chunks("/send", token);
    bytes.extend(body.as_bytes().chunks(1_000).flat_map(chunk));
    bytes.extend(chunk(b""));
    bytes
}

/// Sends chunks until the server closes the connection, which it does in time: what it answered.
async fn endless(app: &TestApp, path: &str, token: &str) -> String {
    let stream = TcpStream::connect(app.address()).await.expect("the server accepts");
    let (reading, mut writing) = stream.into_split();
    writing.write_all(&head_of_chunks(path, token)).await.expect("the server reads");
    let chunk = chunk(&[b' '; 1_000]);
    let sending = async {
        while writing.write_all(&chunk).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        // It was cut off; what was answered before can still be read.
        std::future::pending().await
    };
    let answer = until_closed(reading, sending, ENDLESS_TIME_MAX).await;
    answer.unwrap_or_else(|| panic!("{path} still takes chunks after {ENDLESS_TIME_MAX:?}"))
}

const NOT_JSON: &[&str] = &[
    "",
    " ",
    "{",
    "}",
    "nul",
    "'{}'",
    "{}{}",
    "{} x",
    "[",
    r#"{"recipient":"lena","content":"hi"} x"#,
    r#"{"recipient":"lena","content":"hi",}"#,
    r#"{"recipient":"lena" "content":"hi"}"#,
    r#"{recipient:"lena","content":"hi"}"#,
    r#"{'recipient':'lena','content':'hi'}"#,
    r#"{"recipient":"lena","content":"hi"} // no comment"#,
    r#"{"recipient":"lena","content":NaN}"#,
    r#"{"recipient":"lena","content":1e999}"#,
    r#"{"recipient":"lena","content":Infinity}"#,
    r#"{"recipient":"lena","content":01}"#,
    r#"{"recipient":"lena","content":"\ud800"}"#,
    r#"{"recipient":"lena","content":"\udc00\ud800"}"#,
    r#"{"recipient":"lena","content":"\x41"}"#,
    "{\"recipient\":\"lena\",\"content\":\"a\nb\"}",
    "{\"recipient\":\"lena\",\"content\":\"a\0b\"}",
    "\u{feff}{\"recipient\":\"lena\",\"content\":\"hi\"}",
    r#"{"x":"\ud800"}"#,
    r#"{"x":1,"recipient""#,
];

const NOT_UTF_8: &[&[u8]] = &[
    b"{\"recipient\":\"lena\",\"content\":\"\xff\"}",
    b"{\"recipient\":\"lena\",\"content\":\"\xc3\"}",
    b"{\"recipient\":\"lena\",\"content\":\"\xed\xa0\x80\"}",
    b"\xff\xfe{\x00}\x00",
    b"\x1f\x8b\x08\x00",
];

const ANOTHER_SHAPE: &[&str] = &[
    "null",
    "true",
    "1",
    "\"text\"",
    "[]",
    r#"["lena","hi"]"#,
    r#"[{"recipient":"lena","content":"hi"}]"#,
    "{}",
    r#"{"recipient":"lena"}"#,
    r#"{"recipient":"lena","content":"hi","x":1}"#,
    r#"{"recipient":"lena","content":"hi","Content":"hi"}"#,
    r#"{"recipient":"lena","content":"a","content":"b"}"#,
    r#"{"recipient":"lena","content":"a","conten\u0074":"a"}"#,
    r#"{"recipient":"lena","content":{"text":"hi"}}"#,
    r#"{"recipient":"lena","content":["hi"]}"#,
    r#"{"recipient":"lena","content":1}"#,
    r#"{"recipient":"lena","content":true}"#,
    r#"{"recipient":"lena","content":null}"#,
];

async fn json_is_read_strictly(app: &TestApp) {
    let (samer, lena) = (app.register("samer").await, app.register("lena").await);
    let refused = async |body: &[u8], status: u16, code: &str| {
        let id = e2e::new_id();
        for request in [samer.post("/send"), samer.put(&format!("/messages/{id}"))] {
            let request = request.header("content-type", "application/json").body(body.to_vec());
            let answer = request.send().await;
            assert_eq!(answer.status, status, "{:.200}: {answer:?}", String::from_utf8_lossy(body));
            answer.expect_problem(status, code);
        }
    };
    let deep = |depth: usize| {
        format!(r#"{{"recipient":"lena","content":{}{}}}"#, "[".repeat(depth), "]".repeat(depth))
    };
    for body in NOT_JSON {
        refused(body.as_bytes(), 400, "invalid_request").await;
    }
    for body in [deep(1_000), deep(8_000), "[".repeat(16_000)] {
        refused(body.as_bytes(), 400, "invalid_request").await;
    }
    // So deep that a reader that recurses would fall: it is too large before it is read at all.
    for body in [deep(50_000), "[".repeat(100_000), "{\"a\":".repeat(100_000)] {
        refused(body.as_bytes(), 413, "body_too_large").await;
    }
    for body in NOT_UTF_8 {
        refused(body, 400, "invalid_request").await;
    }
    for body in ANOTHER_SHAPE {
        refused(body.as_bytes(), 422, "invalid_fields").await;
    }
    refused(deep(50).as_bytes(), 422, "invalid_fields").await;
    assert_eq!(lena.conversation(&samer).await, Vec::<Value>::new());
    // Strict, and no stricter: white space, escapes and any order of fields are JSON.
    let body = " \r\n\t{ \"content\" : \"\\u0068\\ud83d\\ude42\\/\" , \"recipient\":\"lena\" } \n";
    let sent =
        samer.post("/send").header("content-type", "application/json").body(body).send().await.expect(201);
    assert_eq!(sent.json()["content"], "h\u{1f642}/");
}
