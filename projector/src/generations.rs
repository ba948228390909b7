//! What `projector rebuild`, `generations`, `serve` and `drop` do and print: the outcome on standard output, how far it
//! is on standard error.

use std::io::Write;

use anyhow::{Result, ensure};
use projector::{Bar, Comparison, Rebuild, print};
use serde::Serialize;
use shared::generation::{Generation, State};

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
    let (verifier, bar) = ((rebuild.verifier)(generation), Bar::new());
    let compared = match rebuild.follow(&verifier, |built| bar.built(built)).await {
        Ok(()) => rebuild.prove(&verifier, &|step| bar.step(step)).await,
        Err(error) => Err(error),
    };
    bar.finish();
    Ok(compared?)
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
