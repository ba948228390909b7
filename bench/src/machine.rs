//! What a run was made on: figures without it mean nothing. Nothing here fails; what cannot be found is said.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde::Serialize;

#[derive(Debug, Clone, Serialize)]
pub(crate) struct Machine {
    pub(crate) cpu: String,
    pub(crate) cores: usize,
    pub(crate) memory_mib: u64,
    /// Device and file system of the data.
    pub(crate) disk: String,
    pub(crate) kernel: String,
}

#[derive(Debug, Clone, Serialize)]
pub(crate) struct Versions {
    pub(crate) commit: String,
    pub(crate) rust: String,
    pub(crate) redis: String,
}

const UNKNOWN: &str = "unknown";

impl Machine {
    pub(crate) fn with_data_in(dir: &Path) -> Self {
        let field = |file: &str, name: &str| {
            let text = fs::read_to_string(file).unwrap_or_default();
            let line = text.lines().find(|line| line.starts_with(name)).map(str::to_owned);
            line.and_then(|line| Some(line.split_once(':')?.1.trim().to_owned()))
        };
        let memory = field("/proc/meminfo", "MemTotal").unwrap_or_default();
        let memory_kib: u64 = memory.trim_end_matches(" kB").parse().unwrap_or(0);
        Self {
            cpu: field("/proc/cpuinfo", "model name").unwrap_or_else(|| UNKNOWN.to_owned()),
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            memory_mib: memory_kib / 1024,
            disk: disk(&fs::read_to_string("/proc/mounts").unwrap_or_default(), dir),
            kernel: said_by("uname", &["-sr"]),
        }
    }
}

impl Versions {
    /// Of the tools that are on the `PATH` now.
    pub(crate) fn here() -> Self {
        let commit = said_by("git", &["rev-parse", "--short=12", "HEAD"]);
        let changed =
            if said_by("git", &["status", "--porcelain"]) == UNKNOWN { "" } else { " with changes" };
        Self {
            commit: commit + changed,
            rust: said_by("rustc", &["--version"]),
            redis: said_by("redis-server", &["--version"]),
        }
    }
}

/// The first line; `unknown` when the program is not there, fails or says nothing.
fn said_by(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().ok().filter(|output| output.status.success());
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    text.lines().next().unwrap_or(UNKNOWN).to_owned()
}

/// The mount that `dir` lies in is the longest that it begins with.
fn disk(mounts: &str, dir: &Path) -> String {
    let mounts = mounts.lines().filter_map(|line| {
        let mut words = line.split(' ');
        Some((words.next()?, words.next()?, words.next()?))
    });
    let holding = mounts.filter(|(_, point, _)| dir.starts_with(point));
    let longest = holding.max_by_key(|(_, point, _)| point.len());
    longest.map_or_else(|| UNKNOWN.to_owned(), |(device, _, kind)| format!("{kind} on {device}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_disk_of_a_directory() {
        let mounts = "/dev/a / ext4 rw 0 0\ntmpfs /tmp tmpfs rw 0 0\n/dev/b /srv/data xfs rw 0 0\n";
        for (dir, found) in [
            ("/opt/x", "ext4 on /dev/a"),
            ("/tmp/x", "tmpfs on tmpfs"),
            ("/srv/data", "xfs on /dev/b"),
            ("/srv/database", "ext4 on /dev/a"),
        ] {
            assert_eq!(disk(mounts, Path::new(dir)), found, "{dir}");
        }
        assert_eq!(disk("", Path::new("/")), "unknown");
    }

    #[test]
    fn what_is_not_there_is_unknown() {
        assert_eq!(said_by("no-such-program-here", &[]), UNKNOWN);
        assert_eq!(said_by("false", &[]), UNKNOWN);
    }
}
