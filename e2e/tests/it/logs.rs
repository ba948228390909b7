//! What a service writes while its log refuses it, and that the password of the log is not in it.

use e2e::process::{Process, Signal};
use e2e::{Client, environment, eventually, ports::free_address};
use serde_json::{Value, json};

e2e::real_scenarios!(the_password_of_redis_stays_out_of_the_log);

const SECRET: &str = "redis-secret-7f3a";

async fn the_password_of_redis_stays_out_of_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let (listen, operations) = (free_address(), free_address());
    // This Redis knows no passwords, and refuses every one.
    let url = environment::redis_url().replace("redis://", &format!("redis://:{SECRET}@"));
    let arguments = [
        ["--redis-url", &url],
        ["--listen", &listen.to_string()],
        ["--metrics-listen", &operations.to_string()],
        ["--log", "debug"],
    ];
    let arguments = arguments.as_flattened().iter().map(|&argument| argument.to_owned()).collect();
    let program = environment::binaries().join("command-api");
    let mut process = Process::start("command-api", &program, arguments, dir.path()).unwrap();
    let client = Client::new(listen);
    eventually("it answers", async || client.get("/healthz").try_send().await.ok()).await;
    let user = json!({ "username": "samer", "password": e2e::user::PASSWORD });
    client.post("/register").json(&user).send().await.expect_problem(503, "starting");
    client.post("/login").json(&user).send().await.expect_problem(503, "starting");
    process.signal(Signal::TERM).unwrap();
    process.ended().await.unwrap();

    let output = process.output();
    assert!(!output.contains(SECRET) && !output.contains(e2e::user::PASSWORD), "{output}");
    let failures = output.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    assert!(failures.filter(|line| line["level"] == "WARN").count() > 1, "{output}");
}
