//! Services that are killed, paused and restarted under load: rows of docs/faults.md, and its promises P1 to P5.

use std::collections::BTreeMap;
use std::time::Duration;

use e2e::traffic::{Pair, Readers, Sent, Traffic, assert_all_visible, assert_unnoticed};
use e2e::{Client, InFlight, Role, Shape, TestApp, eventually, seqs};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

e2e::real_scenarios!(
    one_of_each_killed_under_load,
    the_only_command_api_killed_while_sends_run,
    sigterm_under_load_with_a_half_sent_request_open,
    a_projector_paused_and_resumed_under_load,
    rolling_restart_of_everything_under_load,
    projectors_one_four_one_under_load,
    sends_go_on_without_projectors,
);

/// 50 conversations.
async fn pairs(app: &TestApp) -> Vec<Pair> {
    Pair::of(&app.users(11).await, 50)
}

/// Events applied by each projector's consumers, by name.
async fn applied(app: &TestApp) -> Vec<(String, u64)> {
    let status = app.processes().status().await;
    let consumers = status["generations"][0]["consumers"].as_array().expect("consumers").clone();
    let mut applied = BTreeMap::new();
    for consumer in &consumers {
        let (projector, _) = consumer["name"].as_str().expect("a name").rsplit_once('/').expect("NAME/N");
        *applied.entry(projector.to_owned()).or_default() += consumer["applied"].as_u64().expect("a number");
    }
    applied.into_iter().collect()
}

async fn one_of_each_killed_under_load() {
    let app = TestApp::real(Shape::default()).await;
    let pairs = pairs(&app).await;
    let (traffic, readers) = (Traffic::start(&pairs, 16).await, Readers::start(&pairs, 2));
    for name in ["projector-1", "command-api-1", "query-api-1"] {
        traffic.go_on_for(250).await;
        app.processes().kill(name).await;
    }
    traffic.go_on_for(250).await;
    let (sent, reads) = (traffic.end().await, readers.end().await);
    assert!(sent.len() >= 1_000);
    assert_unnoticed(&sent, &reads);
    assert_all_visible(&pairs, &sent).await;

    let settled = async || (app.standing().await.lag == 0).then_some(());
    eventually("the lag is 0", settled).await;
    let applied = applied(&app).await;
    let names: Vec<_> = applied.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["projector-1", "projector-2"]);
    assert!(applied.iter().all(|(_, events)| *events > 0), "{applied:?}");
    app.finish().await;
}

/// A system with one command-api, and 50 conversations whose senders know no other door than that.
async fn with_one_command_api() -> (TestApp, Client, Vec<Pair>) {
    let app = TestApp::real(Shape { command_apis: 1, ..Shape::default() }).await;
    let door = app.processes().direct("command-api-1").await;
    let at_door = |pair: Pair| Pair { sender: pair.sender.at(&door), ..pair };
    let pairs = pairs(&app).await.into_iter().map(at_door).collect();
    (app, door, pairs)
}

/// How many sends met the fault, so that only a repetition made them certain.
fn unanswered(sent: &[Sent]) -> usize {
    sent.iter().filter(|sent| !sent.failures.is_empty()).count()
}

/// Before, in or after the append: the same id again is one message, and the first answer.
async fn the_only_command_api_killed_while_sends_run() {
    const KILLS: usize = 4;
    let (app, _door, pairs) = with_one_command_api().await;
    let traffic = Traffic::start(&pairs, 16).await;
    for _ in 0..KILLS {
        traffic.go_on_for(150).await;
        app.processes().kill("command-api-1").await;
        app.processes().restart("command-api-1").await;
    }
    traffic.go_on_for(100).await;
    let sent = traffic.end().await;
    assert!(unanswered(&sent) >= KILLS, "{} sends met a kill", unanswered(&sent));
    assert_all_visible(&pairs, &sent).await;

    for Sent { pair, message, .. } in sent.iter().filter(|sent| !sent.failures.is_empty()) {
        let Pair { sender, recipient } = &pairs[*pair];
        let text = |key: &str| message[key].as_str().expect("a text");
        let id = text("id").parse().expect("an id");
        let again = sender.put_message(id, recipient, text("content")).send().await.expect(200);
        assert_eq!(&again.json(), message);
    }
    assert_all_visible(&pairs, &sent).await;
    app.finish().await;
}

/// It accepts nothing more, finishes what is in flight, and is gone in 10 s with status 0.
async fn sigterm_under_load_with_a_half_sent_request_open() {
    let (app, door, pairs) = with_one_command_api().await;
    let (nobody, somebody) = (app.register("nobody").await, app.register("somebody").await);
    let traffic = Traffic::start(&pairs, 16).await;
    traffic.go_on_for(150).await;
    let in_flight = InFlight::send(door.address(), &nobody, &somebody, "in flight").await;
    let mut half_sent = TcpStream::connect(door.address()).await.expect("it accepts");
    let half = b"POST /send HTTP/1.1\r\nHost: chat\r\nContent-Length: 10\r\n";
    half_sent.write_all(half).await.expect("it reads");
    // Answered after the half request arrived: the process knows of it.
    traffic.go_on_for(50).await;
    let let_in = async {
        eventually("it accepts nothing more", async || TcpStream::connect(door.address()).await.err()).await;
        in_flight.end().await
    };
    let (acknowledged, ()) = tokio::join!(let_in, app.processes().terminate("command-api-1"));
    assert!(acknowledged.starts_with("HTTP/1.1 201 "), "{acknowledged}");
    let mut answer = Vec::new();
    let _ = half_sent.read_to_end(&mut answer).await;
    assert_eq!(String::from_utf8_lossy(&answer), "", "half a request gets no answer");
    app.processes().restart("command-api-1").await;
    traffic.go_on_for(100).await;
    let sent = traffic.end().await;
    assert!(unanswered(&sent) > 0, "no send met the end of the process");
    assert_all_visible(&pairs, &sent).await;
    assert_eq!(somebody.conversation(&nobody).await.len(), 1, "what was in flight is there");
    app.finish().await;
}

