//! Starts that cannot be meant: one clear line and an exit status that is not 0.

use std::path::Path;

use e2e::eventually;
use e2e::ports::free_address;
use e2e::process::{self, Process, Signal};

use crate::{Running, spawn, text};

/// Waits for the end of a process that must not start; what it wrote.
async fn refusal(mut process: Process) -> String {
    let ended = async || process.exit_status().unwrap();
    let status = eventually("it ends", ended).await;
    let output = process.output();
    assert!(!status.success(), "{status}: {output}");
    assert!(!output.contains("panicked") && !output.contains("curl "), "{output}");
    output
}

#[tokio::test]
async fn a_second_process_on_the_directory() {
    let dir = tempfile::tempdir().unwrap();
    let mut running = Running::start(dir.path(), &[]).await;
    let output = refusal(spawn("second", dir.path(), free_address(), &[])).await;
    let directory = dir.path().join("data").display().to_string();
    assert!(output.lines().any(|line| line.contains(&directory) && line.contains("use")), "{output}");
    // The first one is none the worse for it.
    running.client.get("/readyz").send().await.expect(200);
    running.process.signal(Signal::TERM).unwrap();
    running.process.ended().await.unwrap();

    // Once it has ended, the directory is free.
    let mut next = Running::start(dir.path(), &[]).await;
    next.process.kill().unwrap();
    // A killed process leaves no lock behind.
    let mut after = Running::start(dir.path(), &[]).await;
    after.process.signal(Signal::TERM).unwrap();
    after.process.ended().await.unwrap();
}

#[tokio::test]
async fn a_port_that_is_taken() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut running = Running::start(dir.path(), &[]).await;
    let output = refusal(spawn("second", other.path(), running.address, &[])).await;
    let address = running.address.to_string();
    assert!(output.lines().any(|line| line.contains("cannot listen") && line.contains(&address)), "{output}");
    running.process.signal(Signal::TERM).unwrap();
    running.process.ended().await.unwrap();
}

#[tokio::test]
async fn open_mode_on_an_address_that_others_reach() {
    let dir = tempfile::tempdir().unwrap();
    let address = std::net::SocketAddr::from(([0, 0, 0, 0], free_address().port()));
    let output = refusal(spawn("open", dir.path(), address, &["--auth", "open"])).await;
    assert!(output.lines().any(|line| line.contains("--auth open") && line.contains("loopback")), "{output}");
    assert!(!dir.path().join("data").exists(), "refused before anything is made");
}

#[tokio::test]
async fn settings_that_make_no_sense() {
    for arguments in [
        &["--auth", "none"][..],
        &["--idempotency-window", "0s"],
        &["--idempotency-window", "1 fortnight"],
        &["--no-such-flag"],
    ] {
        let dir = tempfile::tempdir().unwrap();
        let output = refusal(spawn("wrong", dir.path(), free_address(), arguments)).await;
        assert!(output.contains(arguments[0]), "{output}");
    }
}

#[tokio::test]
async fn commands_on_a_directory_that_is_none() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data").display().to_string();
    for arguments in [&["verify", "--json"][..], &["rebuild", "--json"], &["parked", "list", "--json"]] {
        let mut command = process::command(Path::new(env!("CARGO_BIN_EXE_standalone")));
        // Nobody who is refused wants to know where in the program.
        let ended = command.args(arguments).args(["--data-dir", &data]).env("RUST_BACKTRACE", "1").output();
        let ended = ended.unwrap();
        let said = (ended.status.code(), text(&ended.stdout), text(&ended.stderr));
        assert_eq!(
            said,
            (Some(1), String::new(), format!("error: there is no store in {data}\n")),
            "{arguments:?}"
        );
    }
}
