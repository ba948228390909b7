//! Another generation of views: built beside the one that is read, served, served back, dropped; nobody who reads or
//! sends notices.

use std::process::Output;
use std::time::Duration;

use e2e::comparison::{has_views, spoil};
use e2e::process::Process;
use e2e::traffic::{Pair, Readers, Traffic, assert_all_visible, assert_unnoticed};
use e2e::{Backend, TestApp, eventually, within};
use serde_json::{Value, json};
use shared::limits::REBUILD_CAUGHT_UP;

use crate::rolled_back::partition_of;

e2e::real_scenarios!(
    a_generation_is_built_and_served_and_dropped_under_load,
    every_instance_follows_a_switch,
    what_served_before_is_dropped_when_its_time_is_over,
    a_killed_rebuild_is_gone_on_with_and_a_second_one_is_refused,
    a_rebuild_is_paused_resumed_and_cancelled,
    killed_at_every_stage_it_is_finished_right,
    planted_rows_keep_a_generation_from_serving,
);

/// Readers follow this soon.
const FOLLOWED_WITHIN: Duration = Duration::from_secs(1);

fn output(output: &Output) -> String {
    let text = [&output.stdout[..], &output.stderr].concat();
    String::from_utf8_lossy(&text).into_owned()
}

async fn refused(app: &TestApp, command: &[&str], why: &str) {
    let answer = app.processes().projector(command).await;
    assert!(!answer.status.success(), "{command:?}: {}", output(&answer));
    assert!(output(&answer).contains(why), "{command:?}: {}", output(&answer));
}

/// The states of the generations, by number.
async fn states(app: &TestApp) -> Vec<String> {
    let listed = app.processes().done(&["generations"]).await;
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
    assert_eq!(app.processes().done(&["rebuild"]).await["generation"], 2);
    assert_eq!(states(&app).await, ["serving", "projecting"]);
    traffic.go_on_for(50).await;
    for (serving, projecting) in [("2", "1"), ("1", "2"), ("2", "1")] {
        assert_eq!(app.processes().done(&["serve", serving]).await["state"], "serving");
        traffic.go_on_for(50).await;
        tokio::time::sleep(FOLLOWED_WITHIN).await;
        refused(&app, &["drop", serving], "so it cannot be dropped").await;
        traffic.go_on_for(50).await;
        assert_eq!(states(&app).await[projecting.parse::<usize>().unwrap() - 1], "projecting");
    }
    assert_eq!(app.processes().done(&["drop", "1"]).await["state"], "dropped");
    traffic.go_on_for(50).await;
    assert_eq!(states(&app).await, ["dropped", "serving"]);
    refused(&app, &["serve", "1"], "generation 1 is dropped, so it cannot serve").await;
    app.processes().make_group(partition_of(&pairs[0]), 1).await;
    assert_eq!(app.processes().done(&["drop", "1"]).await["state"], "dropped");
    nothing_is_left_of(&app, 1).await;

    let (sent, reads) = (traffic.end().await, reads.end().await);
    assert_unnoticed(&sent, &reads);
    assert_all_visible(&pairs, &sent).await;
    let status = app.processes().status().await;
    assert_eq!(status["generations"].as_array().unwrap().len(), 1, "{status}");
    app.finish().await;
}

async fn every_instance_follows_a_switch() {
    let app = TestApp::start(Backend::Real).await;
    let (samer, lena) = (app.register("samer").await, app.register("lena").await);
    samer.send(&lena, "hi").await;
    app.processes().done(&["rebuild"]).await;
    // What tells them apart.
    let other = "UPDATE {keyspace}_g2.timeline USING TIMESTAMP 9999 SET content = 'ho' \
                 WHERE conversation = 'lena:samer' AND bucket = 0 AND seq = 1";
    spoil(app.processes(), &[other]).await;
    for (serving, content) in [("2", "ho"), ("1", "hi"), ("2", "ho")] {
        app.processes().done(&["serve", serving]).await;
        eventually("both follow", async || {
            for name in ["query-api-1", "query-api-2"] {
                let reader = samer.at(&app.processes().direct(name).await);
                if reader.conversation(&lena).await[0]["content"] != content {
                    return None;
                }
            }
            Some(())
        })
        .await;
    }
    app.finish().await;
}

