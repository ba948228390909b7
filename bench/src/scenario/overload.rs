//! More sends than can be done. What is accepted must stay near the peak and be answered soon, the rest must be
//! refused at once, and when it is over everything is as before.
//!
//! The flood's client yields to the servers, as one on another machine would, and gives up what it cannot send at
//! once: on few cores it sends less than is offered, and the report says how much. Latency is therefore taken
//! from a watch: a few sends at a low, steady rate that do not yield. It begins when the flood does, which needs a
//! while to connect.

use std::time::Duration;

use anyhow::Result;

use super::PEAK_CONNECTIONS;
use crate::findings::{Findings, Found};
use crate::load::{self, Load, Pace, WhenLate};
use crate::sends::Population;
use crate::stage::{Contender, SYSTEM, Stage};

const MULTIPLES: [f64; 4] = [1.0, 2.0, 5.0, 10.0];
/// More than the system lets wait.
const FLOOD_CONNECTIONS: usize = 2_048;
const WATCH_PER_SECOND: f64 = 200.0;
const WATCH_CONNECTIONS: usize = 32;
const WATCH: &str = "watch";
/// From the end of a flood to when everything is as before.
const RECOVERY: Duration = Duration::from_secs(5);

pub(super) async fn run(stage: &Stage) -> Result<Findings> {
    let system = stage.start_system(Population::USUAL).await?;
    stage.progress.expect(stage.settings.rounds * (1 + 3 * MULTIPLES.len()));
    let mut findings = Findings::default();
    for round in 1..=stage.settings.rounds {
        let peak =
            stage.measure(&system, (PEAK_CONNECTIONS, Pace::Closed), (round, "peak"), &mut findings).await?;
        // As often as after: the worst of several is worse than one.
        for multiple in MULTIPLES {
            watch(stage, &system, (round, &before(multiple)), &mut findings).await?;
        }
        for multiple in MULTIPLES {
            let (flood, watched) = flood(stage, &system, peak.per_second * multiple).await?;
            let label = label(multiple);
            stage.progress.step(&format!("{label}: {}; watch: {}", flood.line(), watched.line()));
            findings.record(round, &label, SYSTEM, flood);
            findings.record(round, &label, WATCH, watched);
            tokio::time::sleep(RECOVERY).await;
            watch(stage, &system, (round, &after(multiple)), &mut findings).await?;
        }
    }
    add_figures(&mut findings);
    Ok(findings)
}

fn label(multiple: f64) -> String {
    format!("{multiple}×")
}

fn before(multiple: f64) -> String {
    format!("before {}", label(multiple))
}

fn after(multiple: f64) -> String {
    format!("5 s after {}", label(multiple))
}

/// What the flood found, and the watch beside it.
async fn flood(stage: &Stage, system: &Contender, per_second: f64) -> Result<(Found, Found)> {
    let pace = Pace::Open { per_second, when_late: WhenLate::Skip };
    let flood = Load { yields: true, ..stage.load(system, FLOOD_CONNECTIONS, pace) };
    let watch = watching(stage, system);
    let loads = [(&flood, &system.sends), (&watch, &system.sends)];
    let [flood, watched] = load::measure_together(loads, &system.parts).await?;
    Ok((Found::of(&flood), Found::of(&watched)))
}

async fn watch(
    stage: &Stage,
    system: &Contender,
    (round, label): (usize, &str),
    findings: &mut Findings,
) -> Result<()> {
    let load = watching(stage, system);
    let found = Found::of(&load::measure(&load, &system.sends, &system.parts).await?);
    stage.progress.step(&format!("{label}: {}", found.line()));
    findings.record(round, label, WATCH, found);
    Ok(())
}

fn watching(stage: &Stage, system: &Contender) -> Load {
    let pace = Pace::Open { per_second: WATCH_PER_SECOND, when_late: WhenLate::Wait };
    stage.load(system, WATCH_CONNECTIONS, pace)
}

fn add_figures(findings: &mut Findings) {
    let typical = |label: &str, who| findings.typical(label, who).unwrap_or_default();
    let peak = typical("peak", SYSTEM).per_second;
    let mut figures = vec![("peak_per_second".to_owned(), peak)];
    let (mut refusal, mut before_worst, mut after_worst) = (0.0, 0.0, 0.0);
    for multiple in MULTIPLES {
        let label = label(multiple);
        let (flood, watched) = (typical(&label, SYSTEM), typical(&label, WATCH));
        let sent = flood.per_second + flood.refused_per_second;
        figures.push((
            format!("goodput_of_peak_at_{multiple}x"),
            (flood.per_second + watched.per_second) / peak,
        ));
        figures.push((format!("sent_of_peak_at_{multiple}x"), (sent + WATCH_PER_SECOND) / peak));
        figures.push((format!("accepted_p99_ms_at_{multiple}x"), watched.p99_ms));
        refusal = f64::max(refusal, watched.refusal_p99_ms);
        before_worst = f64::max(before_worst, typical(&before(multiple), WATCH).p99_ms);
        after_worst = f64::max(after_worst, typical(&after(multiple), WATCH).p99_ms);
    }
    figures.push(("before_p99_ms".to_owned(), before_worst));
    figures.push(("p99_after_of_before".to_owned(), after_worst / before_worst));
    figures.push(("failed".to_owned(), (findings.failed(SYSTEM) + findings.failed(WATCH)) as f64));
    figures.into_iter().for_each(|(name, value)| findings.figure(name, value));
    if refusal > 0.0 {
        findings.figure("refusal_p99_ms", refusal);
    } else {
        findings.nothing("refusal_p99_ms", "nothing was refused");
    }
}
