//! What a test run did, read from its output: how many tests passed, and on which backend.

use super::binaries::Binaries;

/// Lines of what a failed test said when it failed, from where it panicked on: with the last lines of a process, which
/// tell why it ended. More is in the output above.
const LINES_OF_A_FAILURE_MAX: usize = 32;

/// The contract suite's modules in the test binary of package `storage`.
const CONTRACT: Suite = Suite {
    title: "contract suite",
    package: "storage",
    backends: &["embedded", "redis", "cassandra"],
    backend_of: |path| path.split("::").next(),
};
/// The last part of a test's path in the test binary of package `e2e`.
const E2E: Suite = Suite {
    title: "e2e",
    package: "e2e",
    backends: &["embedded", "real"],
    backend_of: |path| path.split("::").last(),
};

struct Suite {
    title: &'static str,
    package: &'static str,
    /// The first needs no servers.
    backends: &'static [&'static str],
    backend_of: fn(&str) -> Option<&str>,
}

impl Suite {
    fn expected(&self, embedded_only: bool) -> &'static [&'static str] {
        if embedded_only { &self.backends[..1] } else { self.backends }
    }
}

#[derive(Debug)]
pub(super) struct Report {
    binaries: Binaries,
    /// The package whose integration tests are running; none while unit or documentation tests do.
    package: Option<String>,
    /// Of the tests of a suite: package and path.
    ran: Vec<(String, String)>,
    pub(super) passed: u64,
    pub(super) failed: u64,
    failures: Vec<Failure>,
}

/// A failed test and how it ended.
#[derive(Debug)]
struct Failure {
    path: String,
    said: Vec<String>,
    is_whole: bool,
}

impl Failure {
    fn read(&mut self, line: &str) {
        let begins = line.contains(" panicked at ") || line.starts_with("Error: ");
        if self.is_whole || self.said.is_empty() && !begins {
            return;
        }
        self.is_whole = line.is_empty() || line.starts_with("note: run with") || line == "stack backtrace:";
        if !self.is_whole {
            self.said.push(line.to_owned());
            self.is_whole = self.said.len() == LINES_OF_A_FAILURE_MAX;
        }
    }
}

impl Report {
    pub(super) fn new(binaries: Binaries) -> Self {
        Self { binaries, package: None, ran: Vec::new(), passed: 0, failed: 0, failures: Vec::new() }
    }

    /// Takes the next line of the output of `cargo test`.
    pub(super) fn read(&mut self, line: &str) {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            // Running tests/it/main.rs (target/debug/deps/it-0123456789abcdef)
            ["Running", source, binary] if source.starts_with("tests/") => {
                self.package = self.binaries.package(binary.trim_matches(['(', ')'])).map(str::to_owned);
            }
            ["Running" | "Doc-tests", ..] => self.package = None,
            // test send_message::keeps_order::real ... ok
            ["test", path, "...", "ok" | "FAILED"] => {
                if let Some(package) = &self.package {
                    self.ran.push((package.clone(), path.to_owned()));
                }
            }
            // test result: ok. 3 passed; 0 failed; 0 ignored; …
            ["test", "result:", _, passed, "passed;", failed, "failed;", ..] => {
                self.passed += passed.parse::<u64>().unwrap_or(0);
                self.failed += failed.parse::<u64>().unwrap_or(0);
            }
            // ---- send_message::keeps_order::real stdout ----
            ["----", ref path @ .., "stdout", "----"] => {
                self.failures.push(Failure { path: path.join(" "), said: Vec::new(), is_whole: false });
            }
            _ => {
                if let Some(failure) = self.failures.last_mut() {
                    failure.read(line);
                }
            }
        }
    }

    /// The summary: how each test failed that did, what ran where, and at last the line `N passed, N failed`.
    pub(super) fn lines(&self, embedded_only: bool) -> Vec<String> {
        let mut lines = Vec::new();
        for failure in &self.failures {
            lines.push(format!("failed: {}", failure.path));
            lines.extend(failure.said.iter().map(|line| format!("    {line}")));
        }
        for suite in [&CONTRACT, &E2E] {
            let counts: Vec<String> = suite
                .expected(embedded_only)
                .iter()
                .map(|backend| format!("{backend} {}", self.count(suite, backend)))
                .collect();
            lines.push(format!("{}: {}", suite.title, counts.join(", ")));
        }
        lines.push(format!("{} passed, {} failed", self.passed, self.failed));
        lines
    }

    /// The backends that should have run and did not.
    pub(super) fn missing(&self, embedded_only: bool) -> Vec<String> {
        let mut missing = Vec::new();
        for suite in [&CONTRACT, &E2E] {
            for backend in suite.expected(embedded_only) {
                if self.count(suite, backend) == 0 {
                    missing.push(format!("{} {backend}", suite.title));
                }
            }
        }
        missing
    }

    fn count(&self, suite: &Suite, backend: &str) -> usize {
        self.ran
            .iter()
            .filter(|(package, path)| package == suite.package && (suite.backend_of)(path) == Some(backend))
            .count()
    }
}

