//! Redis or Cassandra away under load: rows of docs/faults.md. What cannot be done is said truly and in time, and
//! service is back without a human.

use std::time::{Duration, Instant};

use e2e::ports::free_address;
use e2e::traffic::{Pair, Reads, Sent, Traffic, assert_all_visible, assert_unnoticed};
use e2e::{Answer, Proxy, Shape, TestApp, eventually, new_id, seqs, within};
use serde_json::json;
use shared::EventId;
use shared::limits::SESSION_BELIEVED_WHILE_AWAY_MAX;
use tempfile::TempDir;
use tokio::task::JoinSet;
use xtask::servers::{Options, Redis};

e2e::real_scenarios!(
    redis_killed_and_restarted_under_load,
    redis_paused_under_load,
    redis_cut_off_before_it_answered,
    cassandra_silent_under_load,
    cassandra_cut_off_under_load,
    reads_go_on_without_redis,
    pages_that_are_ready_outlive_cassandra,
    reads_go_on_without_projectors,
);

/// A call to Redis times out at 250 ms, one to Cassandra at 1 s; a lost dependency is told within 300 ms after
/// that. The rest is for a machine that does other things too.
const LOG_ANSWER_TIME_MAX: Duration = Duration::from_millis(1_500);
const VIEWS_ANSWER_TIME_MAX: Duration = Duration::from_millis(2_500);

/// From the end of a fault to the first success: P5 says 2 s.
const BACK_TIME_MAX: Duration = Duration::from_secs(4);

/// A Redis that only this test knows.
pub(crate) async fn own_redis() -> (Redis, Options, TempDir) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let options = Options { dir: dir.path().join("redis"), port: free_address().port() };
    let redis = start(options.clone()).await;
    (redis, options, dir)
}

pub(crate) async fn start(options: Options) -> Redis {
    let starting = tokio::task::spawn_blocking(move || Redis::start(&options));
    starting.await.expect("no panic").expect("redis starts")
}

/// What clients were told while the log was away: the outcome, always.
fn assert_outcomes_told(sent: &[Sent]) {
    let failures: Vec<_> = sent.iter().flat_map(|sent| &sent.failures).collect();
    assert!(!failures.is_empty(), "no client noticed: the fault did not overlap traffic");
    for failure in failures {
        let answer = failure.as_ref().expect("every request is answered");
        let outcome = answer.json()["outcome"].as_str().expect("an outcome").to_owned();
        let expected = match answer.problem_code().as_str() {
            "log_unavailable" | "busy" => "not_applied",
            "outcome_unknown" => "unknown",
            // nginx found a service that was too slow; what it says is tested in `edge`.
            "unavailable" => continue,
            other => panic!("{other}: {answer:?}"),
        };
        assert_eq!(outcome, expected, "{answer:?}");
    }
}

/// Messages that are sent once each, whatever is answered, so that what was told of them can be compared with what
/// became of them.
struct Probes {
    pair: Pair,
    told: JoinSet<(EventId, Answer)>,
}

impl Probes {
    /// Of two users that both command APIs have seen: nothing but the append itself needs the log.
    async fn prepare(app: &TestApp) -> Self {
        let pair = Pair { sender: app.user().await, recipient: app.user().await };
        for n in 0..6 {
            pair.sender.send(&pair.recipient, &format!("before {n}")).await;
        }
        Self { pair, told: JoinSet::new() }
    }

    /// Sends 16 at once.
    fn send(&mut self) {
        for _ in 0..16 {
            let (id, Pair { sender, recipient }) = (new_id(), self.pair.clone());
            self.told.spawn(async move { (id, sender.put_message(id, &recipient, "probe").once().await) });
        }
    }

    /// When the fault is over: what was said to be done is there, and what was said not to be done is not.
    async fn assert_told_truly(self) {
        let told = self.told.join_all().await;
        let Pair { sender, recipient } = self.pair;
        let shown = recipient.conversation(&sender).await;
        for (id, answer) in told {
            let is_there = shown.iter().any(|message| message["id"] == id.to_string());
            match answer.status {
                200 | 201 => assert!(is_there, "acknowledged and lost: {answer:?}"),
                _ if answer.json()["outcome"] == "not_applied" => {
                    assert!(!is_there, "it was applied: {answer:?}")
                }
                _ => assert_eq!(answer.json()["outcome"], "unknown", "{answer:?}"),
            }
        }
        assert_eq!(seqs(&shown), (1..=shown.len() as u64).collect::<Vec<_>>());
    }
}