async fn what_served_before_is_dropped_when_its_time_is_over() {
    let app = TestApp::start(Backend::Real).await;
    let (samer, lena) = (app.register("samer").await, app.register("lena").await);
    samer.send(&lena, "hi").await;
    app.processes().done(&["rebuild"]).await;
    app.processes().done(&["serve", "2"]).await;
    let kept =
        async |number: usize| app.processes().done(&["generations"]).await[number - 1]["kept_until"].clone();
    assert!(kept(1).await.is_string() && kept(2).await.is_null());
    app.processes().done(&["serve", "1"]).await;
    let until = kept(2).await;
    app.processes().done(&["serve", "1", "--keep", "48h"]).await;
    assert!(kept(1).await.is_null() && kept(2).await.as_str() > until.as_str());

    // A power cut may have the register forget its last seconds: what serves again is not removed.
    let mut dropping = app.processes().begin("drop", &["drop", "2"]);
    eventually("it is dropped", async || (states(&app).await[1] == "dropping").then_some(())).await;
    let forgotten = "UPDATE {keyspace}.generations SET serving = 2 WHERE register = 'views' IF serving = 1";
    let before = "UPDATE {keyspace}.generations SET state = 'projecting' WHERE register = 'views' AND number = 2 \
                  IF state = 'dropping'";
    spoil(app.processes(), &[forgotten, before]).await;
    assert!(!ended(&mut dropping).await, "{}", dropping.output());
    assert_eq!(states(&app).await, ["projecting", "serving"]);
    assert!(has_views(app.processes(), 2).await);
    assert_eq!(samer.conversation(&lena).await.len(), 1);
    app.processes().done(&["serve", "1"]).await;

    app.processes().done(&["serve", "2", "--keep", "1s"]).await;
    eventually("its time is over", async || (states(&app).await[0] == "dropping").then_some(())).await;
    for name in ["projector-1", "projector-2"] {
        app.processes().kill(name).await;
    }
    assert_eq!(states(&app).await, ["dropping", "serving"]);
    for name in ["projector-1", "projector-2"] {
        app.processes().restart(name).await;
    }
    within(Duration::from_secs(60), "it is dropped", async || {
        (states(&app).await == ["dropped", "serving"]).then_some(())
    })
    .await;
    nothing_is_left_of(&app, 1).await;
    lena.send(&samer, "ho").await;
    assert_eq!(samer.conversation(&lena).await.len(), 2);
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
    refused(&app, &["rebuild"], "another rebuild or repair is under way").await;
    refused(&app, &["serve", "2"], "generation 2 is building, so it cannot serve").await;
    first.kill().unwrap();

    let rebuilt = within(Duration::from_secs(30), "another one goes on", async || {
        let answer = app.processes().projector(&["rebuild", "--json"]).await;
        let is_held = output(&answer).contains("another rebuild or repair is under way");
        assert!(is_held || answer.status.success(), "{}", output(&answer));
        (!is_held).then(|| serde_json::from_slice::<Value>(&answer.stdout).unwrap())
    })
    .await;
    assert_eq!(rebuilt["generation"], 2, "{rebuilt}");
    app.processes().done(&["serve", "2"]).await;
    tokio::time::sleep(FOLLOWED_WITHIN).await;
    assert_eq!(samer.conversation(&lena).await.len(), 20);
    app.finish().await;
}

