//! `cargo xtask tidy`: the rules of the house that neither the compiler nor clippy knows.
//!
//! A rule is a function from the tree of files to findings, so each is tested on a small tree in memory.

use std::fmt;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::{output, workspace};

mod boundaries;
mod cql;
mod docs;
mod events;
mod files;
mod json;
#[cfg(test)]
mod tests;

/// The files that rules look at.
const EXTENSIONS: [&str; 5] = ["rs", "cql", "json", "lock", "md"];
/// Not ours, or made by a command.
const DIRS_SKIPPED: [&str; 3] = ["target", "data", "node_modules"];

const RULES: [fn(&Tree) -> Vec<Finding>; 13] = [
    boundaries::services_do_not_name_storage,
    files::every_file_says_what_it_is_for,
    files::no_file_is_too_long,
    files::dependencies_are_few,
    files::nothing_is_left_undone,
    files::no_path_of_one_machine,
    events::every_stored_shape_has_a_golden_file,
    cql::statements_keep_the_merge,
    docs::links_lead_somewhere,
    docs::files_that_are_named_exist,
    docs::tests_that_are_named_exist,
    docs::documents_that_are_named_exist,
    docs::every_setting_is_listed,
];

pub(crate) fn run() -> Result<()> {
    let root = workspace::root()?;
    let findings = check(&Tree::read(&root)?);
    for finding in &findings {
        output::line(finding);
    }
    if !findings.is_empty() {
        bail!("tidy: {} findings", findings.len());
    }
    Ok(())
}

fn check(tree: &Tree) -> Vec<Finding> {
    RULES.iter().flat_map(|rule| rule(tree)).collect()
}

/// The repository's text files, by path from the root.
struct Tree {
    /// Where it lies on this machine; a file that says so works nowhere else.
    root: String,
    files: Vec<SourceFile>,
}

struct SourceFile {
    path: String,
    text: String,
}

/// What a rule found: `path:line: text`, which editors and terminals make a link of.
#[derive(Debug, PartialEq, Eq)]
struct Finding {
    path: String,
    line: usize,
    text: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path, self.line, self.text)
    }
}

impl Tree {
    fn read(root: &Path) -> Result<Self> {
        let mut tree = Self { root: root.display().to_string(), files: Vec::new() };
        tree.read_dir(root, "")?;
        tree.files.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(tree)
    }

    fn read_dir(&mut self, dir: &Path, prefix: &str) -> Result<()> {
        for entry in fs::read_dir(dir).with_context(|| format!("{}", dir.display()))? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let path = format!("{prefix}{name}");
            if entry.file_type()?.is_dir() {
                if !name.starts_with('.') && !DIRS_SKIPPED.contains(&name.as_str()) {
                    self.read_dir(&entry.path(), &format!("{path}/"))?;
                }
            } else if Path::new(&name)
                .extension()
                .is_some_and(|end| EXTENSIONS.iter().any(|known| end == *known))
            {
                let text = fs::read_to_string(entry.path()).with_context(|| path.clone())?;
                self.files.push(SourceFile { path, text });
            }
        }
        Ok(())
    }

    fn rust(&self) -> impl Iterator<Item = &SourceFile> {
        self.files.iter().filter(|file| file.path.ends_with(".rs"))
    }

    fn documents(&self) -> impl Iterator<Item = &SourceFile> {
        self.files.iter().filter(|file| file.path.ends_with(".md"))
    }

    fn get(&self, path: &str) -> Option<&SourceFile> {
        self.files.iter().find(|file| file.path == path)
    }
}

impl SourceFile {
    fn finding(&self, line: usize, text: impl Into<String>) -> Finding {
        Finding { path: self.path.clone(), line, text: text.into() }
    }

    /// Lines with their numbers, from 1.
    fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        self.text.lines().enumerate().map(|(index, line)| (index + 1, line))
    }

    /// Lines of Rust that are not comments.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        self.lines().filter(|(_, line)| !line.trim_start().starts_with("//"))
    }

    fn line_of(&self, offset: usize) -> usize {
        self.text[..offset].matches('\n').count() + 1
    }
}