/// Another one takes over what it holds; its own late writes change nothing.
async fn a_projector_paused_and_resumed_under_load() {
    let app = TestApp::real(Shape::default()).await;
    let pairs = pairs(&app).await;
    let (traffic, readers) = (Traffic::start(&pairs, 16).await, Readers::start(&pairs, 2));
    traffic.go_on_for(300).await;
    app.processes().pause("projector-1").await;
    traffic.go_on_for(300).await;
    let (sent, reads) = (traffic.end().await, readers.end().await);
    assert_unnoticed(&sent, &reads);
    assert_all_visible(&pairs, &sent).await;
    app.processes().resume("projector-1").await;
    let settled = async || {
        let standing = app.standing().await;
        (standing.lag == 0 && standing.pending == 0).then_some(())
    };
    eventually("everything is applied", settled).await;
    assert_all_visible(&pairs, &sent).await;
    for Pair { sender, recipient } in &pairs {
        let last = recipient.conversation(sender).await.pop().expect("a message");
        let rows = recipient.conversations().await;
        let row = rows.iter().find(|row| row["peer"] == sender.name).expect("the conversation is listed");
        assert_eq!((&row["last"], &row["unread"]), (&last, &last["seq"]), "{row}");
    }
    app.finish().await;
}

async fn rolling_restart_of_everything_under_load() {
    let app = TestApp::real(Shape::default()).await;
    let pairs = pairs(&app).await;
    let (traffic, readers) = (Traffic::start(&pairs, 8).await, Readers::start(&pairs, 2));
    for role in [Role::CommandApi, Role::QueryApi, Role::Projector] {
        for number in [1, 2] {
            let name = format!("{role}-{number}");
            traffic.go_on_for(50).await;
            app.processes().terminate(&name).await;
            traffic.go_on_for(50).await;
            app.processes().restart(&name).await;
        }
    }
    traffic.go_on_for(50).await;
    let (sent, reads) = (traffic.end().await, readers.end().await);
    assert_unnoticed(&sent, &reads);
    assert_all_visible(&pairs, &sent).await;
    app.finish().await;
}

async fn projectors_one_four_one_under_load() {
    let app = TestApp::real(Shape { projectors: 1, ..Shape::default() }).await;
    let pairs = pairs(&app).await;
    let (traffic, readers) = (Traffic::start(&pairs, 16).await, Readers::start(&pairs, 2));
    traffic.go_on_for(100).await;
    for number in 2..=4 {
        assert_eq!(app.processes().start_one_more(Role::Projector).await, format!("projector-{number}"));
    }
    traffic.go_on_for(500).await;
    let all_work = async || {
        let applied = applied(&app).await;
        (applied.len() == 4 && applied.iter().all(|(_, events)| *events > 0)).then_some(())
    };
    eventually("all four have applied events", all_work).await;
    for number in 2..=4 {
        app.processes().terminate(&format!("projector-{number}")).await;
    }
    traffic.go_on_for(100).await;
    let (sent, reads) = (traffic.end().await, readers.end().await);
    assert_unnoticed(&sent, &reads);
    assert_all_visible(&pairs, &sent).await;
    app.finish().await;
}

async fn sends_go_on_without_projectors() {
    let app = TestApp::real(Shape::default()).await;
    let (samer, lena) = (app.register("samer").await, app.register("lena").await);
    for n in 1..=3 {
        samer.send(&lena, &format!("message {n}")).await;
    }
    assert_eq!(lena.conversation(&samer).await.len(), 3);
    for name in ["projector-1", "projector-2"] {
        app.processes().kill(name).await;
    }
    for n in 4..=10 {
        assert_eq!(samer.send(&lena, &format!("message {n}")).await["seq"], n);
    }
    // What is not visible is said, never left out in silence.
    for (query, shown, behind) in [
        ("", vec![1, 2, 3], Some("7")),
        ("limit=3", vec![1, 2, 3], Some("7")),
        ("after=1&limit=5", vec![2, 3], Some("3")),
        ("after=5&limit=3", vec![], Some("3")),
        ("before=3", vec![1, 2], None),
    ] {
        let page = lena.page(&samer, query).await.expect(200);
        assert_eq!((seqs(&page.items()), page.header("chat-behind")), (shown, behind), "{query}");
    }
    app.processes().restart("projector-1").await;
    e2e::within(Duration::from_secs(10), "the page is whole again", async || {
        let page = lena.page(&samer, "").await.expect(200);
        (page.items().len() == 10 && page.header("chat-behind").is_none()).then_some(())
    })
    .await;
    app.finish().await;
}
