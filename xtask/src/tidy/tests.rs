//! Each rule, shown to fire and shown to keep quiet.

use super::{RULES, SourceFile, Tree, check};

fn tree(files: &[(&str, &str)]) -> Tree {
    let files =
        files.iter().map(|(path, text)| SourceFile { path: (*path).to_owned(), text: (*text).to_owned() });
    Tree { root: "/somewhere/chat".to_owned(), files: files.collect() }
}

/// The findings as they are printed.
fn findings(files: &[(&str, &str)]) -> Vec<String> {
    check(&tree(files)).iter().map(ToString::to_string).collect()
}

#[track_caller]
fn assert_quiet(files: &[(&str, &str)]) {
    assert_eq!(findings(files), [""; 0]);
}

#[test]
fn a_service_names_storage_in_its_program_only() {
    let import = "//! x\nuse storage::redis::Log;\n";
    for path in ["command-api/src/main.rs", "projector/src/subcommands/run.rs", "standalone/src/lib.rs"] {
        assert_quiet(&[(path, import)]);
    }
    for path in ["command-api/src/lib.rs", "query-api/src/queries/mod.rs", "projector/src/run.rs"] {
        let found = findings(&[(path, import)]);
        assert_eq!(
            found,
            [format!("{path}:2: a service names `storage` outside its program: use the port in `shared`")]
        );
    }
    for line in [
        "use storage;",
        "use storage as adapters;",
        "let log = storage::redis::Log::new();",
        "f(&storage :: X)",
    ] {
        assert_eq!(findings(&[("projector/src/run.rs", &format!("//! x\n{line}"))]).len(), 1, "{line}");
    }
    for line in
        ["// storage::redis is behind it", "let storage = 1;", "use shared::storage::X;", "my_storage::x()"]
    {
        assert_quiet(&[("projector/src/run.rs", &format!("//! x\n{line}"))]);
    }
}

#[test]
fn every_file_has_a_header() {
    assert_eq!(
        findings(&[("a/src/b.rs", "use std::fs;\n")]),
        ["a/src/b.rs:1: the first line is not a `//!` header"]
    );
    assert_eq!(findings(&[("a/tests/it/main.rs", "\n//! Late.\n")]).len(), 1);
    assert_quiet(&[("a/src/b.rs", "//! What it is for.\n")]);
}

#[test]
fn a_file_ends_at_500_lines_without_its_tests() {
    let long = format!("//! x\n{}", "fn f() {}\n".repeat(500));
    assert_eq!(
        findings(&[("a/src/b.rs", &long)]),
        ["a/src/b.rs:501: 501 lines without tests, 500 is the end"]
    );
    let tests = format!("//! x\n#[cfg(test)]\nmod tests {{\n{}}}\n", "fn f() {}\n".repeat(500));
    assert_quiet(&[("a/src/b.rs", &tests), ("a/tests/it/main.rs", &long), ("a/src/b/tests.rs", &long)]);
}

#[test]
fn packages_are_counted() {
    assert_quiet(&[("Cargo.lock", &"[[package]]\n".repeat(260))]);
    let found = findings(&[("Cargo.lock", &"[[package]]\n".repeat(262))]);
    assert_eq!(found, ["Cargo.lock:261: 262 packages, 260 is the limit"]);
}

#[test]
fn placeholders_and_switched_off_tests_are_found() {
    for word in [concat!("todo", "!()"), concat!("unimplemented", "!()"), concat!("#[", "ignore]")] {
        assert_eq!(findings(&[("a/src/b.rs", &format!("//! x\n{word}\n"))]).len(), 1, "{word}");
        assert_quiet(&[("a/src/b.rs", &format!("//! x\n// {word}\n"))]);
    }
}

#[test]
fn paths_of_one_machine_are_found() {
    for path in [concat!("/ho", "me/samer/x"), concat!("/Us", "ers/lena/x"), "/somewhere/chat/data"] {
        assert_eq!(
            findings(&[("a/src/b.rs", &format!("//! x\nconst P: &str = \"{path}\";"))]).len(),
            1,
            "{path}"
        );
    }
    assert_quiet(&[("a/src/b.rs", "//! x\nconst P: &str = \"/var/lib/chat\";")]);
}

#[test]
fn every_event_has_a_golden_file() {
    let events = "//! x
pub enum Event {
    /// With a comment.
    UserRegistered(UserRegistered),
    #[serde(rename = \"x\")]
    MessageSent {
        Body: String,
    },
}
pub enum Other {
    Unrelated,
}
";
    let user = ("shared/tests/events/user_registered.v1.json", "{\"a\": 1}");
    let message = ("shared/tests/events/message_sent.v1.json", "{}");
    assert_quiet(&[("shared/src/event.rs", events), user, message]);
    assert_eq!(
        findings(&[("shared/src/event.rs", events), user]),
        [
            "shared/src/event.rs:6: event MessageSent has no golden file shared/tests/events/message_sent.v1.json"
        ]
    );
    let broken = ("shared/tests/events/message_sent.v1.json", "{\n  \"a\": ,\n}");
    assert_eq!(
        findings(&[("shared/src/event.rs", events), user, broken]),
        ["shared/tests/events/message_sent.v1.json:2: not valid JSON"]
    );
    assert_eq!(findings(&[("shared/tests/events/message_sent.json", "{}")]).len(), 1);
    assert_eq!(findings(&[("shared/src/event.rs", "//! x\n")]).len(), 1);
}

