//! Documents: what they point at is there, what points at them finds them, and every setting is listed.

use super::{Finding, SourceFile, Tree};

const SETTINGS: &str = "docs/settings.md";
/// What stands before the variable of a setting in the code.
const VARIABLE: &str = "env = \"";
/// These tell of times when files had other names.
const HISTORY: [&str; 2] = ["CHANGELOG.md", "docs/decisions/"];
/// The documents that it names are made up.
const TESTS: &str = "xtask/src/tidy/tests.rs";

/// A link to a document leads to one that is there, and to a heading that it has.
pub(super) fn links_lead_somewhere(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for document in tree.documents() {
        for (number, line) in document.lines() {
            for link in links(line).filter(|link| !is_there(tree, document, link)) {
                findings.push(document.finding(number, format!("`{link}` leads nowhere")));
            }
        }
    }
    findings
}

/// A source file that a document names is there; the end of its path will do.
pub(super) fn files_that_are_named_exist(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for document in of_today(tree) {
        for (number, line) in document.lines() {
            for name in line.split('`').filter(|text| text.ends_with(".rs") && !text.contains(' ')) {
                if files_named(tree, name).next().is_none() {
                    findings.push(document.finding(number, format!("there is no `{name}`")));
                }
            }
        }
    }
    findings
}

/// A test that a document names, as `file.rs::test`, is in that file.
pub(super) fn tests_that_are_named_exist(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for document in of_today(tree) {
        for (number, line) in document.lines() {
            for name in line.split('`').filter(|text| text.contains(".rs::")) {
                let (file, test) = name.split_once("::").unwrap_or((name, ""));
                let function = format!("fn {test}(");
                if !files_named(tree, file).any(|file| file.text.contains(&function)) {
                    findings.push(document.finding(number, format!("there is no `{name}`")));
                }
            }
        }
    }
    findings
}

/// A document that a source file names is there: by its path from the root.
pub(super) fn documents_that_are_named_exist(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in tree.rust().filter(|file| file.path != TESTS) {
        for (number, line) in file.lines() {
            for name in names_of_documents(line).filter(|name| tree.get(name).is_none()) {
                findings.push(file.finding(number, format!("there is no `{name}`")));
            }
        }
    }
    findings
}

/// What programs take and what the table of settings says is the same.
pub(super) fn every_setting_is_listed(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    let rows = tree.get(SETTINGS).map_or("", |settings| &settings.text);
    for file in tree.rust() {
        for (number, line) in file.code() {
            let variable = line.split_once(VARIABLE).and_then(|(_, rest)| rest.split('"').next());
            if let Some(variable) = variable.filter(|name| !rows.contains(&format!("| `{name}` |"))) {
                findings.push(file.finding(number, format!("{SETTINGS} does not list `{variable}`")));
            }
        }
    }
    if let Some(settings) = tree.get(SETTINGS) {
        for (number, line) in settings.lines() {
            for name in line.split('`').filter(|text| text.starts_with("CHAT_")) {
                let variable = format!("{VARIABLE}{name}\"");
                if !tree.rust().any(|file| file.code().any(|(_, line)| line.contains(&variable))) {
                    findings.push(settings.finding(number, format!("no program takes `{name}`")));
                }
            }
        }
    }
    findings
}

/// Documents that tell how it is.
fn of_today(tree: &Tree) -> impl Iterator<Item = &SourceFile> {
    tree.documents().filter(|document| !HISTORY.iter().any(|past| document.path.starts_with(past)))
}

/// Source files by the end of their path.
fn files_named<'a>(tree: &'a Tree, name: &str) -> impl Iterator<Item = &'a SourceFile> {
    let (name, end) = (name.to_owned(), format!("/{name}"));
    tree.rust().filter(move |file| file.path == name || file.path.ends_with(&end))
}

/// The paths of documents in a line of Rust, without what leads to the root.
fn names_of_documents(line: &str) -> impl Iterator<Item = &str> {
    let words = line.split(|letter: char| !letter.is_ascii_alphanumeric() && !"-_./".contains(letter));
    let paths = words.map(|word| word.trim_start_matches(['.', '/']).trim_end_matches('.'));
    paths.filter(|path| path.ends_with(".md"))
}

/// The targets of a line's links, of those that lead to documents.
fn links(line: &str) -> impl Iterator<Item = &str> {
    let targets = line.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    targets.filter(|target| {
        let path = target.split('#').next().unwrap_or_default();
        !target.contains("://") && (path.is_empty() || path.ends_with(".md"))
    })
}

fn is_there(tree: &Tree, document: &SourceFile, link: &str) -> bool {
    let (path, heading) = link.split_once('#').unwrap_or((link, ""));
    let path = if path.is_empty() { document.path.clone() } else { beside(&document.path, path) };
    tree.get(&path).is_some_and(|target| {
        heading.is_empty() || target.lines().any(|(_, line)| line.starts_with('#') && anchor(line) == heading)
    })
}

/// The path of `link`, as seen from the file `from`.
fn beside(from: &str, link: &str) -> String {
    let mut path: Vec<&str> = from.split('/').collect();
    path.pop();
    for part in link.split('/') {
        if part == ".." {
            path.pop();
        } else {
            path.push(part);
        }
    }
    path.join("/")
}

/// What a heading is called in links to it: its words in lower case, with hyphens between.
fn anchor(heading: &str) -> String {
    let words = heading.trim_start_matches('#').trim().to_lowercase().replace(' ', "-");
    words.chars().filter(|letter| letter.is_alphanumeric() || ['-', '_'].contains(letter)).collect()
}
