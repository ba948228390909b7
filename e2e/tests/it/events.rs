//! `GET /events`: who is told what, in which order, and when a stream ends.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use e2e::environment::patience;
use e2e::{Event, Settings, TestApp, User, eventually, seqs, within};
use serde_json::{Value, json};
use shared::limits::{LIVE_SILENCE_MAX, LIVE_UNSENT_MAX, SESSION_BELIEVED_MAX, STREAMS_PER_USER};
use shared::process::config::LimitOptions;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpSocket;

use crate::at_once;

e2e::scenarios!(
    a_message_is_told_to_its_two_and_nobody_else,
    a_conversation_is_told_in_order,
    a_mark_is_told_to_its_reader_alone,
    a_stream_goes_on_where_it_was,
    of_what_is_no_position_the_reader_is_told,
    a_stream_speaks_though_nothing_happens,
    who_loses_his_session_loses_his_streams,
    what_a_stream_is_asked_for_with,
    who_does_not_read_is_cut_off,
);

/// For the time that requests take.
const MARGIN: Duration = Duration::from_secs(1);

fn message(data: &Value) -> Event {
    Event { kind: "message".to_owned(), data: data.clone() }
}

async fn a_message_is_told_to_its_two_and_nobody_else(app: &TestApp) {
    let [samer, lena, tarek] =
        [app.register("samer").await, app.register("lena").await, app.register("tarek").await];
    let mut of_samer = samer.events().await;
    let (mut of_lena, mut of_her_phone) = (lena.events().await, app.log_in("lena").await.events().await);
    let mut of_tarek = tarek.events().await;
    let first = samer.send(&lena, "hi, \"lena\"\r\n\n: é\u{2028}\u{7f}").await;
    for events in [&mut of_samer, &mut of_lena, &mut of_her_phone] {
        assert_eq!(events.next().await, message(&first), "as it was acknowledged");
    }
    let second = tarek.send(&lena, "hello").await;
    assert_eq!(of_tarek.next().await, message(&second), "of the first he was told nothing");
    assert_eq!(of_lena.next().await, message(&second));
    let third = lena.send(&samer, "an answer").await;
    assert_eq!(of_samer.next().await, message(&third), "of the second he was told nothing");
    assert_eq!(of_lena.next().await, message(&third));

    // A stream that is gone holds up nobody.
    drop(of_lena);
    let fourth = samer.send(&lena, "are you there?").await;
    assert_eq!(of_samer.next().await, message(&fourth));
    assert_eq!(of_her_phone.messages(3).await, [second, third, fourth]);
}

async fn a_conversation_is_told_in_order(app: &TestApp) {
    const CLIENTS: usize = 8;
    const OF_EACH: usize = 25;
    let (samer, lena) = (app.register("samer").await, app.register("lena").await);
    let (mut of_samer, mut of_lena) = (samer.events().await, lena.events().await);
    let sends = at_once(CLIENTS, || {
        let (samer, lena) = (samer.clone(), lena.clone());
        async move {
            let mut sent = Vec::new();
            for n in 0..OF_EACH {
                let (from, to) = if n % 2 == 0 { (&samer, &lena) } else { (&lena, &samer) };
                sent.push(from.send(to, &format!("message {n}")).await);
            }
            sent
        }
    });
    let all = CLIENTS * OF_EACH;
    let (sent, told_samer, told_lena) = tokio::join!(sends, of_samer.messages(all), of_lena.messages(all));
    let mut sent: Vec<Value> = sent.into_iter().flatten().collect();
    sent.sort_by_key(|message| message["seq"].as_u64());
    assert_eq!(seqs(&told_samer), (1..=all as u64).collect::<Vec<_>>());
    assert!(told_samer == sent && told_lena == sent);
}

async fn a_mark_is_told_to_its_reader_alone(app: &TestApp) {
    let (samer, lena) = (app.register("samer").await, app.register("lena").await);
    let (mut of_samer, mut of_his_phone) = (samer.events().await, app.log_in("samer").await.events().await);
    let mut of_lena = lena.events().await;
    let sent = lena.send(&samer, "hi").await;
    samer.mark_read(&lena, 1).await;
    samer.mark_read(&lena, 1).await;
    let answer = lena.send(&samer, "hello?").await;
    let mark = Event { kind: "read".to_owned(), data: json!({ "peer": "lena", "seq": 1 }) };
    for events in [&mut of_samer, &mut of_his_phone] {
        // A mark is about the user, a message about the conversation: between the two there is no order.
        let mut told = vec![events.next().await, events.next().await, events.next().await];
        let of_messages: Vec<_> = told.extract_if(.., |event| event.kind == "message").collect();
        assert_eq!((told, of_messages), (vec![mark.clone()], vec![message(&sent), message(&answer)]));
    }
    assert_eq!(of_lena.messages(2).await, [sent, answer], "she is not told what he has read");
}

