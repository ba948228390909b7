//! What services and nginx write: no password of a server, and no line that a client made up.

use e2e::process::{Process, Signal};
use e2e::{Backend, Client, TestApp, environment, eventually, ports::free_address};
use serde_json::{Value, json};

e2e::real_scenarios!(the_password_of_redis_stays_out_of_the_log, no_client_writes_a_line_of_the_log);

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
    client.post("/register").json(&user).once().await.expect_problem(503, "starting");
    client.post("/login").json(&user).once().await.expect_problem(503, "starting");
    process.signal(Signal::TERM).unwrap();
    process.ended().await.unwrap();

    let output = process.output();
    assert!(!output.contains(SECRET) && !output.contains(e2e::user::PASSWORD), "{output}");
    let failures = output.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    assert!(failures.filter(|line| line["level"] == "WARN").count() > 1, "{output}");
}

/// As it would stand in a log if somebody believed it.
const FORGED: &str = "x\r\n{\"level\":\"ERROR\",\"forged\":true}\r\n";

async fn no_client_writes_a_line_of_the_log() {
    let app = TestApp::start(Backend::Real).await;
    let (samer, lena) = (app.register("samer").await, app.register("lena").await);
    let encoded: String = FORGED.bytes().map(|byte| format!("%{byte:02x}")).collect();
    for path in [
        format!("/{encoded}"),
        format!("/messages/{encoded}"),
        format!("/conversations/{encoded}"),
        format!("/messages?sender=samer&recipient={encoded}"),
    ] {
        for request in [samer.get(&path), samer.put(&path).json(&json!({ "seq": 1 }))] {
            let answer = request.header("user-agent", "\"}\\x").header("referer", &encoded).send().await;
            assert!((400..500).contains(&answer.status), "{answer:?}");
        }
    }
    for name in [FORGED, "samer"] {
        let account = json!({ "username": name, "password": FORGED });
        let login = app.post("/login").json(&account).send().await;
        login.expect_problem(401, "invalid_credentials");
    }
    samer.send(&lena, FORGED).await;
    samer.get("/conversations").header("x-request-id", "\"},{").send().await.expect(200);
    // What no client library sends: line ends of each kind in the request line and in headers.
    for bytes in [
        format!("GET /{FORGED} HTTP/1.1\r\nHost: chat\r\n\r\n"),
        "GET /x\n{\"forged\":true} HTTP/1.1\r\nHost: chat\r\n\r\n".to_owned(),
        "GET /x\r{\"forged\":true} HTTP/1.1\r\nHost: chat\r\n\r\n".to_owned(),
        "GET\"} / HTTP/1.1\r\nHost: chat\r\nConnection: close\r\n\r\n".to_owned(),
        "GET /healthz HTTP/1.1\r\nHost: x\n{\"forged\":true}\r\nConnection: close\r\n\r\n".to_owned(),
        "GET /x HTTP/1.1\r\nHost: x\r\nX-Request-Id: a\r{\"forged\":true}\r\nConnection: close\r\n\r\n"
            .to_owned(),
    ] {
        app.raw(bytes.as_bytes()).await;
    }
    samer.get("/conversations").header("x-request-id", "the-last").send().await.expect(200);
    eventually("nginx has written its line", async || {
        app.processes().logs().await["nginx"].contains("\"the-last\"").then_some(())
    })
    .await;
    let logs = app.processes().logs().await;
    assert!(logs["nginx"].lines().count() > 10, "{logs:?}");
    for (name, line) in logs.iter().flat_map(|(name, log)| log.lines().map(move |line| (name, line))) {
        let line: Value =
            serde_json::from_str(line).unwrap_or_else(|error| panic!("{name}: {error}: {line}"));
        assert!(line.is_object() && line.get("forged").is_none(), "{name}: {line}");
    }
    app.finish().await;
}
