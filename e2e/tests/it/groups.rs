//! The log loses what it knew of its readers, or a whole partition: rows of docs/faults.md.

use e2e::traffic::{Pair, Traffic, assert_all_visible};
use e2e::{Shape, TestApp, eventually, new_id};
use serde_json::json;
use shared::Conversation;
use shared::ids::Subject;
use shared::limits::PARTITIONS_DEFAULT;

e2e::real_scenarios!(groups_destroyed_under_load, a_partition_whose_stream_is_gone_stops_alone_and_says_so,);

async fn groups_destroyed_under_load() {
    const ROUNDS: usize = 4;
    let app = TestApp::real(Shape::default()).await;
    let pairs = Pair::of(&app.users(11).await, 50);
    let traffic = Traffic::start(&pairs, 16).await;
    let mut destroyed = 0;
    for _ in 0..ROUNDS {
        traffic.go_on_for(300).await;
        destroyed += app.processes().destroy_groups().await;
    }
    traffic.go_on_for(300).await;
    let sent = traffic.end().await;
    assert!(destroyed >= 2 * usize::from(PARTITIONS_DEFAULT), "{destroyed} groups were destroyed");
    assert_all_visible(&pairs, &sent).await;
    app.finish().await;
}

/// What was in it is lost, as far as anybody can tell: nothing is begun in its place, and everything else goes on.
async fn a_partition_whose_stream_is_gone_stops_alone_and_says_so() {
    let app = TestApp::real(Shape::default()).await;
    let users = app.users(6).await;
    let pairs = Pair::of(&users, 15);
    let partition_of = |Pair { sender, recipient }: &Pair| {
        let name = |text: &str| text.parse().expect("a name");
        let pair = Conversation::between(&name(&sender.name), &name(&recipient.name)).expect("two names");
        Subject::Conversation(pair).partition(PARTITIONS_DEFAULT)
    };
    let lost = partition_of(&pairs[0]);
    let (stopped, others): (Vec<_>, Vec<_>) = pairs.into_iter().partition(|pair| partition_of(pair) == lost);
    for Pair { sender, recipient } in &stopped {
        sender.send(recipient, "before").await;
        assert_eq!(recipient.conversation(sender).await.len(), 1);
    }
    app.processes().rename_stream(lost, "events", "lost").await;
    let said = format!("the log is damaged: the stream of partition {lost} is gone with its events");
    for name in ["projector-1", "projector-2"] {
        let operations = app.processes().operations_of(name).await;
        eventually("it is told", async || {
            let ready = operations.get("/readyz").send().await;
            (ready.status == 503 && ready.json()["waiting_for"] == json!([said])).then_some(())
        })
        .await;
    }
    let status = app.processes().status().await;
    let partitions = status["generations"][0]["partitions"].as_array().expect("partitions");
    assert!(partitions.iter().all(|one| one["loss"].is_object() == (one["partition"] == lost)), "{status}");

    let traffic = Traffic::start(&others, 8).await;
    traffic.go_on_for(100).await;
    for Pair { sender, recipient } in &stopped {
        let refused = sender.put_message(new_id(), recipient, "into the void").once().await;
        assert_eq!(refused.expect_problem(500, "internal")["outcome"], "not_applied");
    }
    let sent = traffic.end().await;
    assert_all_visible(&others, &sent).await;

    app.processes().rename_stream(lost, "lost", "events").await;
    for Pair { sender, recipient } in &stopped {
        assert_eq!(sender.send(recipient, "after").await["seq"], 2, "nothing was begun in its place");
        assert_eq!(recipient.conversation(sender).await.len(), 2);
    }
    for name in ["projector-1", "projector-2"] {
        app.processes().ready(name).await;
    }
    app.finish().await;
}
