//! What processes use: CPU time and memory, as the kernel counts them in `/proc`. Nothing is asked of the
//! processes themselves.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::time::Instant;

/// A process that takes part in answering, by the name that reports use. Those of one name are counted together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) name: &'static str,
    pub(crate) pid: u32,
}

impl Part {
    /// The load client: this process.
    pub(crate) fn client() -> Self {
        Self { name: "client", pid: std::process::id() }
    }

    /// User and system time, in seconds, in steps of a clock tick (10 ms).
    pub(crate) fn cpu_seconds(&self) -> Result<f64> {
        let stat = self.read("stat")?;
        let ticks = ticks(&stat).with_context(|| format!("{} of {} is unreadable", stat, self.name))?;
        Ok(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
    }

    /// Resident memory.
    pub(crate) fn memory_bytes(&self) -> Result<u64> {
        let statm = self.read("statm")?;
        let pages = statm.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok());
        let pages = pages.with_context(|| format!("{} of {} is unreadable", statm, self.name))?;
        Ok(pages * u64::try_from(rustix::param::page_size())?)
    }

    /// The most that was resident so far.
    pub(crate) fn memory_peak_bytes(&self) -> Result<u64> {
        let status = self.read("status")?;
        let peak = kibibytes(&status, "VmHWM:");
        Ok(1024 * peak.with_context(|| format!("the status of {} has no peak of memory", self.name))?)
    }

    /// The processes that it has started, as parts of the same name.
    pub(crate) fn children(&self) -> Result<Vec<Self>> {
        let pids = self.read(&format!("task/{}/children", self.pid))?;
        pids.split_whitespace().map(|pid| Ok(Self { pid: pid.parse()?, ..*self })).collect()
    }

    fn read(&self, file: &str) -> Result<String> {
        fs::read_to_string(format!("/proc/{}/{file}", self.pid))
            .with_context(|| format!("{} has ended", self.name))
    }
}

/// Fields 14 and 15. The name in brackets may hold anything, so fields are counted from the last bracket.
fn ticks(stat: &str) -> Option<u64> {
    let mut fields = stat[stat.rfind(')')? + 1..].split_whitespace();
    let user: u64 = fields.nth(11)?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

/// From a line such as `VmHWM:     1234 kB`.
fn kibibytes(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().strip_suffix(" kB")?.parse().ok()
}

/// CPU seconds of each part so far.
pub(crate) fn sample(parts: &[Part], into: &mut Vec<(&'static str, f64)>) -> Result<()> {
    for part in parts {
        into.push((part.name, part.cpu_seconds()?));
    }
    Ok(())
}

/// Waits until none of the parts does anything worth mentioning: what one measurement left to do (a projection,
/// a compaction) must not be paid by the next. Gives up after a while, as some servers never rest.
pub(crate) async fn settle(parts: &[Part]) -> Result<()> {
    const LOOK_EVERY: Duration = Duration::from_millis(100);
    const WAIT_MAX: Duration = Duration::from_secs(20);
    const RESTING_SECONDS: f64 = 0.011;
    let deadline = Instant::now() + WAIT_MAX;
    let total = || parts.iter().map(Part::cpu_seconds).sum::<Result<f64>>();
    let mut before = total()?;
    while Instant::now() < deadline {
        tokio::time::sleep(LOOK_EVERY).await;
        let now = total()?;
        if now - before < RESTING_SECONDS {
            break;
        }
        before = now;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_found_behind_any_name() {
        let stat = "7 (a ) (b) S 1 7 7 0 -1 4194560 1 0 0 0 12 30 0 0 20 0 1 0 99 1000 10";
        assert_eq!(ticks(stat), Some(42));
        assert_eq!(ticks("7 (a"), None);
    }

    #[test]
    fn this_process_uses_something() {
        let client = Part::client();
        assert!(client.memory_bytes().unwrap() > 100_000);
        assert!(client.memory_peak_bytes().unwrap() >= client.memory_bytes().unwrap() / 2);
        assert_eq!(kibibytes("VmPeak:\t 9 kB\nVmHWM:\t  12 kB\n", "VmHWM:"), Some(12));
        assert!(client.cpu_seconds().unwrap() < 1e6);
    }
}