async fn expect_to_be_back(traffic: &Traffic) {
    let back = tokio::time::timeout(BACK_TIME_MAX, traffic.go_on_for(1)).await;
    assert!(back.is_ok(), "no send was acknowledged {BACK_TIME_MAX:?} after the end of the fault");
}

/// While the log cannot be asked: the views as they are, and that it is not known how far behind they are; or, for
/// a session that nobody has seen just before, a refusal. In time.
async fn expect_an_honest_page(Pair { sender, recipient }: &Pair) {
    let begun = Instant::now();
    let page = sender.get_page(recipient, "").once().await;
    match page.status {
        200 => assert_eq!(page.header("chat-behind"), Some("unknown"), "{page:?}"),
        _ => drop(page.expect_problem(503, "log_unavailable")),
    }
    assert!(begun.elapsed() < LOG_ANSWER_TIME_MAX, "{:?}: {page:?}", begun.elapsed());
}

async fn redis_killed_and_restarted_under_load() {
    let (mut redis, options, _dir) = own_redis().await;
    let app = TestApp::real(Shape { redis_url: Some(redis.url()), ..Shape::default() }).await;
    let pairs = Pair::of(&app.users(11).await, 50);
    let traffic = Traffic::start(&pairs, 16).await;
    traffic.go_on_for(300).await;
    let mut probes = Probes::prepare(&app).await;
    probes.send();
    redis.kill().expect("it ran");
    probes.send();

    let user = &pairs[0].sender;
    eventually("the services know", async || {
        let message = json!({ "recipient": pairs[0].recipient.name, "content": "hi" });
        let begun = Instant::now();
        let answer = user.post("/send").json(&message).once().await;
        assert!(begun.elapsed() < LOG_ANSWER_TIME_MAX, "{:?}: {answer:?}", begun.elapsed());
        let problem = answer.expect_problem(answer.status, &answer.problem_code());
        (problem["outcome"] == "not_applied" && problem["code"] == "log_unavailable").then_some(())
    })
    .await;
    expect_an_honest_page(&pairs[0]).await;
    let ready = app.get("/readyz").once().await.expect(503);
    assert_eq!(
        (&ready.json()["status"], &ready.json()["waiting_for"]),
        (&json!("waiting"), &json!(["redis"]))
    );

    drop(redis);
    let _redis = start(options).await;
    expect_to_be_back(&traffic).await;
    traffic.go_on_for(300).await;
    let sent = traffic.end().await;
    assert_outcomes_told(&sent);
    probes.assert_told_truly().await;
    assert_all_visible(&pairs, &sent).await;
    app.finish().await;
}

async fn redis_paused_under_load() {
    let (redis, _options, _dir) = own_redis().await;
    let app = TestApp::real(Shape { redis_url: Some(redis.url()), ..Shape::default() }).await;
    let pairs = Pair::of(&app.users(11).await, 50);
    let traffic = Traffic::start(&pairs, 16).await;
    traffic.go_on_for(300).await;
    let mut probes = Probes::prepare(&app).await;
    redis.pause().expect("it runs");
    probes.send();
    // Long enough for every client to be told so several times.
    for pair in &pairs[..10] {
        expect_an_honest_page(pair).await;
    }
    redis.resume().expect("it runs");
    expect_to_be_back(&traffic).await;
    traffic.go_on_for(300).await;
    let sent = traffic.end().await;
    assert_outcomes_told(&sent);
    probes.assert_told_truly().await;
    assert_all_visible(&pairs, &sent).await;
    app.finish().await;
}

/// The bytes left, and the answer never came: nobody knows but the log, which says it at the next try.
async fn redis_cut_off_before_it_answered() {
    let (redis, _options, _dir) = own_redis().await;
    let proxy = Proxy::start(redis.addr()).await;
    let redis_url = Some(format!("redis://{}/", proxy.address()));
    let app = TestApp::real(Shape { redis_url, command_apis: 1, ..Shape::default() }).await;
    let (samer, lena) = (app.register("samer").await, app.register("lena").await);
    for seq in 1..=3 {
        // The session and the recipient are known from this one: of the next, only the append asks the log.
        assert_eq!(samer.send(&lena, "before").await["seq"], 2 * seq - 1);
        let id = new_id();
        proxy.cut_at_answer();
        let answer = samer.put_message(id, &lena, "cut").once().await;
        assert_eq!(answer.expect_problem(504, "outcome_unknown")["outcome"], "unknown");
        proxy.resume();
        let repeated = within(BACK_TIME_MAX, "the retry settles it", async || {
            let answer = samer.put_message(id, &lena, "cut").once().await;
            (answer.status != 503).then_some(answer)
        });
        let repeated = repeated.await.expect(200);
        assert_eq!(repeated.header("idempotency-replayed"), Some("true"));
        assert_eq!((&repeated.json()["seq"], &repeated.json()["id"]), (&json!(2 * seq), &json!(id)));
    }
    assert_eq!(seqs(&lena.conversation(&samer).await), (1..=6).collect::<Vec<_>>());
    app.finish().await;
}

