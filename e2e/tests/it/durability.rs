//! What a log must be like before a command-api acknowledges anything, and replicas that have a message before its
//! sender is told.

use std::path::Path;
use std::process::Output;
use std::time::{Duration, Instant};

use e2e::environment::binaries;
use e2e::ports::free_address;
use e2e::process::{self, Process, Signal};
use e2e::user::PASSWORD;
use e2e::{Answer, Client, Request, Shape, TestApp, User, eventually, new_id};
use serde_json::json;
use tempfile::TempDir;

e2e::real_scenarios!(
    a_log_that_may_lose_events_is_refused_at_the_start,
    a_log_that_may_lose_events_can_be_allowed,
    a_message_that_no_replica_has_is_not_acknowledged,
);

/// A process that cannot serve says so and goes: the start of a test machine included.
const REFUSAL_TIME_MAX: Duration = Duration::from_secs(10);
/// A call to Redis times out at 250 ms, a wait for replicas before; the rest is for a machine that does other things.
const ANSWER_TIME_MAX: Duration = Duration::from_millis(1_500);

/// A `redis-server` with settings of its own.
pub(crate) struct Redis {
    pub(crate) port: u16,
    pub(crate) process: Process,
    _dir: TempDir,
}

impl Redis {
    fn start(settings: &[&str]) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let port = free_address().port();
        let (port_text, path) = (port.to_string(), dir.path().to_str().expect("a readable path"));
        let arguments = ["--port", &port_text, "--bind", "127.0.0.1", "--dir", path, "--save", ""];
        let arguments = arguments.iter().chain(settings).map(|text| (*text).to_owned()).collect();
        let process = Process::start("redis", Path::new("redis-server"), arguments, dir.path());
        Self { port, process: process.expect("redis-server is installed"), _dir: dir }
    }

    pub(crate) fn master() -> Self {
        // Without a delay the first replica is there at once.
        Self::start(&["--appendonly", "yes", "--appendfsync", "always", "--repl-diskless-sync-delay", "0"])
    }

    pub(crate) fn replica_of(master: &Self) -> Self {
        Self::start(&["--replicaof", "127.0.0.1", &master.port.to_string()])
    }

    fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/", self.port)
    }
}

/// For a command-api that waits for one.
pub(crate) async fn replica_is_there(app: &TestApp) {
    let command_api = &app.operations()[0];
    eventually("the replica is there", async || {
        let ready = command_api.get("/readyz").once().await.json();
        let durability = ready["durability"].as_str()?;
        durability.ends_with("acknowledged by at least 1 replica (1 connected)").then_some(())
    })
    .await;
}

/// A command-api that is expected to end by itself.
async fn run(arguments: Vec<String>) -> Output {
    let mut command = process::command(&binaries().join("command-api"));
    command.args(arguments);
    let ended = tokio::task::spawn_blocking(move || command.output());
    let ended = tokio::time::timeout(REFUSAL_TIME_MAX, ended).await.expect("it ends");
    ended.expect("no panic").expect("it starts")
}

fn arguments(redis: &Redis, more: &[&str]) -> (Client, Vec<String>) {
    let (listen, operations) = (free_address(), free_address());
    let own = [("--listen", listen.to_string()), ("--metrics-listen", operations.to_string())];
    let own = own.into_iter().chain([("--redis-url", redis.url())]);
    let own = own.flat_map(|(flag, value)| [flag.to_owned(), value]);
    (Client::new(operations), own.chain(more.iter().map(|text| (*text).to_owned())).collect())
}

async fn a_log_that_may_lose_events_is_refused_at_the_start() {
    for (settings, why) in [
        (&["--appendonly", "no"][..], "set appendonly yes"),
        (&["--appendonly", "yes", "--maxmemory-policy", "allkeys-lru"], "set maxmemory-policy noeviction"),
    ] {
        let redis = Redis::start(settings);
        let Output { status, stderr, .. } = run(arguments(&redis, &[]).1).await;
        assert_eq!(status.code(), Some(1));
        let errors = String::from_utf8(stderr).expect("text");
        let lines: Vec<_> = errors.lines().filter(|line| line.starts_with("error: ")).collect();
        let [line] = lines[..] else { panic!("one line: {errors}") };
        assert!(line.starts_with("error: redis does not fit: ") && line.contains(why), "{line}");
        assert!(line.ends_with("or allow it with --allow-data-loss"), "{line}");
    }
}