#[cfg(test)]
mod tests {
    use super::{Binaries, Report};

    const OUTPUT: &str = "
     Running unittests src/lib.rs (target/debug/deps/storage-1)
test redis::keys::tests::one_slot ... ok
test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s

     Running tests/it/main.rs (target/debug/deps/it-1)
test cassandra::views::replay ... FAILED
test embedded::log::dense ... ok
test redis::log::dense ... ok
test result: FAILED. 2 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s

     Running tests/it/main.rs (target/debug/deps/it-2)
test send_message::keeps_order::embedded ... ok
test send_message::keeps_order::real ... ok
test page::one ... ok

failures:

---- send_message::keeps_order::real stdout ----
a line of its own

thread 'send_message::keeps_order::real' (7) panicked at e2e/tests/it/send.rs:9:5:
not within 30s: it is sent
  stack backtrace of a server
note: run with `RUST_BACKTRACE=1` environment variable to display a backtrace

---- page::one stdout ----
Error: no such file


failures:
    send_message::keeps_order::real

test result: ok. 3 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s

   Doc-tests storage
test storage/src/lib.rs - embedded (line 3) ... ok
test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s
";

    fn read(output: &str) -> Report {
        let mut report = Report::new(Binaries::from_messages(concat!(
            r#"{"manifest_path":"/a/storage/Cargo.toml","executable":"/a/target/debug/deps/it-1"}"#,
            "\n",
            r#"{"manifest_path":"/a/e2e/Cargo.toml","executable":"/a/target/debug/deps/it-2"}"#,
        )));
        output.lines().for_each(|line| report.read(line));
        report
    }

    #[test]
    fn tests_are_counted_by_backend_and_only_in_their_suite() {
        let report = read(OUTPUT);
        assert_eq!(
            report.lines(false)[6..],
            [
                "contract suite: embedded 1, redis 1, cassandra 1",
                "e2e: embedded 1, real 1",
                "7 passed, 1 failed"
            ]
        );
        assert_eq!(report.lines(true)[6..8], ["contract suite: embedded 1", "e2e: embedded 1"]);
        assert!(report.missing(false).is_empty());
    }

    #[test]
    fn a_failed_test_says_why_at_the_end() {
        assert_eq!(
            read(OUTPUT).lines(false)[..5],
            [
                "failed: send_message::keeps_order::real",
                "    thread 'send_message::keeps_order::real' (7) panicked at e2e/tests/it/send.rs:9:5:",
                "    not within 30s: it is sent",
                "      stack backtrace of a server",
                "failed: page::one"
            ]
        );
        assert_eq!(read(OUTPUT).lines(false)[5], "    Error: no such file");
    }

    #[test]
    fn a_backend_that_did_not_run_is_missing() {
        let report =
            read(&OUTPUT.replace("::real", "::embedded").replace("test redis::log", "test other::log"));
        assert_eq!(report.missing(false), ["contract suite redis", "e2e real"]);
        assert!(report.missing(true).is_empty());
        assert_eq!(read("").missing(true), ["contract suite embedded", "e2e embedded"]);
    }
}
