//! Stored shapes: what was written once must be readable for ever, so each has a golden file.

use super::{Finding, SourceFile, Tree, json};

const EVENT_FILE: &str = "shared/src/event.rs";
const GOLDEN_DIR: &str = "shared/tests/events/";
const EVENT_ENUM: &str = "pub enum Event {";

/// Every variant of `Event` has `<snake_case>.v1.json`, and every golden file is named `<name>.v<N>.json` and
/// is JSON.
pub(super) fn every_stored_shape_has_a_golden_file(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in tree.files.iter().filter(|file| file.path.starts_with(GOLDEN_DIR)) {
        if !is_golden_name(&file.path[GOLDEN_DIR.len()..]) {
            findings.push(file.finding(1, "a golden file is named `<event>.v<N>.json`"));
        }
        if let Err(offset) = json::check(&file.text) {
            findings.push(file.finding(file.line_of(offset), "not valid JSON"));
        }
    }
    let Some(events) = tree.get(EVENT_FILE) else { return findings };
    let variants = variants(events);
    if variants.is_empty() {
        findings
            .push(events.finding(1, format!("`{EVENT_ENUM}` is not here: teach tidy where the events are")));
    }
    for (line, variant) in variants {
        let golden = format!("{GOLDEN_DIR}{}.v1.json", snake_case(variant));
        if tree.get(&golden).is_none() {
            findings.push(events.finding(line, format!("event {variant} has no golden file {golden}")));
        }
    }
    findings
}

fn is_golden_name(name: &str) -> bool {
    let version = name.strip_suffix(".json").and_then(|rest| rest.rsplit_once(".v"));
    version.is_some_and(|(event, number)| !event.is_empty() && number.parse::<u32>().is_ok())
}

/// The variants with their lines: names that stand one level deep in the enum.
fn variants(file: &SourceFile) -> Vec<(usize, &str)> {
    let mut variants = Vec::new();
    let mut depth = 0;
    for (number, line) in file.code().skip_while(|(_, line)| line.trim() != EVENT_ENUM) {
        let line = line.trim();
        let name = line.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default();
        if depth == 1 && name.starts_with(|c: char| c.is_ascii_uppercase()) {
            variants.push((number, name));
        }
        depth += line.matches(['{', '(', '[']).count();
        depth -= line.matches(['}', ')', ']']).count();
        if depth == 0 {
            break;
        }
    }
    variants
}

fn snake_case(name: &str) -> String {
    let mut snake = String::new();
    for c in name.chars() {
        if c.is_ascii_uppercase() && !snake.is_empty() {
            snake.push('_');
        }
        snake.push(c.to_ascii_lowercase());
    }
    snake
}
