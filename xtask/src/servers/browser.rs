//! A real browser without a screen, for what only a browser can show.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use super::packages;
use super::process::Process;

/// Chromium on one page, with a profile of its own. It ends with its handle.
#[derive(Debug)]
pub struct Browser {
    _process: Process,
}

impl Browser {
    /// Returns at once; what the page does is for the page to tell. Everything that it writes goes to `dir`.
    pub fn open(url: &str, dir: &Path) -> Result<Self> {
        let program = packages::require("chromium", "chromium")?;
        fs::create_dir_all(dir).with_context(|| format!("{}", dir.display()))?;
        let mut command = Process::command(program);
        command.args(["--headless", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"]);
        // Nothing of a browser that talks to anybody but the page's server.
        command.args(["--disable-background-networking", "--disable-component-update", "--disable-sync"]);
        // It ends only when it is told to.
        command.arg("--remote-debugging-port=0");
        if packages::is_root() {
            // Chromium's own sandbox does not work for root.
            command.arg("--no-sandbox");
        }
        command.arg(format!("--user-data-dir={}", dir.join("profile").display())).arg(url);
        Ok(Self { _process: Process::spawn("chromium", command, &dir.join("log"))? })
    }
}
