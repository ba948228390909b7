//! Logins cost 25 ms of a core each. A flood of them must not take the cores from the sends.

use std::sync::Arc;

use anyhow::Result;

use super::steady;
use crate::findings::{Findings, Found};
use crate::load::{self, Load, Pace, WhenLate};
use crate::sends::{Logins, Population, Source};
use crate::stage::{Contender, SYSTEM, Stage};

/// Some seven times as many as two cores can hash.
const FLOOD_PER_SECOND: f64 = 500.0;
const FLOOD_CONNECTIONS: usize = 64;

pub(super) async fn run(stage: &Stage) -> Result<Findings> {
    let system = stage.start_system(Population::USUAL).await?;
    stage.progress.expect(stage.settings.rounds * 3);
    let mut findings = Findings::default();
    for round in 1..=stage.settings.rounds {
        steady(stage, &system, (round, "quiet"), &mut findings).await?;
        let label = (round, "beside the flood");
        let (logins, sends) =
            tokio::join!(flood(stage, &system), steady(stage, &system, label, &mut findings));
        let (logins, _) = (logins?, sends?);
        stage.progress.step(&format!("the flood: {}", logins.line()));
        findings.record(round, "the flood", "logins", logins);
    }
    add_figures(&mut findings);
    Ok(findings)
}

async fn flood(stage: &Stage, system: &Contender) -> Result<Found> {
    let pace = Pace::Open { per_second: FLOOD_PER_SECOND, when_late: WhenLate::Skip };
    let load = Load { yields: true, ..stage.load(system, FLOOD_CONNECTIONS, pace) };
    let logins: Arc<dyn Source> = Arc::new(Logins);
    Ok(Found::of(&load::measure(&load, &logins, &system.parts).await?))
}

fn add_figures(findings: &mut Findings) {
    let typical = |label, who| findings.typical(label, who).unwrap_or_default();
    let (quiet, flooded) = (typical("quiet", SYSTEM), typical("beside the flood", SYSTEM));
    let logins = typical("the flood", "logins");
    let p99_of_quiet = findings.ratio(|found| found.p99_ms, ("beside the flood", SYSTEM), ("quiet", SYSTEM));
    findings.figure("quiet_p99_ms", quiet.p99_ms);
    findings.figure("flooded_p99_ms", flooded.p99_ms);
    findings.figure("p99_of_quiet", p99_of_quiet);
    findings.figure("logins_per_second", logins.per_second);
    findings.figure("login_refusal_p99_ms", logins.refusal_p99_ms);
    findings.figure("failed", (findings.failed(SYSTEM) + findings.failed("logins")) as f64);
}
