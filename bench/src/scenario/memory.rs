//! Resident memory at peak: after a warm-up it must not grow.

use std::time::Duration;

use anyhow::Result;
use tokio::time::Instant;

use super::PEAK_CONNECTIONS;
use crate::findings::Findings;
use crate::load::Pace;
use crate::sends::Population;
use crate::stage::{SYSTEM, Stage};
use crate::usage::{self, Part};

/// Of a run.
const SAMPLES: u32 = 60;

pub(super) async fn run(stage: &Stage) -> Result<Findings> {
    let system = stage.start_system(Population::USUAL).await?;
    stage.progress.expect(1);
    let mut findings = Findings::default();
    // Before the samples begin, so that they cover the load and nothing else.
    usage::settle(system.servers()).await?;
    let load = (PEAK_CONNECTIONS, Pace::Closed);
    let time = stage.settings.timing.warm_up + stage.settings.timing.measured;
    let (measured, samples) = tokio::join!(
        stage.measure(&system, load, (1, "peak"), &mut findings),
        sample(system.parts[0], time / SAMPLES),
    );
    measured?;
    let samples = samples?;
    let quarter = samples.len() / 4;
    let mean = |bytes: &[f64]| bytes.iter().sum::<f64>() / bytes.len() as f64;
    let (warm, last) = (mean(&samples[quarter..2 * quarter]), mean(&samples[3 * quarter..]));
    findings.figure("memory_warm_mib", warm / f64::from(1 << 20));
    findings.figure("memory_last_mib", last / f64::from(1 << 20));
    findings.figure("memory_growth", last / warm);
    findings.figure("failed", findings.failed(SYSTEM) as f64);
    for (second, bytes) in samples.iter().enumerate() {
        findings.figure(format!("memory_mib_{second:02}"), bytes / f64::from(1 << 20));
    }
    Ok(findings)
}

async fn sample(part: Part, every: Duration) -> Result<Vec<f64>> {
    let begun = Instant::now();
    let mut samples = Vec::new();
    for nth in 1..=SAMPLES {
        tokio::time::sleep_until(begun + every * nth).await;
        samples.push(part.memory_bytes()? as f64);
    }
    Ok(samples)
}