async fn a_stream_goes_on_where_it_was(app: &TestApp) {
    const MESSAGES: usize = 12;
    let [samer, lena, tarek] =
        [app.register("samer").await, app.register("lena").await, app.register("tarek").await];
    let mut events = lena.events().await;
    let mut sent = Vec::new();
    let mut ids = vec![events.last_id().expect("a position from the start").to_owned()];
    for n in 0..MESSAGES {
        let from = if n % 3 == 0 { &tarek } else { &samer };
        sent.push(from.send(&lena, &format!("message {n}")).await);
        assert_eq!(events.next().await, message(&sent[n]));
        ids.push(events.last_id().expect("a position").to_owned());
    }
    drop(events);
    let distinct: BTreeSet<_> = ids.iter().collect();
    assert_eq!(distinct.len(), ids.len(), "each event has a position of its own");
    samer.send(&tarek, "not for lena").await;
    sent.push(samer.send(&lena, "while she was away").await);
    for (at, id) in ids.iter().enumerate() {
        let mut resumed = Resumed::open(&lena, id).await;
        assert_eq!(resumed.told_until(sent.last().expect("one")).await, sent[at..], "from {at} on");
        // And it is live.
        let live = tarek.send(&lena, "live").await;
        assert_eq!(resumed.told_until(&live).await, std::slice::from_ref(&live));
        sent.push(live);
    }
}

/// A stream that is open again. Other instances may order what different conversations are told otherwise, so a
/// test asks for the messages behind it, whatever their order.
struct Resumed(e2e::Events);

impl Resumed {
    async fn open(user: &User, id: &str) -> Self {
        Self(user.events_after(id).await)
    }

    /// Messages up to one, each once, by their time.
    async fn told_until(&mut self, last: &Value) -> Vec<Value> {
        let mut told: Vec<Value> = Vec::new();
        while told.last() != Some(last) {
            told.extend(self.0.messages(1).await);
        }
        told
    }
}

async fn of_what_is_no_position_the_reader_is_told(app: &TestApp) {
    let (samer, lena) = (app.register("samer").await, app.register("lena").await);
    let mut of_samer = samer.events().await;
    let first = samer.send(&lena, "hi").await;
    assert_eq!(of_samer.next().await, message(&first));
    let of_another = of_samer.last_id().expect("a position").to_owned();
    let reset = Event { kind: "reset".to_owned(), data: json!({}) };
    let damaged = format!("{}A", &of_another[..of_another.len() - 1]);
    for id in ["", "0", "1795339800125-0", "AAAA", "%00", &"A".repeat(4_000), &of_another, &damaged] {
        let mut events = lena.events_after(id).await;
        assert_eq!(events.next().await, reset, "{id}");
        let id = events.last_id().expect("a position to go on from").to_owned();
        let live = samer.send(&lena, "live").await;
        assert_eq!(events.next().await, message(&live));
        // The position of a reset is as good as another.
        let again = lena.events_after(&id).await.next().await;
        assert_eq!(again, message(&live));
    }
    let twice = lena.get("/events").header("last-event-id", "x").header("last-event-id", "y");
    assert_eq!(twice.open().await.expect("an answer").status, 200);
}

/// Both the comment and its position: who hears nothing does not fall behind.
async fn a_stream_speaks_though_nothing_happens(app: &TestApp) {
    let (samer, lena) = (app.register("samer").await, app.register("lena").await);
    let (mut one, mut other) = (samer.events().await, samer.events().await);
    let retry = one.retry().expect("a hint when to come back");
    assert!((Duration::from_secs(1)..Duration::from_secs(10)).contains(&retry), "{retry:?}");
    let before = one.last_id().expect("a position").to_owned();
    let tarek = app.register("tarek").await;
    lena.send(&tarek, "not for samer").await;
    let bound = LIVE_SILENCE_MAX + MARGIN;
    let (silence, _) = tokio::join!(one.next_comment(bound), other.next_comment(bound));
    assert!(silence <= bound, "{silence:?}");
    assert_ne!(one.last_id(), Some(before.as_str()), "the log has gone on, and so has he");
}