#[test]
fn writes_to_views_carry_their_timestamp() {
    let views = ("shared/src/view/timeline.rs", "//! x\n");
    let quiet = [
        "INSERT INTO {keyspace}.timeline (a) VALUES (?) USING TIMESTAMP ?",
        "UPDATE timeline USING TIMESTAMP ? SET a = ? WHERE b = ?",
        "INSERT INTO chat.generations (a) VALUES (?)",
        "SELECT a FROM timeline",
    ];
    for statement in quiet {
        assert_quiet(&[
            views,
            ("storage/src/cassandra/timeline.rs", &format!("//! x\nconst S: &str = \"{statement}\";")),
        ]);
    }
    let found = [
        "INSERT INTO {keyspace}.timeline (a) VALUES (?)",
        "INSERT INTO timeline(a) VALUES (?)",
        "UPDATE chat_g1.timeline SET a = ? WHERE b = ?",
        concat!("SELECT a FROM users ALLOW ", "FILTERING"),
    ];
    for statement in found {
        let text = format!("//! x\n\nconst S: &str = \"{statement}\";\nconst T: &str = \"USING TIMESTAMP\";");
        let found = findings(&[views, ("storage/src/cassandra/timeline.rs", &text)]);
        assert_eq!(found.len(), 1, "{statement}");
        assert!(found[0].starts_with("storage/src/cassandra/timeline.rs:3: "), "{found:?}");
        assert_quiet(&[views, ("storage/src/cassandra/timeline.rs", &format!("//! x\n// {statement}\n"))]);
        let cql = format!("-- {statement}\n{statement};\nSELECT a FROM b USING TIMESTAMP;");
        assert_eq!(findings(&[views, ("cql/0002_x.cql", &cql)]).len(), 1, "{statement}");
    }
}

#[test]
fn links_between_documents_lead_somewhere() {
    let target = ("docs/a.md", "# A\n\n## What a `201` means, and why\n");
    let quiet = [
        "[a](docs/a.md)",
        "[a](docs/a.md#what-a-201-means-and-why) and [b](docs/a.md)",
        "[a](#top)\n# Top",
        "[a](https://example.org/a.md#b)",
        "[a](bench/goals.toml)",
    ];
    for text in quiet {
        assert_quiet(&[target, ("README.md", text)]);
    }
    for link in ["docs/b.md", "a.md", "docs/a.md#what-a-202-means", "#top"] {
        let found = findings(&[target, ("README.md", &format!("# R\n[a]({link})\n"))]);
        assert_eq!(found, [format!("README.md:2: `{link}` leads nowhere")]);
    }
    let up = ("docs/decisions/1.md", "[a](../a.md), [readme](../../README.md#r)");
    assert_quiet(&[target, ("README.md", "# R"), up]);
}

#[test]
fn documents_name_files_that_exist() {
    let file = ("query-api/src/pages.rs", "//! x\n");
    assert_quiet(&[file, ("ARCHITECTURE.md", "`pages.rs`, `src/pages.rs`, `query-api/src/pages.rs`")]);
    let found = findings(&[file, ("ARCHITECTURE.md", "`pages.rs`\n`ages.rs`\n")]);
    assert_eq!(found, ["ARCHITECTURE.md:2: there is no `ages.rs`"]);
    for history in ["CHANGELOG.md", "docs/decisions/0001-x.md"] {
        assert_quiet(&[(history, "`gone.rs`")]);
    }
}

#[test]
fn documents_name_tests_that_exist() {
    let file = ("e2e/tests/it/send.rs", "//! x\nasync fn it_is_sent(app: &TestApp) {}\n");
    assert_quiet(&[file, ("docs/a.md", "`send.rs::it_is_sent`, `it/send.rs::it_is_sent`")]);
    for name in ["send.rs::it_is", "end.rs::it_is_sent", "sent.rs::it_is_sent", "send.rs::"] {
        let found = findings(&[file, ("docs/a.md", &format!("`{name}`"))]);
        assert_eq!(found, [format!("docs/a.md:1: there is no `{name}`")]);
    }
}

#[test]
fn code_names_documents_that_exist() {
    let documents = [("README.md", "# R"), ("docs/a.md", "# A")];
    let with = |text: &str| findings(&[documents[0], documents[1], ("e2e/src/a.rs", text)]);
    let quiet = [
        "//! See docs/a.md, `README.md` and (docs/a.md).",
        "//! x\nconst A: &str = \"/../docs/a.md\";",
        "//! x\nfn is(x: &str) { x.ends_with(\".md\") }",
    ];
    for text in quiet {
        assert_eq!(with(text), [] as [String; 0]);
    }
    for (text, name) in
        [("//! As API.md says.", "API.md"), ("//! `docs/b.md`", "docs/b.md"), ("//! a.md", "a.md")]
    {
        assert_eq!(with(text), [format!("e2e/src/a.rs:1: there is no `{name}`")]);
    }
}

#[test]
fn every_setting_is_in_the_table() {
    let code = ("projector/src/config.rs", "//! x\n#[arg(long, env = \"CHAT_NAME\")]\n");
    assert_quiet(&[code, ("docs/settings.md", "| `--name` | `CHAT_NAME` | host name |")]);
    let missing = "projector/src/config.rs:2: docs/settings.md does not list `CHAT_NAME`";
    assert_eq!(findings(&[code]), [missing]);
    assert_eq!(
        findings(&[code, ("docs/settings.md", "| `--names` | `CHAT_NAMES` |")]),
        [missing, "docs/settings.md:1: no program takes `CHAT_NAMES`"]
    );
}

#[test]
fn an_empty_tree_is_tidy() {
    assert_quiet(&[]);
    assert_eq!(RULES.len(), 13, "a new rule needs a test above");
}
