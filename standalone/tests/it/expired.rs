//! A session that was not used for its lifetime: its token is like any other that is not valid. Time is an input of
//! the library, so this test needs no process and no patience.

use std::time::Duration;

use clap::Parser;
use e2e::{Client, User};
use serde_json::Value;
use shared::limits::{SESSION_BELIEVED_MAX, SESSION_LIFETIME};
use shared::process::shutdown::Lifecycle;
use shared::{Clock, Timestamp};
use standalone::{Config, Standalone};

const NOW: Timestamp = Timestamp(1_795_000_000_000);

#[tokio::test]
async fn an_expired_token_gets_the_answer_of_every_bad_one() {
    let dir = tempfile::tempdir().unwrap();
    let (data, any_port) = (dir.path().join("data"), "127.0.0.1:0");
    let flags = ["standalone", "--listen", any_port, "--metrics-listen", any_port, "--data-dir"];
    let config = Config::parse_from(flags.into_iter().chain([data.to_str().unwrap()]));
    let (clock, lifecycle) = (Clock::standing_at(NOW), Lifecycle::default());
    let running = Standalone::start(&config, clock.clone(), &lifecycle).await.unwrap();
    let client = Client::new(running.address);
    let refusal = async |token: &str| {
        let answer = client.get("/conversations").token(token).send().await;
        let mut body = answer.expect_problem(401, "unauthenticated");
        body["request_id"] = Value::Null;
        body
    };
    let samer = User::register(&client, "samer").await;
    clock.advance(SESSION_LIFETIME + Duration::from_secs(1));
    let garbled = refusal(&"A".repeat(43)).await;
    assert_eq!(refusal(&samer.token).await, garbled);

    // One that was just seen is believed for a while, and no longer.
    let used = User::log_in(&client, "samer").await;
    used.get("/conversations").send().await.expect(200);
    clock.advance(SESSION_LIFETIME + Duration::from_secs(1));
    e2e::within(SESSION_BELIEVED_MAX + Duration::from_secs(2), "it is refused", async || {
        (used.get("/conversations").send().await.status == 401).then_some(())
    })
    .await;
    assert_eq!(refusal(&used.token).await, garbled);
    lifecycle.drain().await;
}
