//! `projector verify`: compares one generation with the log.

use anyhow::{Result, bail, ensure};
use projector::{Bar, Comparison, Rebuild, Verifier, print};

use super::generations::rebuild_of;
use super::stores::{Stores, verifier};
use crate::config::{self, Of};

pub(crate) async fn verify(options: config::Verify) -> Result<()> {
    let Of { generation, asked } = options.of;
    let stores = Stores::open(&asked).await?;
    let generation = stores.known(generation).await?;
    let verifier = verifier(&stores.redis, &stores.cassandra, generation).paced(options.rate);
    let done = compare(&verifier, asked.json, &rebuild_of(&stores.redis, &stores.cassandra)).await;
    stores.lifecycle.drain().await;
    done
}

/// Fails if the views differ, and then they may not serve.
async fn compare(verifier: &Verifier, json: bool, rebuild: &Rebuild) -> Result<()> {
    let bar = Bar::new();
    let compared = projector::verify(verifier, &|step| bar.step(step)).await;
    bar.finish();
    let comparison = compared?;
    print(json, &comparison, Comparison::lines)?;
    let generation = comparison.generation;
    if comparison.is_clean() {
        ensure!(comparison.is_proof(), "generation {generation} is not proved as a whole");
        return Ok(());
    }
    let differs = format!("generation {generation} is not what the log says");
    match rebuild.withdraw(generation).await {
        Ok(true) => bail!("{differs}: it is building again, and cannot serve"),
        Ok(false) => bail!(differs),
        Err(error) => bail!("{differs}, and it may still be told to serve: {error}"),
    }
}
