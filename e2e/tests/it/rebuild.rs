//! Another generation of views: built beside the one that is read, served, served back, dropped; nobody who reads or
//! sends notices.

use std::process::Output;
use std::time::Duration;

use e2e::process::Process;
use e2e::traffic::{Pair, Readers, Traffic, assert_all_visible, assert_unnoticed};
use e2e::{Backend, TestApp, eventually, within};
use serde_json::Value;

e2e::real_scenarios!(
    a_generation_is_built_and_served_and_dropped_under_load,
    a_killed_rebuild_is_gone_on_with_and_a_second_one_is_refused,
    a_rebuild_is_paused_resumed_and_cancelled,
);

/// Readers follow this soon.
const FOLLOWED_WITHIN: Duration = Duration::from_secs(1);

fn output(output: &Output) -> String {
    let text = [&output.stdout[..], &output.stderr].concat();
    String::from_utf8_lossy(&text).into_owned()
}

async fn done(app: &TestApp, command: &[&str]) -> Value {
    let answer = app.processes().projector(&[command, &["--json"]].concat()).await;
    assert!(answer.status.success(), "{command:?}: {}", output(&answer));
    serde_json::from_slice(&answer.stdout).unwrap_or_else(|error| panic!("{error}: {}", output(&answer)))
}

async fn refused(app: &TestApp, command: &[&str], why: &str) {
    let answer = app.processes().projector(command).await;
    assert!(!answer.status.success(), "{command:?}: {}", output(&answer));
    assert!(output(&answer).contains(why), "{command:?}: {}", output(&answer));
}

/// The states of the generations, by number.
async fn states(app: &TestApp) -> Vec<String> {
    let listed = done(app, &["generations"]).await;
    let listed = listed.as_array().unwrap().iter().zip(1..);
    listed
        .map(|(generation, number)| {
            assert_eq!(generation["number"], number);
            generation["state"].as_str().unwrap().to_owned()
        })
        .collect()
}

async fn a_generation_is_built_and_served_and_dropped_under_load() {
    let app = TestApp::start(Backend::Real).await;
    let pairs = Pair::of(&app.users(4).await, 4);
    let (traffic, reads) = (Traffic::start(&pairs, 4).await, Readers::start(&pairs, 2));
    traffic.go_on_for(200).await;

    refused(&app, &["serve", "2"], "there is no generation 2").await;
    assert_eq!(done(&app, &["rebuild"]).await["generation"], 2);
    assert_eq!(states(&app).await, ["serving", "projecting"]);
    traffic.go_on_for(50).await;
    for (serving, projecting) in [("2", "1"), ("1", "2"), ("2", "1")] {
        assert_eq!(done(&app, &["serve", serving]).await["state"], "serving");
        traffic.go_on_for(50).await;
        tokio::time::sleep(FOLLOWED_WITHIN).await;
        refused(&app, &["drop", serving], "so it cannot be dropped").await;
        traffic.go_on_for(50).await;
        assert_eq!(states(&app).await[projecting.parse::<usize>().unwrap() - 1], "projecting");
    }
    assert_eq!(done(&app, &["drop", "1"]).await["state"], "dropped");
    traffic.go_on_for(50).await;
    assert_eq!(states(&app).await, ["dropped", "serving"]);
    refused(&app, &["serve", "1"], "generation 1 is dropped, so it cannot serve").await;
    assert_eq!(done(&app, &["drop", "1"]).await["state"], "dropped");

    let (sent, reads) = (traffic.end().await, reads.end().await);
    assert_unnoticed(&sent, &reads);
    assert_all_visible(&pairs, &sent).await;
    let status = app.processes().status().await;
    assert_eq!(status["generations"].as_array().unwrap().len(), 1, "{status}");
    app.finish().await;
}

/// The process ends within the time.
async fn ended(process: &mut Process) -> bool {
    let status = within(Duration::from_secs(30), "it ends", async || process.exit_status().unwrap()).await;
    status.success()
}

async fn a_killed_rebuild_is_gone_on_with_and_a_second_one_is_refused() {
    let app = TestApp::start(Backend::Real).await;
    let (samer, lena) = (app.register("samer").await, app.register("lena").await);
    for _ in 0..20 {
        samer.send(&lena, "hi").await;
    }
    // So slow that it is still at it.
    let slow = ["rebuild", "--rate", "1"];
    let mut first = app.processes().begin("rebuild-1", &slow);
    eventually("it tells how far it is", async || {
        first.output().contains("generation 2 building: ").then_some(())
    })
    .await;
    refused(&app, &["rebuild"], "another rebuild is under way").await;
    refused(&app, &["serve", "2"], "generation 2 is building, so it cannot serve").await;
    first.kill().unwrap();

    let rebuilt = within(Duration::from_secs(30), "another one goes on", async || {
        let answer = app.processes().projector(&["rebuild", "--json"]).await;
        let is_held = output(&answer).contains("another rebuild is under way");
        assert!(is_held || answer.status.success(), "{}", output(&answer));
        (!is_held).then(|| serde_json::from_slice::<Value>(&answer.stdout).unwrap())
    })
    .await;
    assert_eq!(rebuilt["generation"], 2, "{rebuilt}");
    done(&app, &["serve", "2"]).await;
    tokio::time::sleep(FOLLOWED_WITHIN).await;
    assert_eq!(samer.conversation(&lena).await.len(), 20);
    app.finish().await;
}

async fn a_rebuild_is_paused_resumed_and_cancelled() {
    let app = TestApp::start(Backend::Real).await;
    let (samer, lena) = (app.register("samer").await, app.register("lena").await);
    for _ in 0..20 {
        samer.send(&lena, "hi").await;
    }
    refused(&app, &["rebuild", "--pause"], "nothing is being rebuilt").await;
    let mut rebuild = app.processes().begin("rebuild", &["rebuild", "--rate", "1"]);
    let says = async |rebuild: &Process, what: &str| {
        let lines = rebuild.output().lines().count();
        eventually(what, async || {
            rebuild.output().lines().skip(lines).any(|line| line.contains(what)).then_some(())
        })
        .await;
    };
    says(&rebuild, "generation 2 building: ").await;
    assert_eq!(done(&app, &["rebuild", "--pause"]).await["state"], "paused");
    says(&rebuild, "generation 2 paused: ").await;
    assert_eq!(done(&app, &["rebuild", "--resume"]).await["state"], "building");
    says(&rebuild, "generation 2 building: ").await;
    assert_eq!(done(&app, &["rebuild", "--cancel"]).await["state"], "dropped");
    assert!(!ended(&mut rebuild).await, "{}", rebuild.output());
    assert!(rebuild.output().contains("so it cannot be built"), "{}", rebuild.output());
    assert_eq!(states(&app).await, ["serving", "dropped"]);

    // A number is never used twice.
    assert_eq!(done(&app, &["rebuild"]).await["generation"], 3);
    assert_eq!(samer.conversation(&lena).await.len(), 20);
    app.finish().await;
}
