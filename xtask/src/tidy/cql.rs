//! Statements on view tables must merge: every write carries the timestamp of its event, and nothing is found
//! by scanning.

use super::{Finding, SourceFile, Tree};

/// Each file here is a view, and its name is the name of its table.
const VIEWS_DIR: &str = "shared/src/view/";
const SCAN: &str = concat!("ALLOW ", "FILTERING");
const WRITES: [&str; 2] = ["INSERT INTO ", "UPDATE "];
const TIMESTAMP: &str = "USING TIMESTAMP";

/// One write without its event's timestamp carries the wall clock's, which hides all later ones for ever.
pub(super) fn statements_keep_the_merge(tree: &Tree) -> Vec<Finding> {
    let views: Vec<&str> = tree
        .rust()
        .filter_map(|file| file.path.strip_prefix(VIEWS_DIR)?.strip_suffix(".rs"))
        .filter(|name| *name != "mod")
        .collect();
    let mut findings = Vec::new();
    for file in &tree.files {
        let (comment, end) = match file.path.as_str() {
            path if path.starts_with("storage/") && path.ends_with(".rs") => ("//", '"'),
            path if path.ends_with(".cql") => ("--", ';'),
            _ => continue,
        };
        let text = without_comments(file, comment);
        for (offset, _) in text.match_indices(SCAN) {
            findings.push(file.finding(file.line_of(offset), format!("{SCAN} reads the whole table")));
        }
        for (offset, statement) in writes(&text, end) {
            let table = table(statement);
            if views.contains(&table) && !statement.contains(TIMESTAMP) {
                let text = format!("a write to view table {table} without {TIMESTAMP}");
                findings.push(file.finding(file.line_of(offset), text));
            }
        }
    }
    findings
}

/// The same text, with the comments' letters blanked so that offsets stay.
fn without_comments(file: &SourceFile, comment: &str) -> String {
    let lines = file.text.split('\n').map(|line| {
        if line.trim_start().starts_with(comment) { " ".repeat(line.len()) } else { line.to_owned() }
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// Statements that write, each from its verb to the end of the string literal or of the CQL statement.
fn writes(text: &str, end: char) -> impl Iterator<Item = (usize, &str)> {
    WRITES.into_iter().flat_map(move |verb| {
        text.match_indices(verb).map(move |(offset, _)| {
            let statement = &text[offset..];
            (offset, &statement[..statement.find(end).unwrap_or(statement.len())])
        })
    })
}

/// The table's name without its keyspace, which may be a placeholder.
fn table(statement: &str) -> &str {
    let verb = WRITES.into_iter().find(|verb| statement.starts_with(verb)).map_or(0, str::len);
    let name = statement[verb..].split([' ', '(', '\n']).next().unwrap_or_default();
    name.rsplit('.').next().unwrap_or_default()
}
