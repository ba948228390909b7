//! The only place that reads the environment: what `cargo xtask test` says about its servers, how patient tests
//! are, and whether they write a document anew. What is missing is an error with a clear line, never a skipped test.

use std::path::PathBuf;
use std::time::Duration;

/// How long a condition may take to come true: seconds in `CHAT_TEST_PATIENCE`, 30 by default: what a
/// disk that is busy with others' work may hold up. No test waits that long when all is well.
#[must_use]
pub fn patience() -> Duration {
    let seconds = read("CHAT_TEST_PATIENCE")
        .map_or(30, |text| text.parse().expect("CHAT_TEST_PATIENCE: whole seconds"));
    Duration::from_secs(seconds)
}

/// `redis://127.0.0.1:PORT/`.
#[must_use]
pub fn redis_url() -> String {
    required("CHAT_TEST_REDIS_URL")
}

/// `127.0.0.1:PORT`.
#[must_use]
pub fn cassandra_node() -> String {
    required("CHAT_TEST_CASSANDRA")
}

/// Where the services' binaries are.
#[must_use]
pub fn binaries() -> PathBuf {
    required("CHAT_TEST_BIN_DIR").into()
}

/// Where the binaries with a changed view are (`docs/examples/changed-view.patch`).
#[must_use]
pub fn changed_binaries() -> PathBuf {
    let dir = read("CHAT_TEST_CHANGED_BIN_DIR");
    dir.map(PathBuf::from).unwrap_or_else(|| {
        panic!(
            "there are no such programs: `cargo xtask test` says before all tests why it could not build them"
        )
    })
}

/// `CHAT_WRITE_TRANSCRIPTS=1`: `docs/errors.md` is written anew instead of compared.
#[must_use]
pub fn writes_transcripts() -> bool {
    read("CHAT_WRITE_TRANSCRIPTS").is_some_and(|text| text == "1")
}

fn required(name: &str) -> String {
    read(name)
        .unwrap_or_else(|| panic!("{name} is not set: run `cargo xtask test`, which starts the servers"))
}

#[expect(
    clippy::disallowed_methods,
    reason = "a test has no config struct; this is the one place that reads"
)]
fn read(name: &str) -> Option<String> {
    std::env::var(name).ok()
}