async fn a_log_that_may_lose_events_can_be_allowed() {
    let redis = Redis::start(&["--appendonly", "no"]);
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (operations, arguments) = arguments(&redis, &["--allow-data-loss"]);
    let program = binaries().join("command-api");
    let mut process = Process::start("command-api", &program, arguments, dir.path()).expect("it starts");
    let ready = eventually("it is ready", async || {
        let answer = operations.get("/readyz").try_send().await.ok()?;
        (answer.status == 200).then_some(answer)
    });
    let durability = ready.await.json()["durability"].to_string();
    assert!(durability.contains("no append-only file"), "{durability}");
    let logged = process.output();
    assert!(logged.contains("WARN") && logged.contains("no append-only file"), "{logged}");
    process.signal(Signal::TERM).expect("it runs");
    process.ended().await.expect("it ends in good order");
}

/// On a machine that does other things too, a replica that lives may be late: the retry tells.
pub(crate) async fn settled(request: impl Fn() -> Request) -> Answer {
    let answered = async || {
        let answer = request().once().await;
        (answer.status != 503).then_some(answer)
    };
    eventually("enough replicas have it", answered).await
}

/// A new user, logged in.
pub(crate) async fn registered(app: &TestApp, name: &str) -> User {
    let body = json!({ "username": name, "password": PASSWORD });
    let answer = settled(|| app.post("/register").json(&body)).await;
    assert!(matches!(answer.status, 201 | 409), "{answer:?}");
    app.log_in(name).await
}

async fn a_message_that_no_replica_has_is_not_acknowledged() {
    let master = Redis::master();
    let replica = Redis::replica_of(&master);
    let shape = Shape { redis_url: Some(master.url()), log_replicas: 1, ..Shape::default() };
    let app = TestApp::real(shape).await;
    replica_is_there(&app).await;
    let (samer, lena) = (registered(&app, "samer").await, registered(&app, "lena").await);
    let id = new_id();
    let first = settled(|| samer.put_message(id, &lena, "before")).await;
    assert!(matches!(first.status, 200 | 201), "{first:?}");
    let first = first.json();
    assert_eq!(first["seq"], 1);

    replica.process.pause().expect("it runs");
    let id = new_id();
    for _ in 0..4 {
        // One command-api or the other: the repetition finds the message and is not acknowledged either.
        let begun = Instant::now();
        let answer = samer.put_message(id, &lena, "unknown").once().await;
        assert!(begun.elapsed() < ANSWER_TIME_MAX, "{:?}: {answer:?}", begun.elapsed());
        assert!(answer.header("retry-after").is_some(), "{answer:?}");
        assert_eq!(answer.expect_problem(503, "log_unavailable")["outcome"], "unknown");
    }
    let body = json!({ "username": "ben", "password": PASSWORD });
    let answer = app.post("/register").json(&body).once().await;
    assert_eq!(answer.expect_problem(503, "log_unavailable")["outcome"], "unknown");
    // Sessions are no events, and nobody reads from a replica.
    app.log_in("samer").await;
    assert!(lena.page(&samer, "").await.expect(200).items().contains(&first));

    replica.process.resume().expect("it runs");
    let sent = settled(|| samer.put_message(id, &lena, "unknown")).await.expect(200);
    assert_eq!(sent.header("idempotency-replayed"), Some("true"));
    assert_eq!((&sent.json()["seq"], &sent.json()["id"]), (&json!(2), &json!(id)));
    assert_eq!(lena.conversation(&samer).await, [first, sent.json()]);
    app.finish().await;
}
