//! Rules for single files.

use super::{Finding, SourceFile, Tree};

const LINES_MAX: usize = 500;
const PACKAGES_MAX: usize = 260;

/// Written in two pieces, so that this file keeps its own rule.
const UNDONE: [&str; 3] = [concat!("todo", "!"), concat!("unimplemented", "!"), concat!("#[", "ignore")];
const HOMES: [&str; 4] =
    [concat!("/ho", "me/"), concat!("/ro", "ot/"), concat!("/Us", "ers/"), concat!("C:", "\\Users")];

/// The first line of every file says what it is for.
pub(super) fn every_file_says_what_it_is_for(tree: &Tree) -> Vec<Finding> {
    let silent = tree.rust().filter(|file| !file.text.starts_with("//! "));
    silent.map(|file| file.finding(1, "the first line is not a `//!` header")).collect()
}

pub(super) fn no_file_is_too_long(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in tree.rust().filter(|file| !is_test_file(&file.path)) {
        let lines = lines_before_tests(file);
        if lines > LINES_MAX {
            findings.push(
                file.finding(LINES_MAX + 1, format!("{lines} lines without tests, {LINES_MAX} is the end")),
            );
        }
    }
    findings
}

pub(super) fn dependencies_are_few(tree: &Tree) -> Vec<Finding> {
    let Some(lock) = tree.get("Cargo.lock") else { return Vec::new() };
    let packages: Vec<usize> =
        lock.lines().filter(|(_, line)| *line == "[[package]]").map(|(number, _)| number).collect();
    match packages.get(PACKAGES_MAX) {
        Some(line) => {
            vec![lock.finding(*line, format!("{} packages, {PACKAGES_MAX} is the limit", packages.len()))]
        }
        None => Vec::new(),
    }
}

/// No placeholder, no test that is switched off.
pub(super) fn nothing_is_left_undone(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in tree.rust() {
        for (number, line) in file.code() {
            for word in UNDONE.iter().filter(|word| line.contains(**word)) {
                findings.push(file.finding(number, format!("`{word}` is not for committed code")));
            }
        }
    }
    findings
}

/// A path below somebody's home, or of this very checkout, works on one machine only.
pub(super) fn no_path_of_one_machine(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    // A checkout right below the root (`/app`) has a name that other paths may start with.
    let own = (tree.root.matches('/').count() > 1).then_some(tree.root.as_str());
    for file in tree.rust() {
        for (number, line) in file.lines() {
            for home in HOMES.into_iter().chain(own).filter(|home| line.contains(*home)) {
                findings.push(file.finding(number, format!("`{home}` is a path of one machine")));
            }
        }
    }
    findings
}

fn is_test_file(path: &str) -> bool {
    path.contains("/tests/") || path.ends_with("/tests.rs")
}

fn lines_before_tests(file: &SourceFile) -> usize {
    let mut previous = "";
    for (number, line) in file.lines() {
        if previous == "#[cfg(test)]" && line.starts_with("mod ") && line.ends_with('{') {
            return number - 2;
        }
        previous = line;
    }
    file.lines().count()
}