async fn who_loses_his_session_loses_his_streams(app: &TestApp) {
    let samer = app.register("samer").await;
    let lena = app.register("lena").await;
    let phone = app.log_in("samer").await;
    let (mut of_samer, mut of_phone) = (samer.events().await, phone.events().await);
    samer.post("/logout").send().await.expect(204);
    let begun = Instant::now();
    assert_eq!(of_samer.ended(SESSION_BELIEVED_MAX + MARGIN).await, []);
    assert!(begun.elapsed() <= SESSION_BELIEVED_MAX + MARGIN, "{:?}", begun.elapsed());
    let sent = lena.send(&samer, "to the phone").await;
    assert_eq!(of_phone.next().await, message(&sent), "the other session goes on");

    let mut of_tablet = app.log_in("samer").await.events().await;
    phone.post("/logout?everywhere=true").send().await.expect(204);
    let bound = SESSION_BELIEVED_MAX + MARGIN;
    let (rest, other) = tokio::join!(of_phone.ended(bound), of_tablet.ended(bound));
    assert_eq!((rest, other), (vec![], vec![]));
    let refused = async || (phone.get("/events").open().await.ok()?.status == 401).then_some(());
    within(bound, "the session is refused", refused).await;
}

async fn what_a_stream_is_asked_for_with(app: &TestApp) {
    let samer = app.register("samer").await;
    app.get("/events").send().await.expect_problem(401, "unauthenticated");
    app.get("/events").token(&"A".repeat(43)).send().await.expect_problem(401, "unauthenticated");
    // Never in the URL.
    let in_url = format!("/events?token={0}&access_token={0}", samer.token);
    app.get(&in_url).send().await.expect_problem(401, "unauthenticated");
    let head = samer.request("HEAD", "/events").send().await.expect(200);
    assert_eq!(head.header("content-type"), Some("text/event-stream"));
    let options = app.request("OPTIONS", "/events").send().await.expect(204);
    assert!(options.header("allow").is_some_and(|allow| allow.contains("GET")), "{options:?}");
    for method in ["POST", "PUT", "DELETE"] {
        let problem = samer.request(method, "/events").send().await;
        problem.expect_problem(405, "method_not_allowed");
    }
}

/// Others are told as ever meanwhile, and he may come back.
async fn who_does_not_read_is_cut_off(app: &TestApp) {
    /// Not all that the machine can: others test on it.
    const BETWEEN_SENDS: Duration = Duration::from_millis(20);
    let (samer, lena) = (app.register("samer").await, app.register("lena").await);
    let mut of_samer = samer.events().await;
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4 * 1024).unwrap();
    let mut silent = socket.connect(app.address()).await.expect("it accepts");
    let request =
        format!("GET /events HTTP/1.1\r\nHost: chat\r\nAuthorization: Bearer {}\r\n\r\n", lena.token);
    silent.write_all(request.as_bytes()).await.expect("it reads");
    silent.readable().await.expect("the stream has begun");
    let content = "€".repeat(4_000);
    // As many as it takes: what the sockets on the way hold is the kernel's to decide, and can be tens of MiB.
    let sends = at_once(8, || {
        let (samer, lena, content) = (samer.clone(), lena.clone(), content.clone());
        async move {
            loop {
                samer.send(&lena, &content).await;
                tokio::time::sleep(BETWEEN_SENDS).await;
            }
        }
    });
    let told = async {
        for seq in 1.. {
            assert_eq!(of_samer.next().await.data["seq"], seq, "others are told as ever");
        }
    };
    let cut = async || silent.take_error().ok().flatten();
    let bound = 2 * LIVE_UNSENT_MAX + patience();
    tokio::select! {
        _ = within(bound, "who does not read is cut off", cut) => {}
        _ = sends => {}
        _ = told => {}
    }
    let mut of_lena = lena.events().await;
    let live = samer.send(&lena, "live").await;
    // What came just before he did may be told too.
    let mut first = of_lena.next().await;
    while first.data["seq"].as_u64() < live["seq"].as_u64() {
        first = of_lena.next().await;
    }
    assert_eq!(first, message(&live));
}

mod limited {
    use super::*;

    e2e::scenarios!(
        Settings { limits: Some(LimitOptions::default()), ..Settings::default() } => the_fifth_stream_is_refused,
    );
}

/// Through the edge too, where there are several instances.
async fn the_fifth_stream_is_refused(app: &TestApp) {
    let (samer, lena) = (app.register("samer").await, app.register("lena").await);
    let mut open = Vec::new();
    for _ in 0..STREAMS_PER_USER {
        open.push(samer.events().await);
    }
    samer.get("/events").send().await.expect_problem(429, "rate_limited");
    samer.get("/conversations").send().await.expect(200);
    let of_lena = lena.events().await;
    drop((open.pop(), of_lena));
    let again = async || (samer.get("/events").open().await.ok()?.status == 200).then_some(());
    eventually("there is room again", again).await;
}
