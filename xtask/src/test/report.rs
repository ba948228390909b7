//! What a test run did, read from its output: how many tests passed, and on which backend.

use super::binaries::Binaries;

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
}

impl Report {
    pub(super) fn new(binaries: Binaries) -> Self {
        Self { binaries, package: None, ran: Vec::new(), passed: 0, failed: 0 }
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
            _ => {}
        }
    }

    /// The summary, ending in the line `N passed, N failed`.
    pub(super) fn lines(&self, embedded_only: bool) -> Vec<String> {
        let mut lines = Vec::new();
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
            report.lines(false),
            [
                "contract suite: embedded 1, redis 1, cassandra 1",
                "e2e: embedded 1, real 1",
                "7 passed, 1 failed"
            ]
        );
        assert_eq!(report.lines(true)[..2], ["contract suite: embedded 1", "e2e: embedded 1"]);
        assert!(report.missing(false).is_empty());
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
