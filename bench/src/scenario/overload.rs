//! More sends than can be done. What is accepted must stay near the peak and be answered soon, the rest must be
//! refused at once, and when it is over everything is as before.
//!
//! The flood's client yields to the servers, as one on another machine would, and gives up what it cannot send at
//! once: on few cores it sends less than is offered, and the report says how much. Latency is therefore taken
//! from a watch: a few sends at a low, steady rate that do not yield.

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
    stage.progress.expect(stage.settings.rounds * (2 + 2 * MULTIPLES.len()));
    let mut findings = Findings::default();
    for round in 1..=stage.settings.rounds {
        let peak =
            stage.measure(&system, (PEAK_CONNECTIONS, Pace::Closed), (round, "peak"), &mut findings).await?;
        let quiet = watch(stage, &system).await?;
        stage.progress.step(&format!("before: {}", quiet.line()));
        findings.record(round, "before", WATCH, quiet);
        for multiple in MULTIPLES {
            let (flood, watched) =
                tokio::join!(flood(stage, &system, peak.per_second * multiple), watch(stage, &system));
            let (flood, watched, label) = (flood?, watched?, label(multiple));
            stage.progress.step(&format!("{label}: {}; watch: {}", flood.line(), watched.line()));
            findings.record(round, &label, SYSTEM, flood);
            findings.record(round, &label, WATCH, watched);
            tokio::time::sleep(RECOVERY).await;
            let after = watch(stage, &system).await?;
            stage.progress.step(&format!("5 s after {label}: {}", after.line()));
            findings.record(round, &format!("5 s after {label}"), WATCH, after);
        }
    }
    add_figures(&mut findings);
    Ok(findings)
}

fn label(multiple: f64) -> String {
    format!("{multiple}×")
}

async fn flood(stage: &Stage, system: &Contender, per_second: f64) -> Result<Found> {
    let pace = Pace::Open { per_second, when_late: WhenLate::Skip };
    let load = Load { yields: true, ..stage.load(system, FLOOD_CONNECTIONS, pace) };
    Ok(Found::of(&load::measure(&load, &system.sends, &system.parts).await?))
}

async fn watch(stage: &Stage, system: &Contender) -> Result<Found> {
    let pace = Pace::Open { per_second: WATCH_PER_SECOND, when_late: WhenLate::Wait };
    let load = stage.load(system, WATCH_CONNECTIONS, pace);
    Ok(Found::of(&load::measure(&load, &system.sends, &system.parts).await?))
}

fn add_figures(findings: &mut Findings) {
    let typical = |label: &str, who| findings.typical(label, who).unwrap_or_default();
    let (peak, before) = (typical("peak", SYSTEM).per_second, typical("before", WATCH));
    let mut figures = vec![("peak_per_second".to_owned(), peak)];
    let (mut refusal, mut after_worst) = (0.0, 0.0);
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
        after_worst = f64::max(after_worst, typical(&format!("5 s after {label}"), WATCH).p99_ms);
    }
    figures.push(("refusal_p99_ms".to_owned(), refusal));
    figures.push(("before_p99_ms".to_owned(), before.p99_ms));
    figures.push(("p99_after_of_before".to_owned(), after_worst / before.p99_ms));
    figures.push(("failed".to_owned(), (findings.failed(SYSTEM) + findings.failed(WATCH)) as f64));
    figures.into_iter().for_each(|(name, value)| findings.figure(name, value));
}