async fn a_rebuild_is_paused_resumed_and_cancelled() {
    let app = TestApp::start(Backend::Real).await;
    let (samer, lena) = (app.register("samer").await, app.register("lena").await);
    for _ in 0..45 {
        samer.send(&lena, "hi").await;
    }
    refused(&app, &["rebuild", "--pause"], "nothing is being rebuilt").await;
    // Who lacks nothing older has caught up.
    tokio::time::sleep(REBUILD_CAUGHT_UP).await;
    let mut rebuild = app.processes().begin("rebuild", &["rebuild", "--rate", "1"]);
    let says = async |rebuild: &Process, what: &str| {
        let lines = rebuild.output().lines().count();
        eventually(what, async || {
            rebuild.output().lines().skip(lines).any(|line| line.contains(what)).then_some(())
        })
        .await;
    };
    says(&rebuild, "generation 2 building: ").await;
    assert_eq!(app.processes().done(&["rebuild", "--pause"]).await["state"], "paused");
    says(&rebuild, "generation 2 paused: ").await;
    assert_eq!(app.processes().done(&["rebuild", "--resume"]).await["state"], "building");
    says(&rebuild, "generation 2 building: ").await;
    assert_eq!(app.processes().done(&["rebuild", "--cancel"]).await["state"], "dropped");
    assert!(!ended(&mut rebuild).await, "{}", rebuild.output());
    assert!(rebuild.output().contains("so it cannot be built"), "{}", rebuild.output());
    assert_eq!(states(&app).await, ["serving", "dropped"]);
    nothing_is_left_of(&app, 2).await;

    // Nobody was alarmed by what he was told to do.
    let logs = app.processes().logs().await;
    for (name, log) in logs.iter().filter(|(name, _)| name.starts_with("projector")) {
        let alarm = log.lines().find(|line| line.contains("\"level\":\"ERROR\""));
        assert_eq!(alarm, None, "{name}");
    }

    // A number is never used twice.
    assert_eq!(app.processes().done(&["rebuild"]).await["generation"], 3);
    assert_eq!(samer.conversation(&lena).await.len(), 45);
    app.finish().await;
}

/// But its number.
async fn nothing_is_left_of(app: &TestApp, generation: u32) {
    assert!(!has_views(app.processes(), generation).await, "its tables are there");
    assert_eq!(app.processes().kept_in_log_for(generation).await, [""; 0]);
}

/// A killed command holds the right to rebuild for 10 s; here it does not.
pub(crate) async fn forget_claim(app: &TestApp) {
    spoil(app.processes(), &["DELETE FROM {keyspace}.locks WHERE name = 'rebuild' IF EXISTS"]).await;
}

/// The last share of the events that a rebuild has told; `None`: it has told something else last.
fn percent(rebuild: &Process) -> Option<u64> {
    let output = rebuild.output();
    let told = output.lines().last()?.strip_prefix("generation 2 building: ")?;
    told.split(' ').next()?.parse().ok()
}

async fn killed_at_every_stage_it_is_finished_right() {
    const MESSAGES: usize = 400;
    const PROJECTORS: [&str; 2] = ["projector-1", "projector-2"];
    let app = TestApp::start(Backend::Real).await;
    let pairs = Pair::of(&app.users(4).await, 6);
    let traffic = Traffic::start(&pairs, 8).await;
    traffic.go_on_for(MESSAGES).await;
    let sent = traffic.end().await;

    // As slow as is needed to be seen at each: a line comes once a second.
    for (share, rate, running) in [(10, "30", 2), (50, "30", 2), (95, "4", 2), (99, "1", 1)] {
        let (running, others) = PROJECTORS.split_at(running);
        for name in others {
            app.processes().kill(name).await;
        }
        let mut rebuild = app.processes().begin(&format!("rebuild-{share}"), &["rebuild", "--rate", rate]);
        within(Duration::from_secs(60), "it is so far", async || (percent(&rebuild)? >= share).then_some(()))
            .await;
        rebuild.kill().unwrap();
        for name in running {
            app.processes().kill(name).await;
        }
        assert!(!rebuild.output().contains("events folded: "), "{}", rebuild.output());
        // Else projectors would go on while nobody looks.
        assert_eq!(app.processes().done(&["rebuild", "--pause"]).await["state"], "paused");
        for name in PROJECTORS {
            app.processes().restart(name).await;
        }
        forget_claim(&app).await;
    }
    let mut rebuild = app.processes().begin("rebuild-compared", &["rebuild", "--rate", "20"]);
    within(Duration::from_secs(30), "it compares", async || {
        rebuild.output().contains("events folded: ").then_some(())
    })
    .await;
    rebuild.kill().unwrap();
    forget_claim(&app).await;
    assert_eq!(states(&app).await, ["serving", "building"]);
    assert_eq!(app.processes().done(&["rebuild"]).await["differences"], 0);

    for pause in [0, 10, 30, 100, 300] {
        assert_eq!(states(&app).await, ["serving", "projecting"]);
        let mut serve = app.processes().begin("serve", &["serve", "2"]);
        tokio::time::sleep(Duration::from_millis(pause)).await;
        // Or it was faster.
        let _ = serve.kill();
        let states_then = states(&app).await;
        let is_either =
            [["serving", "projecting"], ["projecting", "serving"]].iter().any(|is| states_then == *is);
        assert!(is_either, "{states_then:?}");
        assert_all_visible(&pairs, &sent).await;
        for serving in ["2", "1"] {
            assert_eq!(app.processes().done(&["serve", serving]).await["state"], "serving");
        }
    }
    app.processes().done(&["serve", "2"]).await;
    assert_eq!(states(&app).await, ["projecting", "serving"]);
    assert_eq!(app.compare().await["listed"], json!([]));
    tokio::time::sleep(FOLLOWED_WITHIN).await;
    assert_all_visible(&pairs, &sent).await;
    app.finish().await;
}

