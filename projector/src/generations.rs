//! What `projector rebuild`, `generations`, `serve` and `drop` do and print: the outcome on standard output, how far it
//! is on standard error.

use std::io::{IsTerminal, Write};

use anyhow::{Result, ensure};
use projector::{Bar, Built, Comparison, Rebuild};
use serde::Serialize;
use shared::generation::{Generation, State};

use crate::commands::print;
use crate::config::{self, Instead};

#[derive(Serialize)]
struct Outcome {
    generation: u32,
    state: State,
}

impl Outcome {
    fn line(&self) -> String {
        format!("generation {} is {}", self.generation, self.state)
    }
}

pub(crate) async fn rebuild(command: &config::Rebuild, rebuild: &Rebuild) -> Result<()> {
    let json = command.asked.json;
    let Generation { number, state, .. } = match command.instead {
        Instead { pause: true, .. } => rebuild.pause().await?,
        Instead { resume: true, .. } => rebuild.resume().await?,
        Instead { cancel: true, .. } => rebuild.cancel().await?,
        Instead { pause: false, resume: false, cancel: false } => {
            return build(command.rate, json, rebuild).await;
        }
    };
    print(json, &Outcome { generation: number, state }, Outcome::line)
}

async fn build(rate: Option<u32>, json: bool, rebuild: &Rebuild) -> Result<()> {
    let generation = rebuild.begin(rate).await?.number;
    let proved = prove(generation, rebuild).await;
    if proved.as_ref().is_ok_and(Comparison::is_clean) {
        rebuild.complete(generation).await?;
    }
    rebuild.end().await?;
    let comparison = proved?;
    print(json, &comparison, Comparison::lines)?;
    ensure!(comparison.is_clean(), "generation {generation} is not what the log says, so it stays building");
    let mut out = std::io::stderr();
    writeln!(out, "generation {generation} is complete: `projector serve {generation}` has it read")?;
    Ok(())
}

/// Waits until it is filled, and compares it with the log.
async fn prove(generation: u32, rebuild: &Rebuild) -> Result<Comparison> {
    let (verifier, standing) = ((rebuild.verifier)(generation), Standing::new());
    let filled = rebuild.follow(&verifier, |built| standing.show(built)).await;
    standing.end();
    filled?;
    let bar = Bar::new();
    let compared = rebuild.prove(&verifier, &|step| bar.step(step)).await;
    bar.finish();
    Ok(compared?)
}

/// One line that changes on a terminal, a line each elsewhere.
struct Standing {
    is_terminal: bool,
}

impl Standing {
    fn new() -> Self {
        Self { is_terminal: std::io::stderr().is_terminal() }
    }

    fn show(&self, built: &Built) {
        let line = built.line();
        let text = if self.is_terminal { format!("\r\x1b[K{} {line}", bar(built)) } else { line + "\n" };
        // Whoever closed it does not want to know.
        let _ = write!(std::io::stderr(), "{text}");
    }

    fn end(&self) {
        if self.is_terminal {
            let _ = writeln!(std::io::stderr());
        }
    }
}

fn bar(built: &Built) -> String {
    const WIDTH: u64 = 20;
    let done = WIDTH * built.applied / built.events.max(1);
    (0..WIDTH).map(|place| if place < done { '#' } else { '.' }).collect()
}

pub(crate) async fn list(json: bool, rebuild: &Rebuild) -> Result<()> {
    let generations = rebuild.generations.list().await?;
    print(json, &generations, |generations| {
        let line = |one: &Generation| format!("{:<12} {}\n", one.number, one.state);
        format!("{:<12} state\n{}", "generation", generations.iter().map(line).collect::<String>())
    })
}

pub(crate) async fn serve(number: u32, json: bool, rebuild: &Rebuild) -> Result<()> {
    rebuild.serve(number).await?;
    print(json, &Outcome { generation: number, state: State::Serving }, Outcome::line)
}

pub(crate) async fn drop(number: u32, json: bool, rebuild: &Rebuild) -> Result<()> {
    rebuild.drop(number).await?;
    print(json, &Outcome { generation: number, state: State::Dropped }, Outcome::line)
}
