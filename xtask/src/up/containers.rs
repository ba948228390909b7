//! Redis and Cassandra as containers, for machines with a container engine.

use std::fs;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};

use super::place::Place;
use crate::{output, workspace};

/// Says that the stores of this place are containers.
const MARK: &str = "containers";
const STORES: [&str; 2] = ["redis", "cassandra"];

pub(super) fn are_used(place: &Place) -> bool {
    place.path(MARK).exists()
}

pub(super) fn up(place: &Place) -> Result<()> {
    let since = Instant::now();
    for name in STORES {
        ensure!(place.running(name)?.is_none(), "{name} runs as a process: cargo xtask down first");
    }
    let answers = Command::new("docker")
        .args(["compose", "version"])
        .output()
        .is_ok_and(|output| output.status.success());
    let engine = Command::new("docker").arg("info").stdout(Stdio::null()).stderr(Stdio::null()).status();
    if !answers || !engine.is_ok_and(|status| status.success()) {
        bail!("no container engine answers, or docker has no compose: leave out --containers");
    }
    fs::write(place.path(MARK), "").context("cannot write to the target directory")?;
    workspace::run(compose()?.args(["up", "--detach", "--wait"]).args(STORES))?;
    output::part("containers", STORES.join(", "), since);
    Ok(())
}

/// False if there were none.
pub(super) fn down(place: &Place, purge: bool) -> Result<bool> {
    if !are_used(place) {
        return Ok(false);
    }
    let since = Instant::now();
    let mut command = compose()?;
    command.arg("down");
    if purge {
        command.arg("--volumes");
    }
    workspace::run(&mut command)?;
    fs::remove_file(place.path(MARK))?;
    output::part("containers", "ended", since);
    Ok(true)
}

fn compose() -> Result<Command> {
    let mut command = Command::new("docker");
    command.current_dir(workspace::root()?).args(["compose", "--project-name", "chat-up"]).args([
        "--file",
        "docker-compose.yml",
        "--file",
        "docker-compose.servers.yml",
    ]);
    Ok(command)
}
