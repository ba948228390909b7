//! Views that are built anew: by `standalone rebuild`, killed at any point, and by a start that finds others than its own.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use e2e::process::{Process, Signal};
use e2e::traffic::{Traffic, assert_all_visible};
use serde_json::Value;
use shared::event::MessageSent;

use crate::{Running, append, command, open_store, text};

/// From one kill to the next a rebuild comes so much further.
const STEP: Duration = Duration::from_millis(120);
const KILLS_MAX: u32 = 40;

fn compared(name: &str, data: &Path) -> Value {
    let output = command(name, data, &["--json"]);
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn views_are_built_anew_whenever_that_is_killed_before() {
    let dir = tempfile::tempdir().unwrap();
    let (data, views) = (dir.path().join("data"), dir.path().join("data/views"));
    let mut running = Running::start(dir.path(), &[]).await;
    let pairs = running.pairs().await;
    let traffic = Traffic::start(&pairs, 8).await;
    traffic.go_on_for(500).await;
    let beside = command("rebuild", &data, &[]);
    assert!(!beside.status.success() && text(&beside.stderr).contains("in use"), "{beside:?}");
    let sent = traffic.end().await;
    running.process.kill().unwrap();

    // Killed earlier and later, until one is through before that.
    let mut kills = 0;
    loop {
        let before = fs::metadata(&views).unwrap().ino();
        let arguments = ["rebuild", "--data-dir", &data.display().to_string()].map(str::to_owned).to_vec();
        let program = Path::new(env!("CARGO_BIN_EXE_standalone"));
        let mut rebuild = Process::start("rebuild", program, arguments, dir.path()).unwrap();
        tokio::time::sleep(STEP * kills).await;
        if rebuild.exit_status().unwrap().is_some_and(|status| status.success()) {
            break;
        }
        // It may be through just now.
        let _ = rebuild.kill();
        let is_as_before = fs::metadata(&views).is_ok_and(|now| now.ino() == before);
        assert!(is_as_before || compared("verify", &data)["differences"] == 0, "kill {kills}");
        kills += 1;
        assert!(kills < KILLS_MAX, "{}", rebuild.tail());
    }
    assert!(kills > 1, "{kills} kills met nothing");
    assert_eq!(compared("verify", &data)["differences"], 0);
    assert!(!data.join("views-new").exists(), "what was begun is left");
    let comparison = compared("rebuild", &data);
    assert_eq!(comparison["differences"], 0);
    assert!(comparison["events"].as_u64().unwrap() >= 505, "{comparison}");

    running.process.restart().unwrap();
    running.ready().await;
    assert_all_visible(&pairs, &sent).await;
    running.process.signal(Signal::TERM).unwrap();
    running.process.ended().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn views_of_another_shape_and_damaged_ones_are_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let (data, shape) = (dir.path().join("data"), dir.path().join("data/views/shape"));
    let mut running = Running::start(dir.path(), &[]).await;
    let pairs = running.pairs().await;
    let traffic = Traffic::start(&pairs, 4).await;
    traffic.go_on_for(50).await;
    let sent = traffic.end().await;
    running.process.signal(Signal::TERM).unwrap();
    running.process.ended().await.unwrap();
    let ours = fs::read_to_string(&shape).unwrap();

    fs::write(&shape, "another").unwrap();
    let refused = command("verify", &data, &[]);
    assert!(text(&refused.stderr).contains("another shape"), "{refused:?}");
    running.process.restart().unwrap();
    running.ready().await;
    // Before anybody could connect.
    assert!(running.process.output().contains("the views are built anew"), "{}", running.process.output());
    assert!(running.process.output().contains("events folded: "), "{}", running.process.output());
    assert_eq!(fs::read_to_string(&shape).unwrap(), ours);
    assert_all_visible(&pairs, &sent).await;
    running.process.signal(Signal::TERM).unwrap();
    running.process.ended().await.unwrap();

    fs::remove_file(data.join("views/version")).unwrap();
    assert!(!command("verify", &data, &[]).status.success());
    assert_eq!(compared("rebuild", &data)["differences"], 0);
    assert_eq!(compared("verify", &data)["differences"], 0);
}

/// Enough of them that the views are more than what is kept in memory.
const LARGE_MESSAGES: usize = 3_000;
const LARGE_MESSAGE_BYTES: usize = 7_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damaged_rows_end_a_comparison_at_once_and_are_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let store = open_store(&data);
    let (sender, recipient) = ("samer".parse().unwrap(), "lena".parse().unwrap());
    // Of which a table keeps every byte: it cannot be compressed.
    let digits = (1..=LARGE_MESSAGE_BYTES as u64 / 16)
        .map(|n| n.wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(n as u32));
    let content = digits.map(|digits| format!("{digits:016x}")).collect();
    let sent = MessageSent { sender, recipient, content };
    append(&store, &vec![sent; LARGE_MESSAGES]).await;
    drop(store);
    assert_eq!(compared("rebuild", &data)["differences"], 0);

    let tables = fs::read_dir(data.join("views/keyspaces/1/tables")).unwrap();
    let mut damaged = 0;
    for table in tables.map(|table| table.unwrap().path()) {
        let mut bytes = fs::read(&table).unwrap();
        // Rows; what tells where they are lies at the end, and is looked at when it is opened.
        let at = bytes.len() / 10;
        bytes[at] ^= 0xFF;
        damaged += 1;
        fs::write(&table, bytes).unwrap();
    }
    assert!(damaged > 0, "all rows are in the journal");
    let refused = command("verify", &data, &[]);
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    let said = "error: the views cannot be read: `standalone rebuild` makes others: store is damaged";
    assert!(text(&refused.stderr).contains(said), "{refused:?}");
    assert_eq!(compared("rebuild", &data)["differences"], 0);
    assert_eq!(compared("verify", &data)["differences"], 0);
}
