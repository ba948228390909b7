//! `cargo run --release -p bench -- SCENARIO`: measures the system beside its baselines in one run, reports
//! ratios, and with `--check` compares them with `goals.toml`. It starts everything that it needs and ends it.
//!
//! Figures of different runs, machines or days are not compared here; that is what the ratios are for.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::{Parser, Subcommand};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::runtime;
use tokio::signal::unix::{SignalKind, signal};

mod backlog;
mod baseline;
mod closed_loop;
mod connection;
mod delay;
mod drain;
mod edge;
mod findings;
mod goals;
mod held;
mod history;
mod listeners;
mod load;
mod log;
mod machine;
mod mixture;
mod open_loop;
mod population;
mod progress;
mod reads;
mod rebuilding;
mod redis_benchmark;
mod report;
mod rows;
mod scenario;
mod sends;
mod stage;
mod tally;
mod usage;
mod views;
mod watch;

use baseline::Baseline;
use load::Timing;
use machine::{Machine, Versions};
use report::Report;
use scenario::Scenario;
use sends::Population;
use stage::{Settings, Stage, Target};

/// Measures the chat system beside its baselines
#[derive(Debug, Parser)]
#[command(
    name = "bench",
    after_help = "Example: cargo run --release -p bench -- append --target real --check",
    subcommand_negates_reqs = true,
    args_conflicts_with_subcommands = true
)]
struct Arguments {
    #[command(subcommand)]
    internal: Option<Internal>,

    #[arg(value_enum, required = true)]
    scenario: Option<Scenario>,

    /// By default standalone, and real for what is only there
    #[arg(long, value_enum)]
    target: Option<Target>,

    /// Exit with status 1, naming what falls short of bench/goals.toml
    #[arg(long)]
    check: bool,

    /// Write machine, versions, settings, every round and the figures to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,

    /// How long each measurement takes
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    seconds: Option<u16>,

    /// How often all of it is repeated; the report shows medians
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..))]
    rounds: Option<u8>,

    /// One short round, to see that it runs: its figures say nothing
    #[arg(long, conflicts_with_all = ["check", "rounds"])]
    quick: bool,

    /// How many events wait in a backlog
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    events: Option<u64>,

    /// Whether sends carry an Idempotency-Key; by default as the baseline does: on real, which stores a receipt
    #[arg(long, value_name = "BOOL")]
    keyed: Option<bool>,

    /// Given to the measured service as they are
    #[arg(last = true, value_name = "SERVICE ARGUMENTS")]
    service_arguments: Vec<String>,
}

#[derive(Debug, Subcommand)]
enum Internal {
    /// Serve a baseline; started by the scenarios
    #[command(hide = true, subcommand)]
    Baseline(Baseline),
}

const QUICK_SECONDS: f64 = 0.5;
const EVENTS: u64 = 1_000_000;
const QUICK_EVENTS: u64 = 200_000;
/// Before each measurement, at most.
const WARM_UP_MAX: Duration = Duration::from_secs(1);

impl Arguments {
    fn settings(&self, scenario: Scenario) -> Settings {
        let seconds = match self.seconds {
            Some(seconds) => f64::from(seconds),
            None if self.quick => QUICK_SECONDS,
            None => scenario.seconds(),
        };
        let measured = Duration::from_secs_f64(seconds);
        let target = self.target.unwrap_or(scenario.target());
        Settings {
            target,
            timing: Timing { warm_up: (measured / 2).min(WARM_UP_MAX), measured },
            rounds: if self.quick { 1 } else { self.rounds.map_or(scenario.rounds(), usize::from) },
            quick: self.quick,
            events: self.events.unwrap_or(if self.quick { QUICK_EVENTS } else { EVENTS }),
            keyed: self.keyed.unwrap_or(target == Target::Real),
            service_arguments: self.service_arguments.clone(),
        }
    }
}

fn main() -> ExitCode {
    match start(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn start(arguments: &Arguments) -> Result<()> {
    match (&arguments.internal, arguments.scenario) {
        (Some(Internal::Baseline(baseline)), _) => {
            let runtime = runtime::Builder::new_multi_thread().enable_all().build()?;
            runtime.block_on(baseline::serve(baseline.clone()))
        }
        (None, Some(scenario)) => {
            let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(run(scenario, arguments))
        }
        (None, None) => bail!("which scenario?"),
    }
}

async fn run(scenario: Scenario, arguments: &Arguments) -> Result<()> {
    allow_many_connections().context("raising the limit of open files")?;
    let settings = arguments.settings(scenario);
    let target = settings.target;
    let shown = serde_json::json!({
        "settings": settings,
        "content_chars": sends::CONTENT_CHARS,
        "senders": sends::SENDERS,
        "usual_population": Population::USUAL,
    });
    let stage = Stage::set_up(settings, &scenario.programs(target))?;
    let about = (Machine::with_data_in(stage.dir()), Versions::here());
    // Dropped on a signal, a scenario ends what it started, and the stage the rest.
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let findings = tokio::select! {
        findings = scenario.run(&stage) => findings?,
        _ = interrupt.recv() => bail!("interrupted"),
        _ = terminate.recv() => bail!("terminated"),
    };
    stage.progress.finish();
    drop(stage);

    let (name, target) = (scenario.name(), target.name());
    let report = Report::new(name, target, about, shown, findings, goals::of(name, target)?);
    report.print(&mut std::io::stdout().lock())?;
    if let Some(path) = &arguments.json {
        report.write_json(path)?;
    }
    let shortfalls = report.shortfalls();
    if arguments.check && !shortfalls.is_empty() {
        bail!("{name} on {target} falls short:\n  {}", shortfalls.join("\n  "));
    }
    Ok(())
}

/// As many as the system lets us have; the servers inherit it.
fn allow_many_connections() -> Result<()> {
    let maximum = getrlimit(Resource::Nofile).maximum;
    Ok(setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments() {
        let parse = |line: &str| Arguments::try_parse_from(line.split(' '));
        let settings =
            |line: &str| parse(line).map(|arguments| arguments.settings(Scenario::Append)).unwrap();
        assert!(settings("bench append --target real").keyed && !settings("bench append").keyed);
        assert_eq!(settings("bench append --quick").rounds, 1);
        assert_eq!(parse("bench project --events 7").unwrap().settings(Scenario::Project).events, 7);
        assert_eq!(parse("bench project").unwrap().settings(Scenario::Project).target, Target::Real);
        assert_eq!(settings("bench append -- --rate-limits off").service_arguments, ["--rate-limits", "off"]);
        assert_eq!(settings("bench append --seconds 2").timing.measured, Duration::from_secs(2));
        assert!(parse("bench baseline bare --listen 127.0.0.1:1").unwrap().internal.is_some());
        for wrong in ["bench", "bench append --quick --check", "bench append --seconds 0", "bench sideways"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
