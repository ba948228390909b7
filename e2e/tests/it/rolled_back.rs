//! The log is put back from an older copy, or is empty, beside views that have seen more of it: a row of
//! docs/faults.md. What has lost events stops and says so; everything else goes on, and nothing is overwritten.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use e2e::comparison::spoil;
use e2e::traffic::{Pair, Traffic, assert_all_visible};
use e2e::{Shape, TestApp, User, eventually, seqs};
use serde_json::{Value, json};
use shared::Conversation;
use shared::ids::Subject;
use shared::limits::{ARCHIVE_BLOCK_ENTRIES, PARTITIONS_DEFAULT};
use xtask::servers::{Options, Redis};

use crate::outage::{own_redis, start};

e2e::real_scenarios!(
    a_log_that_was_put_back_stops_where_it_lost_events,
    an_empty_log_beside_views_is_not_followed,
    what_the_log_has_lost_is_appended_again_and_nothing_is_overwritten,
    what_only_the_archive_has_is_appended_again_and_the_views_go_on,
);

pub(crate) const PROJECTORS: [&str; 2] = ["projector-1", "projector-2"];

pub(crate) fn partition_of(Pair { sender, recipient }: &Pair) -> u16 {
    let name = |text: &str| text.parse().expect("a name");
    let pair = Conversation::between(&name(&sender.name), &name(&recipient.name)).expect("two names");
    Subject::Conversation(pair).partition(PARTITIONS_DEFAULT)
}

pub(crate) fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a directory");
    for entry in fs::read_dir(from).expect("a directory") {
        let entry = entry.expect("a file");
        let to = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).expect("a copy");
        }
    }
}

/// The same Redis, with this copy of its data.
pub(crate) async fn replaced(mut redis: Redis, options: &Options, copy: &Path) -> Redis {
    redis.kill().expect("it ran");
    drop(redis);
    fs::remove_dir_all(&options.dir).expect("it can be removed");
    fs::rename(copy, &options.dir).expect("the copy is put in its place");
    start(options.clone()).await
}

/// `/readyz` of a projector says this of the log.
async fn told(app: &TestApp, projector: &str, said: &str) {
    let operations = app.processes().operations_of(projector).await;
    eventually(&format!("{projector}: {said}"), async || {
        let ready = operations.get("/readyz").try_send().await.ok()?;
        let said = format!("the log is damaged: {said}");
        (ready.status == 503 && ready.json()["waiting_for"] == json!([said])).then_some(())
    })
    .await;
}

/// Those that `projector status` says it of.
async fn lost(app: &TestApp) -> Vec<Value> {
    let status = app.processes().status().await;
    let partitions = status["generations"][0]["partitions"].as_array().expect("partitions");
    partitions.iter().filter(|one| one["loss"].is_object()).cloned().collect()
}

async fn a_log_that_was_put_back_stops_where_it_lost_events() {
    let (redis, options, dir) = own_redis().await;
    let app = TestApp::real(Shape { redis_url: Some(redis.url()), ..Shape::default() }).await;
    let pairs = Pair::of(&app.users(6).await, 15);
    let traffic = Traffic::start(&pairs, 8).await;
    traffic.go_on_for(200).await;
    let sent = traffic.end().await;
    assert_all_visible(&pairs, &sent).await;
    let older = dir.path().join("older");
    copy(&options.dir, &older);
    let partition = partition_of(&pairs[0]);
    let (stopped, others): (Vec<_>, Vec<_>) =
        pairs.into_iter().partition(|pair| partition_of(pair) == partition);
    let Pair { sender, recipient } = &stopped[0];
    for n in 1..=3 {
        sender.send(recipient, &format!("lost {n}")).await;
    }
    let before = recipient.conversation(sender).await;
    let seen = app.processes().status().await["generations"][0]["partitions"][usize::from(partition)]["head"]
        .as_u64()
        .expect("a number");

    let held = app.processes().entries(partition).await;
    let _redis = replaced(redis, &options, &older).await;
    let said = format!("partition {partition} ends at offset {}, and the views have seen {seen}", seen - 3);
    for projector in PROJECTORS {
        told(&app, projector, &said).await;
    }
    let loss = json!({ "what": "back", "ends": seen - 3, "seen": seen });
    let told_of = lost(&app).await;
    assert_eq!((told_of.len(), &told_of[0]["partition"], &told_of[0]["loss"]), (1, &json!(partition), &loss));

    // The others go on, and a projector that is started now does not follow either.
    app.processes().kill("projector-1").await;
    app.processes().start_again("projector-1").await;
    let traffic = Traffic::start(&others, 8).await;
    traffic.go_on_for(100).await;
    for sent in traffic.end().await {
        let Pair { sender, recipient } = &others[sent.pair];
        assert!(recipient.conversation(sender).await.contains(&sent.message), "{sent:?}");
    }
    told(&app, "projector-1", &said).await;
    let logs = app.processes().logs().await;
    let alarms = |name| logs[name].matches("the log has lost events that were seen of it").count();
    assert_eq!(PROJECTORS.map(alarms), [2, 1], "once a minute for each process");

    app.processes().put_back(partition, held).await;
    for projector in PROJECTORS {
        app.processes().ready(projector).await;
    }
    assert_eq!(sender.send(recipient, "after").await["seq"], before.len() as u64 + 1);
    let after = recipient.conversation(sender).await;
    assert_eq!(after[..before.len()], before, "nothing has changed");
    assert_eq!(lost(&app).await, [] as [Value; 0]);
    app.finish().await;
}

