//! The project's commands: `cargo xtask up`, `down`, `test`, `ci` and `tidy`.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod ci;
mod output;
mod test;
mod tidy;
mod up;
mod workspace;

/// Commands for working on the chat system.
#[derive(Debug, Parser)]
#[command(
    name = "cargo xtask",
    bin_name = "cargo xtask",
    after_help = "Example: cargo xtask up --projectors 2"
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Build and start the whole system on this machine: Redis, Cassandra, the services, nginx.
    Up(up::Up),
    /// End exactly what `up` started.
    Down(up::Down),
    /// Run all tests, on the embedded store and on real servers.
    Test(test::Test),
    /// Everything that must hold before a change goes in: format, lints, documentation, rules, tests.
    Ci,
    /// Check the rules of the house that no other tool knows.
    Tidy,
}

fn main() -> ExitCode {
    let done = match Arguments::parse().command {
        Command::Up(up) => up.run(),
        Command::Down(down) => down.run(),
        Command::Test(test) => test.run(),
        Command::Ci => ci::run(),
        Command::Tidy => tidy::run(),
    };
    if let Err(error) = done {
        eprintln!("error: {error:#}");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}
