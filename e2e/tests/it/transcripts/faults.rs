//! Errors that take a fault of a server: each is made, shown, and over before the next.

use std::net::SocketAddr;
use std::time::Duration;

use e2e::ports::free_address;
use e2e::{Answer, Backend, Client, Proxy, Request, Shape, TestApp, User, eventually, new_id, within};
use serde_json::Value;

use super::{Transcripts, document, message, named, status};
use crate::durability::{Redis, registered, replica_is_there, settled};
use crate::starting;

e2e::real_scenarios!(errors_of_faults_are_as_documented);

/// For a fault to be known, and to be forgotten.
const FAULT_TIME_MAX: Duration = Duration::from_secs(15);

/// One instance of each, on a Redis with one replica, and what can be done to them.
struct System {
    app: TestApp,
    samer: User,
    redis: Redis,
    replica: Redis,
    to_redis: Proxy,
    to_cassandra: Proxy,
}

impl System {
    async fn start() -> Self {
        let redis = Redis::master();
        let replica = Redis::replica_of(&redis);
        let to_redis = Proxy::start(SocketAddr::from(([127, 0, 0, 1], redis.port))).await;
        let node = e2e::environment::cassandra_node().parse().expect("an address");
        let to_cassandra = Proxy::start(node).await;
        let shape = Shape {
            command_apis: 1,
            query_apis: 1,
            projectors: 1,
            redis_url: Some(format!("redis://{}/", to_redis.address())),
            cassandra_node: Some(to_cassandra.address().to_string()),
            log_replicas: 1,
            ..Shape::default()
        };
        let app = TestApp::real(shape).await;
        replica_is_there(&app).await;
        let (samer, lena) = (registered(&app, "samer").await, registered(&app, "lena").await);
        let id = new_id();
        settled(|| samer.put_message(id, &lena, "hi")).await;
        Self { app, samer, redis, replica, to_redis, to_cassandra }
    }

    fn post(&self) -> Request {
        self.samer.post("/send").json(&message("lena", "hi"))
    }

    fn put(&self, id: &str) -> Request {
        self.samer.put(&format!("/messages/{id}")).json(&message("lena", "hi"))
    }

    /// As a broken disk may leave what Redis has of each session: `command` of the user's name gives another.
    async fn write_sessions(&self, command: &str) {
        let script = format!(
            "for _, key in ipairs(redis.call('KEYS', '*session:*')) do \
             local name = redis.call('GET', key) redis.call('SET', key, {command}, 'KEEPTTL') end"
        );
        let redis = Client::new(SocketAddr::from(([127, 0, 0, 1], self.redis.port)));
        let answer = redis.raw(format!("EVAL \"{script}\" 0\r\nQUIT\r\n").as_bytes()).await;
        assert!(answer.starts_with(b"$-1\r\n"), "{}", String::from_utf8_lossy(&answer));
    }

    /// A message can be sent again.
    async fn is_back(&self) {
        within(FAULT_TIME_MAX, "sends are back", async || {
            (self.post().once().await.status == 201).then_some(())
        })
        .await;
    }
}

impl Transcripts {
    /// Asks until the fault is known.
    async fn show_when_known(&mut self, code: &'static str, outcome: Option<&str>, request: Request) {
        let request = named(request);
        let known = async || {
            let answer = request.clone().once().await;
            let is_it = answer.problem_code() == code && answer.json()["outcome"].as_str() == outcome;
            is_it.then_some(answer)
        };
        let answer: Answer = within(FAULT_TIME_MAX, code, known).await;
        answer.expect_problem(status(code), code);
        self.add(code, &request, &answer);
    }
}

async fn errors_of_faults_are_as_documented() {
    let system = System::start().await;
    let mut transcripts = Transcripts::of("localhost:8081");
    transcripts.placeholders.hide(&system.samer.token, "$TOKEN");
    lose_an_answer(&system, &mut transcripts).await;
    lose_the_log(&system, &mut transcripts).await;
    lose_the_replica(&system, &mut transcripts).await;

    system.to_cassandra.cut();
    let page = system.samer.get("/messages?sender=samer&recipient=lena");
    transcripts.show_when_known("views_unavailable", None, page).await;
    system.to_cassandra.resume();

    system.write_sessions("name .. '?'").await;
    transcripts.show_when_known("internal", Some("not_applied"), system.post()).await;
    system.write_sessions("string.sub(name, 1, -2)").await;
    system.is_back().await;

    start_before_the_log(&system, &mut transcripts).await;
    system.app.processes().kill("command-api-1").await;
    transcripts.show_when_known("unavailable", Some("not_applied"), system.post()).await;
    system.app.processes().restart("command-api-1").await;

    document::check_or_write(Backend::Real, &transcripts.made);
    system.app.finish().await;
}

async fn lose_an_answer(system: &System, transcripts: &mut Transcripts) {
    let id = new_id().to_string();
    transcripts.placeholders.hide(&id, "$ID");
    // The session and the recipient are known from this one: of the next, only the append asks the log.
    system.is_back().await;
    system.to_redis.cut_at_answer();
    transcripts.show("outcome_unknown", system.put(&id)).await;
    system.to_redis.resume();
    settle(system.put(&id)).await;
}

/// Another command-api, whose Redis is not there.
async fn start_before_the_log(system: &System, transcripts: &mut Transcripts) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (client, mut process) = starting::start("command-api", free_address(), None, &dir);
    eventually("it answers", async || client.get("/healthz").try_send().await.ok()).await;
    let send = client.post("/send").token(&system.samer.token).json(&message("lena", "hi"));
    transcripts.show_when_known("starting", Some("not_applied"), send).await;
    process.kill().expect("it runs");
}

async fn lose_the_log(system: &System, transcripts: &mut Transcripts) {
    system.to_redis.cut();
    transcripts.show_when_known("log_unavailable", Some("not_applied"), system.post()).await;
    system.to_redis.resume();
    system.is_back().await;
}

async fn lose_the_replica(system: &System, transcripts: &mut Transcripts) {
    let id = new_id().to_string();
    transcripts.placeholders.hide(&id, "$ID");
    system.replica.process.pause().expect("it runs");
    transcripts.show_when_known("log_unavailable", Some("unknown"), system.put(&id)).await;
    system.replica.process.resume().expect("it runs");
    settle(system.put(&id)).await;
}

/// The same id again finds the message.
async fn settle(request: Request) {
    let settled = within(FAULT_TIME_MAX, "the retry settles it", async || {
        let answer = request.clone().once().await;
        (answer.status < 500).then_some(answer)
    });
    let message: Value = settled.await.expect(200).json();
    assert_eq!(message["content"], "hi");
}