async fn an_empty_log_beside_views_is_not_followed() {
    let (mut redis, options, dir) = own_redis().await;
    let shape = Shape { redis_url: Some(redis.url()), query_apis: 1, command_apis: 1, ..Shape::default() };
    let app = TestApp::real(shape).await;
    let (samer, lena) = (app.register("samer").await, app.register("lena").await);
    for n in 1..=3 {
        samer.send(&lena, &format!("message {n}")).await;
    }
    let before = lena.conversation(&samer).await;
    assert_eq!(seqs(&before), [1, 2, 3]);
    redis.kill().expect("it ran");
    drop(redis);
    let kept = dir.path().join("kept");
    fs::rename(&options.dir, &kept).expect("it is put aside");
    let redis = start(options.clone()).await;

    // Who knew the log refuses another; who comes now asks the views.
    for name in ["projector-1", "command-api-1"] {
        app.processes().kill(name).await;
    }
    app.processes().restart("command-api-1").await;
    app.processes().start_again("projector-1").await;
    let operations = app.processes().operations_of("projector-1").await;
    eventually("the loss is told", async || {
        let ready = operations.get("/readyz").try_send().await.ok()?;
        let waiting_for = ready.json()["waiting_for"][0].as_str().unwrap_or_default().to_owned();
        waiting_for.starts_with("the log is damaged: partition ").then_some(())
    })
    .await;
    let told_of = lost(&app).await;
    assert_eq!(told_of.len(), usize::from(PARTITIONS_DEFAULT), "all of them: {told_of:?}");
    let loss = |what: &str| told_of.iter().filter(|one| one["loss"]["what"] == what).collect::<Vec<_>>();
    assert!(loss("back").iter().all(|one| one["loss"]["ends"] == 0), "{told_of:?}");
    let seen: u64 = loss("back").iter().map(|one| one["loss"]["seen"].as_u64().expect("a number")).sum();
    assert_eq!(seen, 5, "two users and three messages: {told_of:?}");
    assert_eq!(loss("back").len() + loss("other").len(), told_of.len());

    // What is appended to it is not written over what the views have.
    let (one, other) = (app.register("samer").await, app.register("lena").await);
    assert_eq!(one.send(&other, "of another log").await["seq"], 1);
    assert_eq!(lost(&app).await.len(), usize::from(PARTITIONS_DEFAULT));

    let _redis = replaced(redis, &options, &kept).await;
    for name in ["command-api-1", "projector-1"] {
        app.processes().kill(name).await;
        app.processes().restart(name).await;
    }
    for name in ["query-api-1", "projector-2"] {
        app.processes().ready(name).await;
    }
    assert_eq!(lena.conversation(&samer).await, before);
    app.finish().await;
}

