//! What the program writes about its work: one line of JSON for each thing, with ids to find it by, and nothing
//! that is a secret.

use e2e::process::Signal;
use e2e::user::PASSWORD;
use e2e::{User, eventually};
use serde_json::{Value, json};

use crate::Running;

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const CONTENT: &str = "between the two of us 7f3a";
const FORGED: &str = "forged\r\n{\"level\":\"ERROR\"}";

/// What it wrote but for the greeting, which goes to standard output.
fn log(output: &str) -> String {
    let is_greeting =
        |line: &&str| line.starts_with("Chat System listens on ") || line.starts_with("  curl ");
    output.split_inclusive('\n').filter(|line| !is_greeting(line)).collect()
}

fn parsed(log: &str) -> Vec<Value> {
    log.lines()
        .map(|line| {
            let line: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
            assert!(line["level"].is_string() && line["message"].is_string(), "{line}");
            line
        })
        .collect()
}

/// Good requests and bad ones, each with something in it that must not be repeated. Returns the tokens.
async fn traffic(running: &Running) -> Vec<String> {
    let client = &running.client;
    let (samer, lena) = (User::register(client, "samer").await, User::register(client, "lena").await);
    let message = json!({ "recipient": "lena", "content": CONTENT });
    let traced = samer.post("/send").json(&message).header("x-request-id", "the-send");
    traced.header("traceparent", format!("00-{TRACE}-b7ad6b7169203331-01")).send().await.expect(201);
    let plain = samer.post("/send").json(&message).header("x-request-id", "no-trace");
    plain.header("traceparent", "00-malformed").send().await.expect(201);

    let wrong = json!({ "username": "samer", "password": "wrong secret 91" });
    client.post("/login").json(&wrong).send().await.expect(401);
    let taken = json!({ "username": "samer", "password": PASSWORD });
    client.post("/register").json(&taken).send().await.expect(409);
    let forged = json!({ "username": FORGED, "password": PASSWORD });
    client.post("/register").json(&forged).send().await.expect(422);
    let unknown = json!({ "recipient": "lena", "content": CONTENT, FORGED: FORGED });
    samer.post("/send").json(&unknown).send().await.expect(422);
    let unfinished = format!("{{\"recipient\":\"lena\",\"content\":\"{CONTENT}");
    samer.post("/send").header("content-type", "application/json").body(unfinished).send().await.expect(400);
    client.get("/conversations").token("a-garbled-token-55").send().await.expect(401);
    client.get("/messages/forged%0d%0aforged").send().await.expect(405);
    assert_eq!(lena.conversation(&samer).await.len(), 2);
    vec![samer.token, lena.token]
}

#[tokio::test]
async fn the_log_is_json_with_ids_and_without_secrets() {
    let dir = tempfile::tempdir().unwrap();
    let mut running = Running::start(dir.path(), &["--log", "debug"]).await;
    let tokens = traffic(&running).await;
    eventually("both events are projected", async || {
        (running.process.output().matches("\"projecting\"").count() == 4).then_some(())
    })
    .await;
    running.process.signal(Signal::TERM).unwrap();
    running.process.ended().await.unwrap();

    let output = log(&running.process.output());
    let lines = parsed(&output);
    let answered = |request_id: &str| {
        let found = lines.iter().find(|line| {
            line["message"] == "answered" && line["span"]["request_id"].as_str() == Some(request_id)
        });
        found.unwrap_or_else(|| panic!("no line of {request_id}: {output}"))["span"]["trace_id"].clone()
    };
    assert_eq!(answered("the-send"), TRACE);
    let made = answered("no-trace");
    assert!(made.as_str().is_some_and(|id| id.len() == 32 && id != TRACE), "{made}");
    let projected: Vec<_> = lines.iter().filter(|line| line["trace_id"] == TRACE).collect();
    assert_eq!(projected.len(), 1, "the trace travels with its event: {output}");
    assert!(lines.iter().filter(|line| line["message"] == "answered").count() > 10, "{output}");

    let secrets = [PASSWORD, CONTENT, "wrong secret 91", "a-garbled-token-55", "$argon2id$", "forged"];
    for secret in secrets.into_iter().chain(tokens.iter().map(String::as_str)) {
        assert!(!output.contains(secret), "{secret} is in the log");
    }
}
