//! The contract suite on every backend, in one binary: tests are named `embedded::…`, `redis::…` and
//! `cassandra::…`. The real servers are only looked for with the feature `real-tests`; then they must be
//! there: nothing is skipped.

mod embedded;

#[cfg(feature = "real-tests")]
mod cassandra;
#[cfg(feature = "real-tests")]
mod far;
#[cfg(feature = "real-tests")]
mod redis;

/// `redis://127.0.0.1:PORT/`.
#[cfg(feature = "real-tests")]
fn redis_url() -> String {
    address("CHAT_TEST_REDIS_URL")
}

/// `127.0.0.1:PORT`.
#[cfg(feature = "real-tests")]
fn cassandra_node() -> String {
    address("CHAT_TEST_CASSANDRA")
}

#[cfg(feature = "real-tests")]
#[expect(
    clippy::disallowed_methods,
    reason = "a test has no config struct; this is the one place that reads"
)]
fn address(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set: `cargo xtask test` starts the servers"))
}
