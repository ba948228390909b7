//! Every error, and a repeated send, as a client sees them: what is answered here is `docs/errors.md`.
//!
//! The embedded system shows what one process can answer, the real one what takes a fault of a server.

use e2e::{Answer, Backend, Placeholders, Request, Settings, TestApp, User, new_id};
use serde_json::{Value, json};
use shared::limits::{BODY_BYTES_MAX, PASSWORD_HASHES_QUEUED_MAX};
use shared::process::config::{InFlightOptions, LimitOptions};
use shared::process::problem::Code;

use crate::at_once;

mod document;
#[cfg(feature = "real")]
mod faults;
mod sections;

use document::Made;

e2e::embedded_scenarios!(errors_are_as_documented);

/// The client's own, so that it is the same in each run.
const REQUEST_ID: &str = "example";

/// What one system answered.
struct Transcripts {
    /// Where a reader has this system (README.md).
    host: &'static str,
    placeholders: Placeholders,
    made: Made,
}

impl Transcripts {
    fn of(host: &'static str) -> Self {
        Self { host, placeholders: Placeholders::default(), made: Made::new() }
    }

    fn add(&mut self, section: &'static str, request: &Request, answer: &Answer) {
        assert_eq!(answer.header("x-request-id"), Some(REQUEST_ID), "{answer:?}");
        let command = request.curl(self.host, &self.placeholders);
        let answer = answer.transcript(&self.placeholders);
        let blocks = self.made.entry(section).or_default();
        if !blocks.is_empty() {
            blocks.push('\n');
        }
        *blocks += &format!("```sh\n{command}\n```\n\n```http\n{answer}```\n");
    }

    /// Asks once.
    async fn show(&mut self, code: &'static str, request: Request) {
        let request = named(request);
        let answer = request.clone().once().await;
        answer.expect_problem(status(code), code);
        self.add(code, &request, &answer);
    }

    /// Of many who ask at once, one that was refused so.
    async fn show_one_of(&mut self, count: usize, code: &'static str, request: Request) {
        let request = named(request);
        let answers = at_once(count, || request.clone().once()).await;
        let refused = answers.iter().find(|answer| answer.problem_code() == code);
        let answer = refused.unwrap_or_else(|| panic!("nobody of {count} was told {code}"));
        answer.expect_problem(status(code), code);
        self.add(code, &request, answer);
    }
}

fn named(request: Request) -> Request {
    request.header("x-request-id", REQUEST_ID)
}

/// As docs/api.md says. `unavailable` is nginx's alone.
fn status(code: &str) -> u16 {
    let parts = Code::ALL.iter().map(|code| code.parts()).find(|(_, name, _)| *name == code);
    parts.map_or(503, |(status, ..)| status.as_u16())
}

fn message(recipient: &str, content: &str) -> Value {
    json!({ "recipient": recipient, "content": content })
}

async fn errors_are_as_documented() {
    sections::assert_complete();
    let mut transcripts = Transcripts::of("localhost:8080");
    let app = TestApp::start(Backend::Embedded).await;
    let (samer, _lena, _tarek) =
        (app.register("samer").await, app.register("lena").await, app.register("tarek").await);
    transcripts.placeholders.hide(&samer.token, "$TOKEN");
    repeat_sends(&mut transcripts, &samer).await;
    for (code, request) in refused(&app, &samer) {
        transcripts.show(code, request).await;
    }
    let login = app.post("/login").json(&json!({ "username": "samer", "password": "password123" }));
    transcripts.show_one_of(4 * PASSWORD_HASHES_QUEUED_MAX, "busy", login).await;
    app.finish().await;
    exceed_the_limit(&mut transcripts).await;
    document::check_or_write(Backend::Embedded, &transcripts.made);
}

/// Each is answered so however often it is made.
fn refused(app: &TestApp, samer: &User) -> Vec<(&'static str, Request)> {
    let send = |body: Value| samer.post("/send").json(&body);
    let account = |password: &str| json!({ "username": "samer", "password": password });
    let json = |body: String| samer.post("/send").header("content-type", "application/json").body(body);
    let text = samer.post("/send").header("content-type", "text/plain").body("hi");
    let old = samer.put("/messages/01JD0000000000000000000000").json(&message("lena", "hi"));
    let not_yet = samer.get("/messages?sender=samer&recipient=lena&min_seq=9").header("prefer", "wait=1");
    vec![
        ("invalid_request", samer.get("/messages?sender=samer&recipient=lena&limit=0")),
        ("unauthenticated", app.get("/conversations")),
        ("invalid_credentials", app.post("/login").json(&account("password124"))),
        ("not_your_name", send(json!({ "sender": "lena", "recipient": "samer", "content": "hi" }))),
        ("not_a_member", samer.get("/messages?sender=lena&recipient=tarek")),
        ("not_found", samer.get("/message")),
        ("recipient_not_found", send(message("nobody", "hi"))),
        ("method_not_allowed", samer.get("/send")),
        ("timeout", json("{".to_owned()).unfinished()),
        ("username_taken", app.post("/register").json(&account("password123"))),
        ("body_too_large", json("x".repeat(BODY_BYTES_MAX + 1))),
        ("unsupported_media_type", text),
        ("invalid_fields", send(message("?", " "))),
        ("idempotency_conflict", send(message("lena", "hello")).header("idempotency-key", "key-1")),
        ("id_out_of_window", old),
        ("not_yet_visible", not_yet),
    ]
}

async fn repeat_sends(transcripts: &mut Transcripts, samer: &User) {
    let id = new_id().to_string();
    transcripts.placeholders.hide(&id, "$ID");
    let with_key = samer.post("/send").header("idempotency-key", "key-1");
    for request in [with_key, samer.put(&format!("/messages/{id}"))] {
        let request = named(request.json(&message("lena", "hi")));
        let first = request.clone().once().await.expect(201);
        let again = request.clone().once().await;
        assert_eq!((again.header("idempotency-replayed"), &again.body), (Some("true"), &first.body));
        transcripts.add("idempotency-replayed", &request, &again);
    }
}

/// The limits as they are by default, but for the number of requests at once, which would refuse first.
async fn exceed_the_limit(transcripts: &mut Transcripts) {
    let in_flight = InFlightOptions { in_flight_limit: 1_000, ..InFlightOptions::default() };
    let limits = Some(LimitOptions { in_flight, ..LimitOptions::default() });
    let app = TestApp::with(Backend::Embedded, Settings { limits, ..Settings::default() }).await;
    let (samer, _lena) = (app.register("samer").await, app.register("lena").await);
    transcripts.placeholders.hide(&samer.token, "$TOKEN");
    let send = samer.post("/send").json(&message("lena", "hi"));
    transcripts.show_one_of(200, "rate_limited", send).await;
    app.finish().await;
}
