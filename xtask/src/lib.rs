//! The parts of the project's commands that tests and benchmarks use too: real servers on free ports.
//!
//! Linux only: processes are told apart by `/proc`. Knows nothing of the services' code.

pub mod servers;