async fn planted_rows_keep_a_generation_from_serving() {
    let app = TestApp::start(Backend::Real).await;
    let (samer, lena) = (app.register("samer").await, app.register("lena").await);
    for _ in 0..20 {
        samer.send(&lena, "hi").await;
    }
    let mut rebuild = app.processes().begin("rebuild", &["rebuild", "--rate", "2"]);
    eventually("it is being built", async || {
        rebuild.output().contains("generation 2 building: ").then_some(())
    })
    .await;
    // Above the timestamp of whatever a projector will write there.
    let place = "WHERE conversation = 'lena:samer' AND bucket = 0 AND seq =";
    let wrong =
        format!("UPDATE {{keyspace}}_g2.timeline USING TIMESTAMP 9999 SET content = 'forged' {place} 12");
    let missing = format!("DELETE FROM {{keyspace}}_g2.timeline USING TIMESTAMP 9999 {place} 15");
    let extra = "INSERT INTO {keyspace}_g2.timeline (conversation, bucket, seq, id, sender, content, sent_at) \
                 VALUES ('lena:samer', 0, 77, '01KAQ3V6B4Y6V3Z9T8S7R6Q5P4', 'lena', 'forged', 0) USING TIMESTAMP 9999";
    spoil(app.processes(), &[&wrong, &missing, extra]).await;
    // It would compare as slowly.
    rebuild.kill().unwrap();
    forget_claim(&app).await;
    let rebuilt = app.processes().projector(&["rebuild"]).await;
    assert!(!rebuilt.status.success(), "{rebuilt:?}");
    let output = output(&rebuilt);
    for said in [
        "timeline lena:samer 12: other content",
        "timeline lena:samer 15: missing",
        "timeline lena:samer 77: extra: not in the log",
        "3 differences",
        "so it stays building",
    ] {
        assert!(output.contains(said), "{said}: {output}");
    }
    refused(&app, &["serve", "2"], "generation 2 is building, so it cannot serve").await;
    assert_eq!(samer.conversation(&lena).await.len(), 20);
    assert_eq!(app.processes().done(&["rebuild", "--cancel"]).await["state"], "dropped");
    nothing_is_left_of(&app, 2).await;

    // Of one that is complete they are found by whoever compares, and it cannot serve until it is right again.
    app.processes().done(&["rebuild"]).await;
    let planted = extra.replace("_g2", "_g3");
    spoil(app.processes(), &[&planted]).await;
    refused(&app, &["verify", "--generation", "3"], "it is building again, and cannot serve").await;
    refused(&app, &["serve", "3"], "generation 3 is building, so it cannot serve").await;
    refused(&app, &["rebuild"], "so it stays building").await;
    let taken_back = format!("DELETE FROM {{keyspace}}_g3.timeline USING TIMESTAMP 9999 {place} 77");
    spoil(app.processes(), &[&taken_back]).await;
    app.processes().done(&["rebuild"]).await;
    assert_eq!(app.processes().done(&["serve", "3"]).await["state"], "serving");
    assert_eq!(samer.conversation(&lena).await.len(), 20);
    app.finish().await;
}