/// The log was put back and has gone on before anybody looked.
async fn what_the_log_has_lost_is_appended_again_and_nothing_is_overwritten() {
    let (redis, options, dir) = own_redis().await;
    let app = TestApp::real(Shape { redis_url: Some(redis.url()), ..Shape::default() }).await;
    let (samer, lena) = (app.register("samer").await, app.register("lena").await);
    for n in 1..=3 {
        samer.send(&lena, &format!("kept {n}")).await;
    }
    assert_eq!(lena.conversation(&samer).await.len(), 3);
    let older = dir.path().join("older");
    copy(&options.dir, &older);
    let (omar, lost) = say_what_is_lost_then(&app, &samer, &lena).await;

    let mut redis = replaced(redis, &options, &older).await;
    let again = eventually("the log is back", async || {
        let id = e2e::new_id();
        let answer = samer.put_message(id, &lena, "in the place of a lost one").once().await;
        (answer.status == 201).then(|| answer.json())
    })
    .await;
    assert_eq!(again["seq"], 4);
    let partition = partition_of(&Pair { sender: samer.clone(), recipient: lena.clone() });
    let said = eventually("it is told", async || {
        let told_of = self::lost(&app).await;
        told_of.into_iter().find(|one| one["partition"] == partition)
    })
    .await;
    assert_eq!(said["loss"]["what"], "back");
    let page = eventually("readers are told that it cannot be known", async || {
        let page = lena.page(&samer, "").await.expect(200);
        (page.header("chat-behind") == Some("unknown")).then(|| page.items())
    })
    .await;
    assert_eq!(page.len(), 6, "as the views are");
    assert_eq!(page[3]["content"], "lost 1", "nothing is overwritten");

    let other_zoe = app.register("zoe").await;
    let refused = app.processes().projector(&["rebuild"]).await;
    assert!(!refused.status.success() && text(&refused.stderr).contains("`projector repair` first"));
    let dry = repair(&app, &[]).await;
    assert_eq!((ids(&dry["messages"]).len(), &dry["registered_again"]), (lost.len() + 1, &json!(["zoe"])));
    let said = json!([dry["users"], dry["without_password"], dry["repaired"]]);
    assert_eq!(said, json!([["omar"], [], null]));
    let done = repair(&app, &["--apply"]).await;
    let epoch = done["repaired"]["epoch"].as_str().expect("an epoch").to_owned();
    assert!(epoch.ends_with(".1"), "{done}");
    assert_eq!(done["repaired"]["events"], 6, "four messages, a user and a mark: {done}");
    assert_eq!(repair(&app, &["--apply"]).await["partitions"], json!({}), "once is enough");

    read_new_views(&app).await;
    let shown = eventually("the new views are read", async || {
        let shown = lena.conversation(&samer).await;
        (shown.len() == 7).then_some(shown)
    })
    .await;
    assert_eq!(seqs(&shown), (1..=7).collect::<Vec<_>>());
    assert_eq!(shown[3], again);
    assert_eq!(ids(&json!(shown[4..])), ids(&json!(lost[..3])));
    assert_eq!(ids(&json!(lena.conversation(&omar).await)), ids(&json!(lost[3..])));
    clients_find_it_as_it_was(&app, &samer, &lena, &shown[4]).await;
    assert_eq!(other_zoe.conversation(&lena).await, [] as [Value; 0], "what is another's");

    // It is the same log to whoever knew it.
    redis.kill().expect("it ran");
    drop(redis);
    let _redis = start(options).await;
    eventually("service is back", async || {
        let answer = samer.put_message(e2e::new_id(), &lena, "after").once().await;
        (answer.status == 201).then_some(())
    })
    .await;
    assert_eq!(lena.conversation(&samer).await.len(), 8);
    let verified = app.processes().verify(&[]).await;
    assert!(verified.status.success(), "{}", text(&verified.stdout));
    app.finish().await;
}

/// The user who was lost, and a message whose sender repeats it.
async fn clients_find_it_as_it_was(app: &TestApp, samer: &User, lena: &User, given_back: &Value) {
    // With the password that the archive had.
    app.log_in("omar").await;
    let body = json!({ "username": "omar", "password": "somebody else's" });
    app.post("/register").json(&body).send().await.expect_problem(409, "username_taken");
    let id = given_back["id"].as_str().expect("an id").parse().expect("an id");
    let repeated = samer.put_message(id, lena, "lost 1").send().await;
    assert_eq!((repeated.status, &repeated.json()), (200, given_back), "there is no second one");
}

