//! Redis is emptied beside the views of its log. Whoever registers a known name in the new log is somebody else: he is
//! shown nothing of theirs, whatever order the programs are started in and whatever is repaired.

use std::fs;

use e2e::{Client, Shape, TestApp, User, eventually, new_id};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use xtask::servers::{Options, Redis};

use crate::outage::{own_redis, start};
use crate::rolled_back::{archived, repair, text};

e2e::real_scenarios!(
    who_comes_to_an_emptied_redis_reads_nothing_until_it_is_restored,
    the_views_of_an_emptied_log_are_not_shown_after_a_repair_of_it,
);

/// What Redis answers.
pub(crate) async fn asked(redis: &Redis, command: &str) -> String {
    let mut connection = TcpStream::connect(redis.addr()).await.unwrap();
    connection.write_all(format!("{command}\r\nQUIT\r\n").as_bytes()).await.unwrap();
    let mut answer = String::new();
    connection.read_to_string(&mut answer).await.unwrap();
    answer
}

pub(crate) async fn emptied(mut redis: Redis, options: &Options) -> Redis {
    redis.kill().expect("it ran");
    drop(redis);
    fs::remove_dir_all(&options.dir).expect("it can be removed");
    start(options.clone()).await
}

/// `/readyz` says this.
async fn says(app: &TestApp, name: &str, said: &str) {
    let operations = app.processes().operations_of(name).await;
    let mut last = String::new();
    eventually(&format!("{name}: {said}"), async || {
        let ready = operations.get("/readyz").try_send().await.ok()?;
        let says = format!("{} {}", ready.status, ready.json()["waiting_for"]);
        if says != last {
            eprintln!("{name} says {says}");
            last.clone_from(&says);
        }
        (ready.status == 503 && says.contains(said)).then_some(())
    })
    .await;
}

/// With a password that nobody else has.
async fn stranger(commands: &Client, name: &str) -> User {
    let body = json!({ "username": name, "password": "another password" });
    commands.post("/register").json(&body).once().await.expect(201);
    let answer = commands.post("/login").json(&body).once().await.expect(200).json();
    User::with_token(commands, name, answer["token"].as_str().unwrap())
}

async fn is_told_nothing(reader: &User, peer: &User) {
    is_shown_nothing(reader, peer).await;
    let refused = reader.get("/events").once().await;
    assert_eq!(refused.status, 503, "{refused:?}");
}

async fn is_shown_nothing(reader: &User, peer: &User) {
    let messages = format!("/messages?sender={}&recipient={}", reader.name, peer.name);
    for path in [&messages, &format!("{messages}&before=3"), "/conversations"] {
        let refused = reader.get(path).once().await;
        let codes = ["log_unavailable", "views_unavailable", "starting"];
        assert!(refused.status == 503 && codes.contains(&refused.problem_code().as_str()), "{refused:?}");
    }
}

/// A write is refused, and known not to be done.
async fn is_refused(sender: &User, recipient: &User) {
    let refused = sender.put_message(new_id(), recipient, "to nobody").once().await;
    assert_eq!(refused.expect_problem(503, "log_unavailable")["outcome"], "not_applied");
}