async fn cassandra_silent_under_load() {
    cassandra_away_under_load(Proxy::stall).await;
}

async fn cassandra_cut_off_under_load() {
    cassandra_away_under_load(Proxy::cut).await;
}

async fn cassandra_away_under_load(fault: fn(&Proxy)) {
    let node = e2e::environment::cassandra_node().parse().expect("an address");
    let proxy = Proxy::start(node).await;
    let shape = Shape { cassandra_node: Some(proxy.address().to_string()), ..Shape::default() };
    let app = TestApp::real(shape).await;
    let pairs = Pair::of(&app.users(11).await, 50);
    let traffic = Traffic::start(&pairs, 16).await;
    traffic.go_on_for(300).await;
    fault(&proxy);

    let Pair { sender, recipient } = &pairs[0];
    let direct = recipient.at(&app.processes().direct("query-api-1").await);
    for _ in 0..3 {
        for (reader, tries) in [(&direct, 1), (recipient, 2)] {
            let page = format!("/messages?sender={}&recipient={}", sender.name, recipient.name);
            for path in [page.as_str(), "/conversations"] {
                let begun = Instant::now();
                let answer = reader.get(path).once().await;
                answer.expect_problem(503, "views_unavailable");
                let took = begun.elapsed();
                assert!(took < VIEWS_ANSWER_TIME_MAX * tries, "{took:?}: {answer:?}");
            }
        }
    }
    // Nobody who sends notices.
    traffic.go_on_for(300).await;
    let ready = app.get("/readyz").once().await.expect(503);
    assert_eq!(ready.json()["waiting_for"], json!(["cassandra"]));

    proxy.resume();
    within(BACK_TIME_MAX, "reads are back", async || {
        (recipient.get("/conversations").once().await.status == 200).then_some(())
    })
    .await;
    let sent = traffic.end().await;
    assert_unnoticed(&sent, &Reads::default());
    assert_all_visible(&pairs, &sent).await;
    app.finish().await;
}

/// Longer than a session is believed while its store is there.
const WITHOUT_REDIS: Duration = Duration::from_secs(7);

