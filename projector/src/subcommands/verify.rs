//! `projector verify`: compares one generation with the log.

use std::sync::Arc;

use anyhow::{Result, ensure};
use projector::{Bar, Comparison, PacedScan, Verifier, print};

use super::stores::{Stores, verifier};
use crate::config::{self, Of};

pub(crate) async fn verify(options: config::Verify) -> Result<()> {
    let Of { generation, asked } = options.of;
    let stores = Stores::open(&asked).await?;
    let generation = stores.known(generation).await?;
    let mut verifier = verifier(&stores.redis, &stores.cassandra, generation);
    if let Some(rate) = options.rate {
        verifier.log = Arc::new(PacedScan::new(verifier.log.clone(), rate));
    }
    let done = compare(&verifier, asked.json).await;
    stores.lifecycle.drain().await;
    done
}

/// Fails if the views differ.
async fn compare(verifier: &Verifier, json: bool) -> Result<()> {
    let bar = Bar::new();
    let compared = projector::verify(verifier, &|step| bar.step(step)).await;
    bar.finish();
    let comparison = compared?;
    print(json, &comparison, Comparison::lines)?;
    ensure!(comparison.is_clean(), "generation {} is not what the log says", comparison.generation);
    Ok(())
}