async fn who_comes_to_an_emptied_redis_reads_nothing_until_it_is_restored() {
    let (redis, options, _dir) = own_redis().await;
    let app = TestApp::real(Shape { redis_url: Some(redis.url()), ..Shape::default() }).await;
    let doors = async |number| {
        let door = async |role| app.processes().direct(&format!("{role}-{number}")).await;
        (door("command-api").await, door("query-api").await)
    };
    let ((commands, queries), (new_commands, new_queries)) = (doors(1).await, doors(2).await);
    let (samer, lena) = (app.register("samer").await, app.register("lena").await);
    for n in 1..=3 {
        samer.send(&lena, &format!("message {n}")).await;
    }
    // They are known there.
    samer.at(&commands).send(&lena, "message 4").await;
    let before = lena.at(&queries).conversation(&samer).await;
    archived(&app).await;

    let redis = emptied(redis, &options).await;
    let there_is_none = "there is none";
    for name in ["command-api-1", "query-api-1", "projector-1"] {
        says(&app, name, there_is_none).await;
    }
    is_refused(&samer.at(&commands), &lena).await;
    // As while the log is away.
    let page = lena.at(&queries).page(&samer, "").await.expect(200);
    assert_eq!((page.items().len(), page.header("chat-behind")), (4, Some("unknown")));

    app.processes().terminate("query-api-2").await;
    app.processes().start_again("query-api-2").await;
    says(&app, "query-api-2", "there is none, and the views have seen log ").await;
    app.processes().terminate("command-api-2").await;
    app.processes().restart("command-api-2").await;
    let other_samer = stranger(&new_commands, "samer").await;
    says(&app, "query-api-2", "and the views have seen log ").await;
    for door in [&queries, &new_queries] {
        is_told_nothing(&other_samer.at(door), &lena).await;
    }
    is_refused(&other_samer.at(&commands), &lena).await;
    says(&app, "command-api-1", "and this program began with ").await;

    let _redis = emptied(redis, &options).await;
    let restored = app.processes().projector(&["restore"]).await;
    assert!(restored.status.success(), "{}", text(&restored.stderr));
    let said = text(&restored.stdout);
    assert!(said.contains("start command-apis and projectors again"), "{said}");
    for name in ["query-api-1", "query-api-2", "command-api-1", "projector-1", "projector-2"] {
        app.processes().ready(name).await;
    }
    says(&app, "command-api-2", "start this program again").await;
    app.processes().terminate("command-api-2").await;
    app.processes().restart("command-api-2").await;
    for door in [&queries, &new_queries] {
        let nobody = other_samer.at(door).get("/conversations").once().await;
        nobody.expect_problem(401, "unauthenticated");
    }
    let (samer, lena) = (app.log_in("samer").await, app.log_in("lena").await);
    for door in [&queries, &new_queries] {
        assert_eq!(lena.at(door).conversation(&samer).await, before);
    }
    assert_eq!(samer.send(&lena, "after").await["seq"], 5);
    app.finish().await;
}

async fn the_views_of_an_emptied_log_are_not_shown_after_a_repair_of_it() {
    let (redis, _options, _dir) = own_redis().await;
    let shape = Shape { redis_url: Some(redis.url()), command_apis: 1, query_apis: 1, ..Shape::default() };
    let app = TestApp::real(shape).await;
    let (samer, lena, omar) =
        (app.register("samer").await, app.register("lena").await, app.register("omar").await);
    samer.send(&lena, "of the first samer").await;
    omar.send(&lena, "of omar").await;
    for peer in [&samer, &omar] {
        assert_eq!(lena.conversation(peer).await.len(), 1);
    }
    archived(&app).await;

    // No connection is broken.
    assert_eq!(asked(&redis, "FLUSHALL").await, "+OK\r\n+OK\r\n");
    for name in ["command-api-1", "query-api-1"] {
        says(&app, name, "there is none").await;
    }
    is_refused(&samer, &lena).await;
    for name in ["command-api-1", "query-api-1"] {
        app.processes().terminate(name).await;
    }
    app.processes().start_again("query-api-1").await;
    app.processes().restart("command-api-1").await;
    let commands = app.processes().direct("command-api-1").await;
    let (other_samer, eve) = (stranger(&commands, "samer").await, stranger(&commands, "eve").await);
    eve.send(&other_samer, "for the other samer").await;
    let queries = app.processes().direct("query-api-1").await;
    let other_samer = other_samer.at(&queries);
    is_told_nothing(&other_samer, &lena).await;

    assert!(repair(&app, &["--apply"]).await["repaired"]["epoch"].as_str().unwrap().ends_with(".1"));
    says(&app, "query-api-1", "it was repaired").await;
    is_told_nothing(&other_samer, &lena).await;
    says(&app, "command-api-1", "start this program again").await;
    app.processes().terminate("command-api-1").await;
    app.processes().restart("command-api-1").await;
    for command in [&["rebuild"][..], &["serve", "2"]] {
        let done = app.processes().projector(command).await;
        assert!(done.status.success(), "{command:?}: {}", text(&done.stderr));
    }
    app.processes().ready("query-api-1").await;
    assert_eq!(other_samer.conversation(&lena).await.len(), 0, "what is another's");
    assert_eq!(other_samer.conversation(&eve).await.len(), 1);
    let omar = app.log_in("omar").await;
    assert_eq!(omar.conversation(&lena).await.len(), 1, "given back");

    // The old views would be shown to the same users as the new ones.
    app.processes().done(&["serve", "1"]).await;
    says(&app, "query-api-1", "it was repaired").await;
    is_shown_nothing(&other_samer, &lena).await;
    app.processes().done(&["serve", "2"]).await;
    app.processes().ready("query-api-1").await;
    assert_eq!(other_samer.conversation(&eve).await.len(), 1);
    app.processes().done(&["drop", "1"]).await;
    app.finish().await;
}
