//! How fast another generation of the views is built and proved, beside the bare drivers that bring the same log into
//! the same tables; and what those who send and read meanwhile feel of it.

use std::collections::BTreeMap;

use anyhow::Result;

use crate::backlog::{Backlog, Spread};
use crate::drain::{Basin, Drainer, Source};
use crate::edge::{Edge, READS, SENDS};
use crate::findings::{Findings, Found};
use crate::mixture::Read;
use crate::rebuilding::{Rebuilding, Rebuilt};
use crate::sends::Population;
use crate::stage::Stage;
use crate::usage;
use crate::views::Views;

pub(super) const CONVERSATIONS: u64 = 10_000;
pub(super) const SPREADS: [(Spread, &str); 2] =
    [(Spread::Even, "10000 conversations"), (Spread::HalfInOne, "half in one conversation")];
/// Sends and reads per second of those who use the system meanwhile.
const LIVE: [f64; 2] = [500.0, 500.0];
const KINDS: [Read; 4] = [Read::Hot, Read::Hot, Read::Inbox, Read::Own];
/// Their conversations begin with them; those of the log are of others.
const POPULATION: Population = Population { messages: 0, ..Population::USUAL };

/// In reports. From the command to its end is both.
pub(super) const BOTH: &str = "rebuild and verify";
const BUILD: &str = "rebuild";
const VERIFY: &str = "verify";
const QUIET: &str = "live, quiet";
const BESIDE: &str = "live, beside a rebuild";
const COMPARED: &str = "live, beside a comparison";

pub(super) async fn run(stage: &Stage) -> Result<Findings> {
    stage.redis()?;
    let views = Views::start(stage).await?;
    let basin = Basin { stage, views: &views, node: views.node() };
    let mut sources = Vec::new();
    for (spread, label) in SPREADS {
        let backlog = Backlog { events: stage.settings.events, conversations: CONVERSATIONS, spread };
        sources.push((label, Source::put(stage, backlog).await?));
    }
    basin.warm_up(&[CONVERSATIONS]).await?;
    // In each round two drains and two rebuilds, and the live traffic three times.
    stage.progress.expect(stage.settings.rounds * (2 * SPREADS.len() + 3));
    let (mut findings, mut memory_peak) = (Findings::default(), 0);
    for round in 1..=stage.settings.rounds {
        for (label, source) in &mut sources {
            let (found, _) = basin.drain(source, Drainer::Bare).await?;
            record(stage, &mut findings, (round, label, &Drainer::Bare.name()), found);
            let mut rebuilding = Rebuilding::start(&basin, source).await?;
            let rebuilt = alone(stage, &mut rebuilding, (round, label), &mut findings).await?;
            memory_peak = memory_peak.max(rebuilt.memory_peak_bytes);
            if source.backlog.spread == Spread::Even {
                rebuilding.drop_generation(rebuilt.generation)?;
                let rebuilt = beside(stage, &views, &mut rebuilding, round, &mut findings).await?;
                memory_peak = memory_peak.max(rebuilt.memory_peak_bytes);
            }
            memory_peak = memory_peak.max(rebuilding.projector_part().memory_peak_bytes()?);
            rebuilding.remove().await?;
        }
    }
    add_figures(&mut findings, memory_peak);
    Ok(findings)
}

/// Nobody else is there.
async fn alone(
    stage: &Stage,
    rebuilding: &mut Rebuilding<'_>,
    (round, label): (usize, &str),
    findings: &mut Findings,
) -> Result<Rebuilt> {
    let parts = rebuilding.parts()?;
    let (mut before, mut after) = (Vec::new(), Vec::new());
    usage::settle(&parts).await?;
    usage::sample(&parts, &mut before)?;
    let rebuilt = rebuilding.begin().await?.end().await?;
    usage::sample(&parts, &mut after)?;
    let per_event = |(before, after): (&(_, f64), &(_, f64))| {
        (before.0, (after.1 - before.1) * 1e6 / rebuilt.events as f64)
    };
    let cpu_us = before.iter().zip(&after).map(per_event).collect();
    record_rebuilt(stage, findings, (round, label), &rebuilt, cpu_us);
    Ok(rebuilt)
}