/// Three messages, a user with one of his own, and a mark; all of it is in the views.
async fn say_what_is_lost_then(app: &TestApp, samer: &User, lena: &User) -> (User, Vec<Value>) {
    let mut lost = Vec::new();
    for n in 1..=3 {
        lost.push(samer.send(lena, &format!("lost {n}")).await);
    }
    let omar = app.register("omar").await;
    lost.push(omar.send(lena, "lost too").await);
    let zoe = app.register("zoe").await;
    zoe.send(lena, "of the first one of this name").await;
    lena.mark_read(samer, 5).await;
    assert_eq!(lena.conversation(samer).await.len(), 6);
    for peer in [&omar, &zoe] {
        assert_eq!(lena.conversation(peer).await.len(), 1);
    }
    eventually("all of it is in the views", async || (app.standing().await.lag == 0).then_some(())).await;
    archived(app).await;
    (omar, lost)
}

/// The archive has all that the log has.
pub(crate) async fn archived(app: &TestApp) {
    eventually("all of it is archived", async || {
        let status = app.processes().status().await;
        let partitions = status["generations"][0]["partitions"].as_array().expect("partitions");
        let archived = status["archive"].as_array().expect("partitions");
        let mut both = partitions.iter().zip(archived);
        // In one that lost its only event there is nothing to be archived.
        both.all(|(one, kept)| one["head"] == 0 || one["head"] == kept["archived"]).then_some(())
    })
    .await;
}

/// The views of a repaired log, and all of it archived.
pub(crate) async fn read_new_views(app: &TestApp) {
    for arguments in [&["rebuild"][..], &["serve", "2"], &["drop", "1"]] {
        let output = app.processes().projector(arguments).await;
        assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
    }
    for projector in PROJECTORS {
        app.processes().ready(projector).await;
    }
    archived(app).await;
}

/// A whole block, which is lost by the archive, and nothing of it by the log.
const KEPT: usize = ARCHIVE_BLOCK_ENTRIES as usize;

/// The archive was faster than the views.
async fn what_only_the_archive_has_is_appended_again_and_the_views_go_on() {
    let (redis, options, dir) = own_redis().await;
    let shape = Shape { redis_url: Some(redis.url()), query_apis: 1, command_apis: 1, ..Shape::default() };
    let app = TestApp::real(shape).await;
    let (samer, lena) = (app.register("samer").await, app.register("lena").await);
    for n in 1..=KEPT {
        samer.send(&lena, &format!("kept {n}")).await;
    }
    eventually("all of it is in the views", async || (app.standing().await.lag == 0).then_some(())).await;
    let older = dir.path().join("older");
    copy(&options.dir, &older);
    let partition = partition_of(&Pair { sender: samer.clone(), recipient: lena.clone() });
    app.processes().withhold(partition).await;
    let mut lost = Vec::new();
    for n in 1..=3 {
        lost.push(samer.send(&lena, &format!("lost {n}")).await);
    }
    archived(&app).await;

    let _redis = replaced(redis, &options, &older).await;
    let loss = eventually("it is told", async || {
        let status = app.processes().status().await;
        let archive = status["archive"].as_array()?.clone();
        archive.into_iter().find(|one| one["loss"].is_object())
    })
    .await;
    let ends = loss["loss"]["ends"].as_u64().expect("a number");
    assert_eq!(loss["loss"], json!({ "what": "archived", "ends": ends, "archived": ends + 3 }));
    assert_eq!(loss["partition"], partition);
    let said = format!("partition {partition} ends at offset {ends}, and the archive has {}", ends + 3);
    eventually("whoever archives it is not ready", async || {
        let mut told = String::new();
        for projector in PROJECTORS {
            let operations = app.processes().operations_of(projector).await;
            told += &operations.get("/readyz").try_send().await.ok()?.json()["waiting_for"].to_string();
        }
        told.contains(&said).then_some(())
    })
    .await;
    let again = samer.send(&lena, "in the place of a lost one").await;
    let shown = lena.conversation(&samer).await;
    assert_eq!(shown.len(), KEPT + 1, "views have seen nothing of what is lost");

    damage_the_first_block(&app, partition).await;
    let dry = repair(&app, &[]).await;
    assert_eq!(ids(&dry["messages"]), ids(&json!(lost)));
    assert_eq!(dry["unreadable_blocks"], json!([[partition, 0]]));
    refused_beside_another(&app).await;
    assert_eq!(repair(&app, &["--apply"]).await["repaired"]["events"], 3);
    assert_eq!(repair(&app, &["--apply"]).await["partitions"], json!({}), "once is enough");
    let shown = eventually("the views have it", async || {
        let shown = lena.conversation(&samer).await;
        (shown.len() == KEPT + 4).then_some(shown)
    })
    .await;
    assert_eq!((&shown[KEPT], ids(&json!(shown[KEPT + 1..]))), (&again, ids(&json!(lost))));
    for projector in PROJECTORS {
        app.processes().ready(projector).await;
    }
    archived(&app).await;
    let verified = app.processes().verify(&[]).await;
    assert!(verified.status.success(), "{}", text(&verified.stdout));
    finish_a_repair_that_was_cut_short(&app, &samer, &lena).await;
    a_half_written_end_hides_nothing(&app, partition).await;
    app.finish().await;
}

