//! Commands of an operator that cannot be done: one line that says why, at once, and an exit status that is not 0.

use std::process::Output;
use std::time::{Duration, Instant};

use e2e::environment::{binaries, cassandra_node, redis_url};
use e2e::ports::free_address;
use e2e::process;

e2e::real_scenarios!(a_store_that_is_not_there_is_named_at_once, a_port_that_is_taken_is_told_alone);

/// A third of the time for which a store that says nothing is waited for.
const AT_ONCE: Duration = Duration::from_secs(5);

/// Status, standard output and standard error.
async fn run(program: &str, arguments: &[&str]) -> (Option<i32>, String, String) {
    let mut command = process::command(&binaries().join(program));
    command.args(arguments).env("RUST_BACKTRACE", "1");
    let ended = tokio::task::spawn_blocking(move || command.output()).await;
    let Output { status, stdout, stderr } = ended.expect("no panic").expect("it runs");
    let text = |bytes| String::from_utf8(bytes).expect("text");
    (status.code(), text(stdout), text(stderr))
}

async fn a_store_that_is_not_there_is_named_at_once() {
    let (nowhere, redis, cassandra) = (free_address(), redis_url(), cassandra_node());
    let with_password = format!("redis://:hunter2@{nowhere}/");
    let no_redis = format!("error: no Redis at {nowhere} (--redis-url): connection refused\n");
    let no_cassandra = format!("error: no Cassandra at {nowhere} (--cassandra-nodes): connection refused\n");
    let nowhere = nowhere.to_string();
    for command in [&["status", "--json"][..], &["repair", "--json"], &["restore"], &["serve", "2"]] {
        for (redis, cassandra, said) in
            [(&with_password, &cassandra, &no_redis), (&redis, &nowhere, &no_cassandra)]
        {
            let places = ["--redis-url", redis, "--cassandra-nodes", cassandra];
            let begun = Instant::now();
            let ended = run("projector", &[command, &places].concat()).await;
            assert_eq!(ended, (Some(1), String::new(), said.clone()), "{command:?}");
            assert!(begun.elapsed() < AT_ONCE, "{command:?}: {:?}", begun.elapsed());
        }
    }
}

async fn a_port_that_is_taken_is_told_alone() {
    let (redis, cassandra) = (redis_url(), cassandra_node());
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let taken = listener.local_addr().expect("an address").to_string();
    let places = ["--redis-url", &redis, "--cassandra-nodes", &cassandra, "--metrics-listen", &taken];
    for (program, command) in [("projector", &["run"][..]), ("query-api", &["--listen", "127.0.0.1:0"])] {
        let (status, _, errors) = run(program, &[command, &places].concat()).await;
        assert_eq!(status, Some(1), "{program}: {errors}");
        let said = format!("error: cannot listen on {taken}: ");
        assert!(errors.starts_with(&said) && errors.lines().count() == 1, "{program}: {errors}");
    }
}