pub(super) fn record_rebuilt(
    stage: &Stage,
    findings: &mut Findings,
    (round, label): (usize, &str),
    rebuilt: &Rebuilt,
    cpu_us: BTreeMap<&'static str, f64>,
) {
    let Rebuilt { seconds, verify_seconds, events, .. } = *rebuilt;
    let found = |seconds| Found { seconds, per_second: events as f64 / seconds, ..Found::default() };
    findings.record(round, label, BUILD, found(seconds - verify_seconds));
    findings.record(round, label, VERIFY, found(verify_seconds));
    record(stage, findings, (round, label, BOTH), Found { cpu_us, ..found(seconds) });
}

/// Sends and reads, with nothing else going on, while a generation is filled, and while one is compared.
async fn beside(
    stage: &Stage,
    views: &Views<'_>,
    rebuilding: &mut Rebuilding<'_>,
    round: usize,
    findings: &mut Findings,
) -> Result<Rebuilt> {
    let whom = (POPULATION, &KINDS[..]);
    let edge = Edge::start(stage, views, rebuilding.place(), &rebuilding.projector, whom).await?;
    stage.progress.say("warming up");
    edge.measure(stage, LIVE).await?;
    let mut measure = async |label: &str| {
        let [sends, reads] = edge.measure(stage, LIVE).await?;
        stage.progress.step(&format!("{label}: sends {}; reads {}", sends.line(), reads.line()));
        findings.record(round, label, SENDS, sends);
        findings.record(round, label, READS, reads);
        anyhow::Ok(())
    };
    usage::settle(edge.system.servers()).await?;
    measure(QUIET).await?;
    let mut rebuild = rebuilding.begin().await?;
    measure(BESIDE).await?;
    rebuild.goes_on()?;
    let rebuilt = rebuild.end().await?;
    let Rebuilt { generation, seconds, verify_seconds, events, .. } = rebuilt;
    tokio::select! {
        measured = measure(COMPARED) => measured?,
        ended = rebuilding.compare(generation) => match ended? {},
    }
    let per_second = events as f64 / (seconds - verify_seconds);
    findings.record(round, BESIDE, BUILD, Found { seconds, per_second, ..Found::default() });
    Ok(rebuilt)
}

fn record(stage: &Stage, findings: &mut Findings, (round, label, who): (usize, &str, &str), found: Found) {
    stage.progress.step(&format!("{label}, {who}: {:.0} events/s", found.per_second));
    findings.record(round, label, who, found);
}

fn add_figures(findings: &mut Findings, memory_peak: u64) {
    for (_, label) in SPREADS {
        let per_second = findings.typical(label, BOTH).map_or(f64::NAN, |found| found.per_second);
        let bare = Drainer::Bare.name();
        let share = findings.ratio(|found| found.per_second, (label, BOTH), (label, &bare));
        let name = label.replace(' ', "_");
        findings.figure(format!("share_of_bare_{name}"), share);
        findings.figure(format!("per_second_{name}"), per_second);
    }
    for who in [SENDS, READS] {
        for (figure, label) in [("p99_of_quiet", BESIDE), ("p99_of_quiet_compared", COMPARED)] {
            let ratio = findings.ratio(|found| found.p99_ms, (label, who), (QUIET, who));
            findings.figure(format!("{who}_{figure}"), ratio);
        }
        let beside = findings.typical(BESIDE, who).map_or(f64::NAN, |found| found.p99_ms);
        findings.figure(format!("{who}_p99_ms_beside"), beside);
    }
    findings.figure("failed", (findings.failed(SENDS) + findings.failed(READS)) as f64);
    findings.figure("memory_peak_mib", memory_peak as f64 / f64::from(1 << 20));
}
