//! `projector rebuild`, `generations`, `serve` and `drop`: what an operator does with the generations of views.

use std::io::Write;
use std::sync::Arc;

use anyhow::{Result, ensure};
use projector::{Bar, Comparison, Rebuild, print};
use serde::Serialize;
use shared::Clock;
use shared::generation::{Generation, State};
use storage::cassandra::Cassandra;
use storage::redis::Redis;

use super::stores::{Stores, verifier};
use crate::config::{self, Asked, Instead, Numbered};

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

pub(crate) async fn rebuild(command: config::Rebuild) -> Result<()> {
    let config::Rebuild { rate, instead, asked } = command;
    let json = asked.json;
    administer(&asked, async |rebuild| {
        let Generation { number, state, .. } = match instead {
            Instead { pause: true, .. } => rebuild.pause().await?,
            Instead { resume: true, .. } => rebuild.resume().await?,
            Instead { cancel: true, .. } => rebuild.cancel().await?,
            Instead { pause: false, resume: false, cancel: false } => {
                return build(rate, json, rebuild).await;
            }
        };
        Ok(print(json, &Outcome { generation: number, state }, Outcome::line)?)
    })
    .await
}

async fn build(rate: Option<u32>, json: bool, rebuild: &Rebuild) -> Result<()> {
    let generation = rebuild.begin(rate).await?.number;
    let proved = prove(generation, rate, rebuild).await;
    if proved.as_ref().is_ok_and(Comparison::is_proof) {
        rebuild.complete(generation).await?;
    }
    rebuild.end().await?;
    let comparison = proved?;
    print(json, &comparison, Comparison::lines)?;
    ensure!(comparison.is_clean(), "generation {generation} is not what the log says, so it stays building");
    ensure!(comparison.is_proof(), "generation {generation} is not proved as a whole, so it stays building");
    let mut out = std::io::stderr();
    writeln!(out, "generation {generation} is complete: `projector serve {generation}` has it read")?;
    Ok(())
}

/// Waits until it is filled, and compares it with the log.
async fn prove(generation: u32, rate: Option<u32>, rebuild: &Rebuild) -> Result<Comparison> {
    let (verifier, bar) = ((rebuild.verifier)(generation).paced(rate), Bar::new());
    let compared = match rebuild.follow(&verifier, |built| bar.built(built)).await {
        Ok(()) => rebuild.prove(&verifier, &|step| bar.step(step)).await,
        Err(error) => Err(error),
    };
    bar.finish();
    Ok(compared?)
}

pub(crate) async fn list(asked: Asked) -> Result<()> {
    let generations = administer(&asked, async |rebuild| Ok(rebuild.generations.list().await?)).await?;
    print(asked.json, &generations, |generations| {
        let kept = |until| format!(", kept until {until}");
        let line = |one: &Generation| {
            format!("{:<12} {}{}\n", one.number, one.state, one.kept_until.map(kept).unwrap_or_default())
        };
        format!("{:<12} state\n{}", "generation", generations.iter().map(line).collect::<String>())
    })?;
    Ok(())
}

pub(crate) async fn serve(config::Serve { keep, numbered }: config::Serve) -> Result<()> {
    let Numbered { number, asked } = numbered;
    let keep_until = Clock::system().now().plus(keep);
    administer(&asked, async |rebuild| Ok(rebuild.serve(number, keep_until).await?)).await?;
    Ok(print(asked.json, &Outcome { generation: number, state: State::Serving }, Outcome::line)?)
}

pub(crate) async fn drop(Numbered { number, asked }: Numbered) -> Result<()> {
    administer(&asked, async |rebuild| Ok(rebuild.drop(number).await?)).await?;
    Ok(print(asked.json, &Outcome { generation: number, state: State::Dropped }, Outcome::line)?)
}

async fn administer<T>(asked: &Asked, act: impl AsyncFnOnce(&Rebuild) -> Result<T>) -> Result<T> {
    let stores = Stores::open(asked).await?;
    let done = act(&rebuild_of(&stores.redis, &stores.cassandra)).await;
    stores.lifecycle.drain().await;
    done
}

pub(super) fn rebuild_of(redis: &Redis, cassandra: &Cassandra) -> Rebuild {
    let (redis, cassandra) = (redis.clone(), cassandra.clone());
    Rebuild {
        generations: Arc::new(cassandra.generations()),
        groups: Arc::new(redis.groups()),
        verifier: Box::new(move |generation| verifier(&redis, &cassandra, generation)),
        holder: Clock::system().new_id().to_string(),
    }
}
