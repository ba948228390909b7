//! Connections that do nothing, and ones that send a byte now and then, must not slow down the others.

use anyhow::Result;

use super::steady;
use crate::findings::Findings;
use crate::held::Held;
use crate::sends::Population;
use crate::stage::{SYSTEM, Stage};

const IDLE: usize = 10_000;
const SLOW: usize = 1_000;
/// A quick run holds a tenth.
const QUICK_DIVISOR: usize = 10;

pub(super) async fn run(stage: &Stage) -> Result<Findings> {
    let system = stage.start_system(Population::USUAL).await?;
    let divisor = if stage.settings.quick { QUICK_DIVISOR } else { 1 };
    let (idle, slow) = (IDLE / divisor, SLOW / divisor);
    stage.progress.expect(stage.settings.rounds * 2);
    let mut findings = Findings::default();
    let mut bytes_per_connection = Vec::new();
    for round in 1..=stage.settings.rounds {
        steady(stage, &system, (round, "quiet"), &mut findings).await?;
        let api = system.parts[0];
        let before = api.memory_bytes()?;
        let idle_ones = Held::idle(system.address, idle).await?;
        bytes_per_connection.push(api.memory_bytes()?.saturating_sub(before) as f64 / idle as f64);
        let slow_ones = Held::slow(system.address, slow).await?;
        steady(stage, &system, (round, "beside held connections"), &mut findings).await?;
        let again = (idle_ones.opened() + slow_ones.opened()).saturating_sub(idle + slow);
        stage
            .progress
            .say(&format!("{idle} idle and {slow} slow, of which {again} were closed and came again"));
    }
    let typical = |label| findings.typical(label, SYSTEM).unwrap_or_default();
    let (quiet, beside) = (typical("quiet"), typical("beside held connections"));
    let p99_of_quiet =
        findings.ratio(|found| found.p99_ms, ("beside held connections", SYSTEM), ("quiet", SYSTEM));
    findings.figure("quiet_p99_ms", quiet.p99_ms);
    findings.figure("beside_p99_ms", beside.p99_ms);
    findings.figure("p99_of_quiet", p99_of_quiet);
    // Of the first round: later ones find memory that was used before.
    findings.figure("bytes_per_idle_connection", bytes_per_connection[0]);
    findings.figure("failed", findings.failed(SYSTEM) as f64);
    Ok(findings)
}
