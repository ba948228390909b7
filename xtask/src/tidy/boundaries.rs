//! Who may know whom.

use super::{Finding, Tree};

const SERVICES: [&str; 3] = ["command-api/src/", "query-api/src/", "projector/src/"];
const STORAGE: &str = "storage";

/// Of a program that has several, each in a file of its own.
const SUBCOMMANDS: &str = "subcommands/";

/// A service works with ports; which adapter stands behind them is decided by its program alone.
pub(super) fn services_do_not_name_storage(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in tree.rust() {
        let in_service = SERVICES.iter().find_map(|service| file.path.strip_prefix(service));
        if in_service.is_none_or(|path| path == "main.rs" || path.starts_with(SUBCOMMANDS)) {
            continue;
        }
        for (number, line) in file.code() {
            if names_crate(line, STORAGE) {
                findings.push(file.finding(
                    number,
                    "a service names `storage` outside its program: use the port in `shared`",
                ));
            }
        }
    }
    findings
}

/// As the first part of a path, or imported as a whole.
fn names_crate(line: &str, name: &str) -> bool {
    line.match_indices(name).any(|(at, _)| {
        let before = line[..at].trim_end();
        let after = line[at + name.len()..].trim_start();
        let whole = !line[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_');
        let path_start = after.starts_with("::") && !before.ends_with("::");
        let import = before.ends_with("use") && (after.starts_with(';') || after.starts_with("as "));
        whole && (path_start || import)
    })
}
