//! `standalone verify` on a directory: after a kill, beside a running process, and where there is none.

use e2e::process::Signal;
use e2e::traffic::Traffic;
use serde_json::Value;

use crate::{Running, command, text};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_is_what_its_log_says_after_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let mut running = Running::start(dir.path(), &[]).await;
    let pairs = running.pairs().await;
    let traffic = Traffic::start(&pairs, 8).await;
    traffic.go_on_for(200).await;
    let beside = command("verify", &data, &[]);
    assert_eq!(beside.status.code(), Some(1));
    assert!(text(&beside.stderr).contains("in use"), "{}", text(&beside.stderr));
    running.process.kill().unwrap();
    let compared = command("verify", &data, &["--json"]);
    let comparison: Value = serde_json::from_str(&text(&compared.stdout)).unwrap();
    assert!(compared.status.success(), "{comparison}");
    assert_eq!(comparison["differences"], 0);
    assert!(comparison["events"].as_u64().unwrap() >= 205, "{comparison}");

    // It has harmed nobody.
    running.process.restart().unwrap();
    running.ready().await;
    let sent = traffic.end().await;
    e2e::traffic::assert_all_visible(&pairs, &sent).await;
    running.process.signal(Signal::TERM).unwrap();
    running.process.ended().await.unwrap();
    let compared = command("verify", &data, &[]);
    assert!(
        compared.status.success() && text(&compared.stdout).ends_with("\nno difference\n"),
        "{compared:?}"
    );
}

#[test]
fn a_directory_that_is_not_there_is_not_made() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let output = command("verify", &data, &[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("there is no store in "), "{output:?}");
    assert!(!data.exists());
}