async fn reads_go_on_without_redis() {
    let (mut redis, options, _dir) = own_redis().await;
    let app = TestApp::real(Shape { redis_url: Some(redis.url()), ..Shape::default() }).await;
    let door = app.processes().direct("query-api-1").await;
    let [samer, lena] = [app.register("samer").await, app.register("lena").await].map(|user| user.at(&door));
    let writer = samer.at(&app);
    for n in 1..=60 {
        writer.send(&lena, &format!("message {n}")).await;
    }
    let newest = "/messages?sender=samer&recipient=lena";
    // For the first time at this process.
    let asked = Instant::now();
    assert_eq!(samer.fresh(newest).await.items().len(), 50);
    // What something follows needs no head, and the session was looked up just now.
    redis.pause().expect("it runs");
    let past = samer.get(&format!("{newest}&limit=5&before=9")).once().await.expect(200);
    redis.resume().expect("it runs");
    assert_eq!((seqs(&past.items()), past.header("chat-behind")), (vec![4, 5, 6, 7, 8], None));
    assert_eq!(past.header("link").map(|links| links.contains("rel=\"next\"")), Some(true), "{past:?}");
    redis.kill().expect("it ran");

    let begun = Instant::now();
    while begun.elapsed() < WITHOUT_REDIS {
        for (query, shown) in [("", 11..=60), ("&limit=5&before=6", 1..=5), ("&min_seq=60", 11..=60)] {
            let page = samer.get(&format!("{newest}{query}")).once().await.expect(200);
            assert_eq!(page.header("chat-behind"), Some("unknown"), "{page:?}");
            assert_eq!(page.header("cache-control"), Some("private, no-cache"), "{page:?}");
            assert_eq!(seqs(&page.items()), shown.collect::<Vec<_>>(), "{query}");
            assert!(page.took < LOG_ANSWER_TIME_MAX, "{page:?}");
        }
        assert_eq!(samer.conversations().await.len(), 1);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let beyond = samer.get(&format!("{newest}&min_seq=61")).header("prefer", "wait=1").once().await;
    beyond.expect_problem(503, "not_yet_visible");
    // Whose session this process has never seen cannot be known, and learns nothing.
    lena.get(newest).once().await.expect_problem(503, "log_unavailable");
    samer.get("/messages?sender=lena&recipient=omar").once().await.expect_problem(403, "not_a_member");

    let refused = within(SESSION_BELIEVED_WHILE_AWAY_MAX, "the session is refused", async || {
        let at = begun.elapsed();
        let page = samer.get(newest).once().await;
        assert!(page.status != 200 || at < SESSION_BELIEVED_WHILE_AWAY_MAX, "believed for {at:?}");
        (page.problem_code() == "log_unavailable").then_some(page)
    });
    refused.await.expect_problem(503, "log_unavailable");
    assert!(asked.elapsed() >= SESSION_BELIEVED_WHILE_AWAY_MAX, "only for {:?}", asked.elapsed());

    drop(redis);
    let _redis = start(options).await;
    within(BACK_TIME_MAX, "reads are fresh again", async || {
        let page = lena.get(newest).once().await;
        (page.status == 200 && page.header("chat-behind").is_none()).then_some(())
    })
    .await;
    app.finish().await;
}

async fn pages_that_are_ready_outlive_cassandra() {
    let node = e2e::environment::cassandra_node().parse().expect("an address");
    let proxy = Proxy::start(node).await;
    let shape = Shape { cassandra_node: Some(proxy.address().to_string()), ..Shape::default() };
    let app = TestApp::real(shape).await;
    let door = app.processes().direct("query-api-1").await;
    let (samer, lena) = (app.register("samer").await, app.register("lena").await);
    let reader = lena.at(&door);
    for n in 1..=60 {
        samer.send(&lena, &format!("message {n}")).await;
    }
    let (newest, old) = ("/messages?sender=samer&recipient=lena", "&limit=5&before=6");
    let old = format!("{newest}{old}");
    let pages = [reader.fresh(newest).await, reader.fresh(&old).await];
    proxy.cut();

    for _ in 0..3 {
        for (path, page) in [newest, &old].into_iter().zip(&pages) {
            let again = reader.get(path).once().await.expect(200);
            assert_eq!((&again.body, again.header("chat-behind")), (&page.body, None));
        }
        let unread = reader.get(&format!("{newest}&limit=7")).once().await;
        unread.expect_problem(503, "views_unavailable");
        assert!(unread.took < VIEWS_ANSWER_TIME_MAX, "{unread:?}");
        let waiting = reader.get(&format!("{newest}&limit=7&min_seq=60")).once().await;
        waiting.expect_problem(503, "views_unavailable");
        assert!(waiting.took < VIEWS_ANSWER_TIME_MAX, "{waiting:?}");
    }
    // What is ready is not the newest page any more.
    samer.send(&lena, "meanwhile").await;
    reader.get(newest).once().await.expect_problem(503, "views_unavailable");
    assert_eq!(reader.get(&old).once().await.expect(200).body, pages[1].body);

    proxy.resume();
    within(BACK_TIME_MAX, "the newest page is back", async || {
        let page = reader.get(newest).once().await;
        (page.status == 200 && page.header("chat-behind").is_none()).then_some(())
    })
    .await;
    app.finish().await;
}

async fn reads_go_on_without_projectors() {
    let app = TestApp::real(Shape { projectors: 1, ..Shape::default() }).await;
    let (samer, lena) = (app.register("samer").await, app.register("lena").await);
    let newest = "/messages?sender=samer&recipient=lena&limit=5";
    for n in 1..=3 {
        samer.send(&lena, &format!("before {n}")).await;
    }
    lena.fresh(newest).await;
    app.processes().kill("projector-1").await;
    for n in 1..=20_u64 {
        samer.send(&lena, &format!("after {n}")).await;
        if n == 2 || n == 20 {
            // On the page of the head, and far behind it.
            let page = lena.get(newest).once().await.expect(200);
            let shown = seqs(&page.items());
            assert_eq!((shown, page.header("chat-behind")), (vec![1, 2, 3], Some(n.to_string().as_str())));
            assert_eq!(page.header("cache-control"), Some("private, no-cache"));
        }
    }
    let strictly = |seq: u64| lena.get(&format!("{newest}&min_seq={seq}")).header("prefer", "wait=1").once();
    strictly(23).await.expect_problem(503, "not_yet_visible");
    strictly(4).await.expect_problem(503, "not_yet_visible");
    assert_eq!(seqs(&strictly(3).await.expect(200).items()), [1, 2, 3]);
    app.processes().restart("projector-1").await;
    assert_eq!(seqs(&lena.fresh(newest).await.items()), (19..=23).collect::<Vec<_>>());
    strictly(23).await.expect(200);
    app.finish().await;
}
