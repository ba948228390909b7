//! Services that are there before their stores.

use std::net::SocketAddr;

use e2e::environment::binaries;
use e2e::ports::free_address;
use e2e::process::{Process, Signal};
use e2e::{Client, User, eventually, new_id};
use serde_json::json;
use tempfile::TempDir;
use xtask::servers::Options;

use crate::outage;

e2e::real_scenarios!(a_service_says_that_it_starts_until_its_stores_were_there);

/// On a Redis and a Cassandra at these addresses, which need not be there.
pub(crate) fn start(
    name: &str,
    redis: SocketAddr,
    cassandra: Option<SocketAddr>,
    dir: &TempDir,
) -> (Client, Process) {
    let (listen, operations) = (free_address(), free_address());
    let mut flags = vec![
        ("--listen", listen.to_string()),
        ("--metrics-listen", operations.to_string()),
        ("--redis-url", format!("redis://{redis}/")),
    ];
    flags.extend(cassandra.map(|node| ("--cassandra-nodes", node.to_string())));
    let arguments = flags.into_iter().flat_map(|(flag, value)| [flag.to_owned(), value]).collect();
    let process = Process::start(name, &binaries().join(name), arguments, dir.path());
    (Client::new(listen), process.expect("it starts"))
}

async fn a_service_says_that_it_starts_until_its_stores_were_there() {
    let (dir, redis) = (tempfile::tempdir().expect("a temporary directory"), free_address());
    let (commands, mut command_api) = start("command-api", redis, None, &dir);
    let (queries, mut query_api) = start("query-api", redis, Some(free_address()), &dir);
    for client in [&commands, &queries] {
        let report = eventually("it answers", async || client.get("/readyz").try_send().await.ok()).await;
        assert_eq!(report.expect(503).json()["status"], "waiting");
        client.get("/healthz").once().await.expect(200);
    }

    for (process, says) in [(&command_api, "no connection to Redis"), (&query_api, "cannot use cassandra")] {
        let why = |line: &str| line.contains(says) && line.contains("refused");
        eventually("it says why", async || process.output().lines().any(why).then_some(())).await;
    }

    let account = json!({ "username": "samer", "password": "password123" });
    let message = json!({ "recipient": "lena", "content": "hi" });
    let nobody = "A".repeat(43);
    let (samer, reader) =
        (User::with_token(&commands, "samer", &nobody), User::with_token(&queries, "samer", &nobody));
    for request in [
        commands.post("/register").json(&account),
        commands.post("/login").json(&account),
        samer.post("/send").json(&message),
        samer.put(&format!("/messages/{}", new_id())).json(&message),
        samer.put("/conversations/lena/read").json(&json!({ "seq": 1 })),
        samer.post("/logout"),
    ] {
        let problem = request.once().await.expect_problem(503, "starting");
        assert_eq!(problem["outcome"], "not_applied", "{problem}");
    }
    for path in ["/conversations", "/messages?sender=samer&recipient=lena"] {
        reader.get(path).once().await.expect_problem(503, "starting");
    }
    // What is wrong without any store is told as ever.
    commands.get("/nothing").once().await.expect_problem(404, "not_found");
    commands.post("/send").json(&message).once().await.expect_problem(401, "unauthenticated");

    let mut server = outage::start(Options { dir: dir.path().join("redis"), port: redis.port() }).await;
    eventually("it has found the log", async || {
        let answer = commands.post("/register").json(&account).once().await;
        if answer.status == 503 {
            assert_eq!(answer.expect_problem(503, "starting")["outcome"], "not_applied");
            return None;
        }
        Some(answer.expect(201))
    })
    .await;
    eventually("it is ready", async || (commands.get("/readyz").once().await.status == 200).then_some(()))
        .await;
    // From now on it is the log that went away.
    server.kill().expect("it ran");
    eventually("it has noticed", async || {
        let answer = samer.post("/send").json(&message).once().await;
        (answer.status == 503).then(|| drop(answer.expect_problem(503, "log_unavailable")))
    })
    .await;
    for process in [&mut command_api, &mut query_api] {
        process.signal(Signal::TERM).expect("it runs");
        process.ended().await.expect("it ends in good order");
    }
}
