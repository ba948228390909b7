//! How fast the views of a directory are built anew and proved, by the one process that has it.

use std::collections::BTreeMap;

use anyhow::Result;
use xtask::servers::Process;

use super::rebuild::{BOTH, CONVERSATIONS, SPREADS, record_rebuilt};
use crate::backlog::Backlog;
use crate::findings::Findings;
use crate::rebuilding::Rebuild;
use crate::stage::{self, Stage};

pub(super) async fn run(stage: &Stage) -> Result<Findings> {
    let mut filled = Vec::new();
    for (spread, label) in SPREADS {
        let backlog = Backlog { events: stage.settings.events, conversations: CONVERSATIONS, spread };
        stage.progress.say(&format!("appending {} events, {label}", backlog.events));
        let place = stage.new_place("directory")?;
        backlog.put_into(&place).await?;
        filled.push((label, place));
    }
    stage.progress.expect(stage.settings.rounds * filled.len());
    let (mut findings, mut memory_peak) = (Findings::default(), 0);
    for round in 1..=stage.settings.rounds {
        for (label, place) in &filled {
            let rebuild = Rebuild::begin(|| {
                let mut command = Process::command(stage::programs()?.join("standalone"));
                command.arg("--data-dir").arg(place).args(["--log", "warn", "rebuild", "--json"]);
                let output = stage.new_place("rebuild")?.join("log");
                Ok((Process::spawn("rebuild", command, &output)?, output))
            })?;
            let rebuilt = rebuild.end().await?;
            memory_peak = memory_peak.max(rebuilt.memory_peak_bytes);
            record_rebuilt(stage, &mut findings, (round, label), &rebuilt, BTreeMap::new());
        }
    }
    for (label, _) in filled {
        let rate = findings.typical(label, BOTH).map_or(f64::NAN, |found| found.per_second);
        findings.figure(format!("per_second_{}", label.replace(' ', "_")), rate);
    }
    findings.figure("memory_peak_mib", memory_peak as f64 / f64::from(1 << 20));
    Ok(findings)
}
