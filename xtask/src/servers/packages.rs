//! Programs that the servers are made of: found on PATH, installed by apt where that is possible.

use std::env;
use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// Where daemons live; not on every user's PATH.
const DAEMON_DIRS: [&str; 3] = ["/usr/local/sbin", "/usr/sbin", "/sbin"];

/// Debian starts a daemon when it is installed, unless this policy forbids it. It is taken away again
/// whatever happens, and one that was there before stays.
const INSTALL: &str = r#"
set -e
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    trap 'rm -f "$policy"' EXIT
    trap 'exit 130' HUP INT TERM
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -q
apt-get install -q -y --no-install-recommends -o DPkg::Lock::Timeout=300 "$0"
"#;

/// The path of a program; installs `package` if it is missing, this is Debian and we are root.
pub(super) fn require(program: &str, package: &str) -> Result<PathBuf> {
    if let Some(found) = find(program) {
        return Ok(found);
    }
    // One at a time: apt's lock on its package lists does not wait.
    let _lock = Lock::take("apt")?;
    if let Some(found) = find(program) {
        return Ok(found);
    }
    if !is_root() || !Path::new("/etc/debian_version").exists() || find("apt-get").is_none() {
        bail!(
            "{program} is not installed (on Debian, as root: apt-get install --no-install-recommends {package})"
        );
    }
    eprintln!("installing {package}");
    let output =
        Command::new("sh").args(["-c", INSTALL, package]).stdin(Stdio::null()).output().context("sh")?;
    if !output.status.success() {
        bail!("installing {package} failed ({})\n{}", output.status, String::from_utf8_lossy(&output.stderr));
    }
    find(program).with_context(|| format!("{package} is installed, but {program} is not on PATH"))
}

/// Where downloads are kept: `$XDG_CACHE_HOME/chat-system`.
pub(super) fn cache_dir() -> Result<PathBuf> {
    let base = env::var_os("XDG_CACHE_HOME").filter(|value| !value.is_empty()).map(PathBuf::from);
    let base = base.or_else(|| env::var_os("HOME").map(|home| Path::new(&home).join(".cache")));
    let dir = base.context("neither XDG_CACHE_HOME nor HOME is set")?.join("chat-system");
    fs::create_dir_all(&dir).with_context(|| format!("{}", dir.display()))?;
    Ok(dir)
}

pub(super) fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|metadata| metadata.uid() == 0)
}

/// Held by one process at a time; let go when dropped, or when the process ends.
pub(super) struct Lock(#[expect(dead_code, reason = "the lock lasts as long as the file is open")] File);

impl Lock {
    pub(super) fn take(name: &str) -> Result<Self> {
        let path = cache_dir()?.join(format!("{name}.lock"));
        let file = File::create(&path).with_context(|| format!("{}", path.display()))?;
        file.lock().with_context(|| format!("{}", path.display()))?;
        Ok(Self(file))
    }
}

fn find(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let dirs = env::split_paths(&path).chain(DAEMON_DIRS.iter().map(PathBuf::from));
    dirs.map(|dir| dir.join(program)).find(|candidate| is_executable(candidate))
}

fn is_executable(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}
