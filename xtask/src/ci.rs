//! `cargo xtask ci`: every check, in the order of how soon it can fail.

use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result};

use crate::{output, test, tidy, workspace};

pub(crate) fn run() -> Result<()> {
    step("fmt", || cargo(&["fmt", "--all", "--", "--check"]))?;
    step("tidy", tidy::run)?;
    step("clippy", || {
        let lint = ["clippy", "--workspace", "--all-targets", "--features", test::REAL_FEATURES];
        cargo(&[&lint[..], &["--", "-D", "warnings"]].concat())
    })?;
    step("doc", || {
        let mut command = workspace::cargo()?;
        workspace::run(document(&mut command))
    })?;
    step("test", || test::Test::default().run())
}

fn document(command: &mut Command) -> &mut Command {
    command.args(["doc", "--workspace", "--no-deps", "--quiet"]).env("RUSTDOCFLAGS", "-D warnings")
}

fn cargo(arguments: &[&str]) -> Result<()> {
    workspace::run(workspace::cargo()?.args(arguments))
}

fn step(name: &str, work: impl FnOnce() -> Result<()>) -> Result<()> {
    let since = Instant::now();
    work().with_context(|| format!("ci: {name} failed"))?;
    output::part(&format!("ci: {name}"), "ok", since);
    Ok(())
}
