//! How fast sends are: closed loop at several numbers of connections, open loop at shares of the peak, each beside
//! its baselines. Everybody has his turn in every round, so that a noisy minute hits all alike.

use anyhow::Result;

use super::PEAK_CONNECTIONS;
use crate::findings::{Findings, Found};
use crate::load::{Pace, WhenLate};
use crate::redis_benchmark;
use crate::stage::{Contender, SYSTEM, Stage, Target};
use crate::usage::{self, Part};

const CONNECTIONS: [usize; 4] = [1, 16, PEAK_CONNECTIONS, 256];
/// Of the peak of the system.
const SHARES: [f64; 3] = [0.25, 0.5, 0.75];
/// Enough that a send seldom waits for a connection.
const OPEN_CONNECTIONS: usize = 256;

pub(super) async fn run(stage: &Stage) -> Result<Findings> {
    let system = stage.start_system(crate::sends::Population::USUAL).await?;
    let bare = stage.start_baseline("bare")?;
    let store = stage.start_baseline(match stage.settings.target {
        Target::Standalone => "fjall",
        Target::Real => "script",
    })?;
    let contenders = [bare, store, system];
    let tool = usize::from(stage.settings.target == Target::Real);
    let closed = CONNECTIONS.len() * (contenders.len() + tool);
    stage.progress.expect(stage.settings.rounds * (closed + SHARES.len() * 2));

    let mut findings = Findings::default();
    for round in 1..=stage.settings.rounds {
        for connections in CONNECTIONS {
            let label = closed_label(connections);
            for contender in &contenders {
                stage.measure(contender, (connections, Pace::Closed), (round, &label), &mut findings).await?;
            }
            if stage.settings.target == Target::Real {
                call_by_tool(stage, connections, (round, &label), &mut findings).await?;
            }
        }
    }
    let peak = peak(&findings);
    let [_, store, system] = &contenders;
    for round in 1..=stage.settings.rounds {
        for share in SHARES {
            let pace = Pace::Open { per_second: peak * share, when_late: WhenLate::Wait };
            for contender in [store, system] {
                let label = open_label(share);
                stage.measure(contender, (OPEN_CONNECTIONS, pace), (round, &label), &mut findings).await?;
            }
        }
    }
    add_figures(&mut findings, store, peak);
    Ok(findings)
}

fn closed_label(connections: usize) -> String {
    format!("closed, {connections}")
}

fn open_label(share: f64) -> String {
    format!("open, {:.0} % of peak", share * 100.0)
}

async fn call_by_tool(
    stage: &Stage,
    connections: usize,
    (round, label): (usize, &str),
    findings: &mut Findings,
) -> Result<()> {
    let redis = stage.redis()?;
    let part = Part { name: "redis", pid: redis.pid() };
    usage::settle(&[part]).await?;
    let (port, time) = (redis.addr().port(), stage.settings.timing.measured);
    let found = redis_benchmark::run(stage.dir(), &part, port, connections, time).await?;
    stage.progress.step(&format!("{label}, {}: {}", redis_benchmark::NAME, found.line()));
    findings.record(round, label, redis_benchmark::NAME, found);
    Ok(())
}

/// The highest of the medians.
fn peak(findings: &Findings) -> f64 {
    let rates =
        CONNECTIONS.iter().filter_map(|connections| findings.typical(&closed_label(*connections), SYSTEM));
    rates.map(|found| found.per_second).fold(0.0, f64::max)
}

fn add_figures(findings: &mut Findings, store: &Contender, peak: f64) {
    for connections in CONNECTIONS {
        let label = closed_label(connections);
        let Some(system) = findings.typical(&label, SYSTEM) else { continue };
        findings.figure(format!("sends_per_second_at_{connections}"), system.per_second);
        for baseline in ["bare", store.name, redis_benchmark::NAME] {
            let (name, ours, theirs) = (baseline.replace('-', "_"), (&*label, SYSTEM), (&*label, baseline));
            let share = findings.ratio(|found| found.per_second, ours, theirs);
            findings.figure(format!("share_of_{name}_at_{connections}"), share);
            if baseline != "bare" {
                let redis = |found: &Found| found.cpu_us.get("redis").copied().unwrap_or(f64::NAN);
                let cpu = findings.ratio(redis, ours, theirs);
                findings.figure(format!("redis_cpu_of_{name}_at_{connections}"), cpu);
            }
        }
    }
    findings.figure("peak_per_second", peak);
    if let Some(found) = findings.typical(&closed_label(1), SYSTEM) {
        findings.figure("one_client_p50_ms", found.p50_ms);
    }
    if let Some(found) = findings.typical(&open_label(0.5), SYSTEM) {
        findings.figure("half_of_peak_p50_ms", found.p50_ms);
        findings.figure("half_of_peak_p99_ms", found.p99_ms);
        findings.figure("half_of_peak_p999_ms", found.p999_ms.unwrap_or(f64::NAN));
        findings.figure("half_of_peak_failed", found.failed as f64);
        findings.figure("half_of_peak_refused", found.refused_per_second);
    }
}
