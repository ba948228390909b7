//! The programs of the worked example of a changed view (docs/replay.md): its patch on a copy of the sources. They are
//! built before the tests run, as a build beside tests would disturb what those measure. What cargo has built of other
//! packages is shared; ours are of another version there, so that cargo keeps the two apart.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, ensure};

use super::REAL_FEATURES;
use crate::{output, workspace};

/// The tests that need the programs.
const TESTS: [&str; 2] = [
    "changed_view::a_directory_goes_to_the_new_program_and_back::embedded",
    "changed_view::old_and_new_programs_side_by_side_then_built_and_served_and_dropped::real",
];
const PATCH: &str = "docs/examples/changed-view.patch";
/// What of the root is no source, beside what is hidden and where cargo builds.
const DATA: &str = "data";

/// Whether a run of only these tests, or of all, needs the programs.
pub(super) fn is_needed(filter: &[String]) -> bool {
    filter.is_empty() || filter.iter().any(|one| TESTS.iter().any(|test| test.contains(one.as_str())))
}

/// Where the programs are.
pub(super) fn build() -> Result<PathBuf> {
    let since = Instant::now();
    let place = workspace::target_dir()?.join("xtask/changed-view");
    let (patched, sources) = (place.join("patched"), place.join("sources"));
    if patched.exists() {
        fs::remove_dir_all(&patched)?;
    }
    copy(&workspace::root()?, &patched, &is_source)?;
    apply(&patched)?;
    set_apart(&patched)?;
    // What is the same stays as it is, so that cargo finds it built.
    copy(&patched, &sources, &|path| {
        path.is_dir() || is_changed(path, &sources.join(path.strip_prefix(&patched).unwrap_or(path)))
    })?;
    let mut cargo = workspace::cargo()?;
    cargo.current_dir(&sources).args(["build", "--quiet", "--offline", "--workspace"]);
    cargo.args(["--bin", "projector", "--bin", "query-api", "--bin", "standalone"]);
    cargo.args(["--features", REAL_FEATURES]);
    cargo.env("CARGO_BUILD_BUILD_DIR", workspace::target_dir()?).env("CARGO_TARGET_DIR", &place);
    workspace::run(&mut cargo)?;
    output::part("build", "services with a changed view", since);
    Ok(place.join("debug"))
}

fn is_source(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    // Cargo marks where it builds.
    !name.starts_with('.') && name != DATA && !path.join("CACHEDIR.TAG").exists()
}

/// Files and directories, as far as `wanted`.
fn copy(from: &Path, to: &Path, wanted: &dyn Fn(&Path) -> bool) -> Result<()> {
    fs::create_dir_all(to).with_context(|| to.display().to_string())?;
    for entry in fs::read_dir(from).with_context(|| from.display().to_string())? {
        let (path, name) = entry.map(|entry| (entry.path(), entry.file_name()))?;
        if !wanted(&path) {
            continue;
        }
        if path.is_dir() {
            copy(&path, &to.join(name), wanted)?;
        } else {
            fs::copy(&path, to.join(name)).with_context(|| path.display().to_string())?;
        }
    }
    Ok(())
}

fn is_changed(one: &Path, other: &Path) -> bool {
    !matches!((fs::read(one), fs::read(other)), (Ok(one), Ok(other)) if one == other)
}

/// Strictly: nothing is guessed where the patch does not fit.
fn apply(sources: &Path) -> Result<()> {
    let mut git = Command::new("git");
    git.current_dir(sources).arg("apply").arg(workspace::root()?.join(PATCH));
    // Else git would take the copy for a part of the repository around it, and leave it as it is.
    git.env("GIT_CEILING_DIRECTORIES", sources.parent().unwrap_or(sources)).stdin(Stdio::null());
    let applied = git.output().context("git, which applies the patch")?;
    ensure!(
        applied.status.success(),
        "{PATCH} does not fit the sources any more:\n{}make its change once more and put what `git diff` shows there, \
         and look whether docs/replay.md (\"After a change of a view\") is still true",
        String::from_utf8_lossy(&applied.stderr)
    );
    Ok(())
}

fn set_apart(sources: &Path) -> Result<()> {
    let manifest = sources.join("Cargo.toml");
    let text = fs::read_to_string(&manifest)?;
    let version = "\nversion = \"";
    ensure!(text.matches(version).count() == 1, "the packages have no version in common");
    let (before, after) = text.split_once(version).context("a version")?;
    let (number, after) = after.split_once('"').context("a version")?;
    fs::write(&manifest, format!("{before}{version}{number}-changed\"{after}"))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::is_needed;

    #[test]
    fn a_run_of_other_tests_builds_nothing() {
        let needed = |filter: &[&str]| is_needed(&filter.iter().map(ToString::to_string).collect::<Vec<_>>());
        assert!(needed(&[]) && needed(&["changed_view"]) && needed(&["send::", "goes_to_the_new_program"]));
        assert!(!needed(&["send::"]) && !needed(&["contract", "rebuild"]));
    }
}