/// Two would append twice what is too old to be recognised.
async fn refused_beside_another(app: &TestApp) {
    let taken = "INSERT INTO {keyspace}.locks (name, holder) VALUES ('rebuild', 'another') IF NOT EXISTS";
    spoil(app.processes(), &[taken]).await;
    let refused = app.processes().projector(&["repair", "--apply"]).await;
    assert!(!refused.status.success() && text(&refused.stderr).contains("is under way"), "{refused:?}");
    spoil(app.processes(), &["DELETE FROM {keyspace}.locks WHERE name = 'rebuild' IF EXISTS"]).await;
}

async fn damage_the_first_block(app: &TestApp, partition: u16) {
    let place = format!("log_partition = {partition} AND span = 0 AND block = 0 AND part = 0");
    let update = format!("UPDATE {{keyspace}}.archive USING TIMESTAMP 999 SET length = 1 WHERE {place}");
    spoil(app.processes(), &[&update]).await;
}

/// By whoever died while he wrote it.
async fn a_half_written_end_hides_nothing(app: &TestApp, partition: u16) {
    archived(app).await;
    // Nobody writes it again.
    let (later, block) = (1_u64 << 60, format!("{partition}, 0, 1"));
    let columns = "log_partition, span, block, part, length, parts";
    let torn = [(0, KEPT), (1, 1)].map(|(part, length)| {
        let values = format!("{block}, {part}, {length}, 2");
        format!("INSERT INTO {{keyspace}}.archive ({columns}) VALUES ({values}) USING TIMESTAMP {later}")
    });
    let bytes = format!(
        "UPDATE {{keyspace}}.archive USING TIMESTAMP {later} SET bytes = 0x00 \
         WHERE log_partition = {partition} AND span = 0 AND block = 1 AND part = 1"
    );
    spoil(app.processes(), &[&torn[0], &torn[1], &bytes]).await;
    assert_eq!(repair(app, &[]).await["partitions"], json!({}));
    assert_eq!(app.processes().status().await["archive"][usize::from(partition)]["loss"], Value::Null);
}

/// Killed between the two steps of its end.
async fn finish_a_repair_that_was_cut_short(app: &TestApp, samer: &User, lena: &User) {
    let before = lena.conversation(samer).await;
    app.processes().begin_epoch().await;
    eventually("the views stand still", async || {
        (lost(app).await.len() == usize::from(PARTITIONS_DEFAULT)).then_some(())
    })
    .await;
    let resumed = repair(app, &["--apply"]).await["resumed"].clone();
    assert_eq!(resumed.as_array().map(Vec::len), Some(usize::from(PARTITIONS_DEFAULT)));
    assert_eq!(repair(app, &["--apply"]).await["resumed"], json!([]));
    assert_eq!(lost(app).await, [] as [Value; 0]);
    samer.send(lena, "after").await;
    eventually("the views go on", async || {
        (lena.conversation(samer).await.len() == before.len() + 1).then_some(())
    })
    .await;
    for projector in PROJECTORS {
        app.processes().ready(projector).await;
    }
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn ids(messages: &Value) -> BTreeSet<String> {
    let messages = messages.as_array().expect("a list").iter();
    messages.map(|message| message["id"].as_str().expect("an id").to_owned()).collect()
}

pub(crate) async fn repair(app: &TestApp, arguments: &[&str]) -> Value {
    app.processes().done(&[&["repair"], arguments].concat()).await
}
