//! How long after its 201 a message can be read through query-api: with nothing else going on, and beside sends. The
//! whole system is on this machine: command-api, projector, query-api, Redis and Cassandra.

use anyhow::Result;

use super::STEADY_CONNECTIONS;
use crate::findings::{Findings, Found};
use crate::load::{self, Pace, WhenLate};
use crate::sends::Population;
use crate::stage::{Contender, SYSTEM, Stage};
use crate::usage::{self, Part};
use crate::views::Views;
use crate::watch::Watch;

const IDLE: &str = "idle";
/// Sends per second that are offered beside the watch.
const OFFERED: [u32; 2] = [1_000, 5_000];
/// In reports, the sends beside the watch.
const SENDS: &str = "sends";

pub(super) async fn run(stage: &Stage) -> Result<Findings> {
    stage.redis()?;
    let views = Views::start(stage).await?;
    let keyspace = stage.new_name("views");
    views.make(&keyspace)?;
    let mut system = stage.start_system(Population::USUAL).await?;
    let key_prefix = system.key_prefix.clone();
    let place = (key_prefix.as_str(), keyspace.as_str());
    let projector = views.start_projector("projector", place, views.node(), &[])?;
    let (queries, query_api) = views.start_query_api(place)?;
    let behind_the_api = [
        Part { name: "projector", pid: projector.pid() },
        Part { name: "queries", pid: query_api.pid() },
        views.part(),
    ];
    system.parts.splice(1..1, behind_the_api);
    let watch = Watch {
        sends_to: system.address,
        reads_from: queries,
        sends: system.sends.clone(),
        tokens: system.tokens.clone(),
    };

    // A Java that has just started is slow.
    stage.progress.say("warming up");
    sends(stage, &system, f64::from(OFFERED[0])).await?;
    stage.progress.expect(stage.settings.rounds * (1 + OFFERED.len()));
    let mut findings = Findings::default();
    for round in 1..=stage.settings.rounds {
        usage::settle(system.servers()).await?;
        let seen = Found::of(&watch.measure(stage.settings.timing).await?);
        record(stage, &mut findings, (round, IDLE), seen);
        for offered in OFFERED {
            let label = label(offered);
            usage::settle(system.servers()).await?;
            let (sends, seen) =
                tokio::join!(sends(stage, &system, f64::from(offered)), watch.measure(stage.settings.timing));
            findings.record(round, &label, SENDS, sends?);
            record(stage, &mut findings, (round, &label), Found::of(&seen?));
        }
    }
    add_figures(&mut findings);
    Ok(findings)
}

async fn sends(stage: &Stage, system: &Contender, per_second: f64) -> Result<Found> {
    let pace = Pace::Open { per_second, when_late: WhenLate::Wait };
    let load = stage.load(system, STEADY_CONNECTIONS, pace);
    Ok(Found::of(&load::measure(&load, &system.sends, &system.parts).await?))
}

fn record(stage: &Stage, findings: &mut Findings, (round, label): (usize, &str), seen: Found) {
    stage.progress.step(&format!("{label}: visible, {}", seen.line()));
    findings.record(round, label, SYSTEM, seen);
}

fn label(offered: u32) -> String {
    format!("{offered} sends/s")
}

fn add_figures(findings: &mut Findings) {
    let loads = [("idle".to_owned(), IDLE.to_owned())];
    let loads = loads.into_iter().chain(OFFERED.map(|offered| (format!("at_{offered}"), label(offered))));
    for (name, label) in loads {
        let Some(seen) = findings.typical(&label, SYSTEM) else { continue };
        findings.figure(format!("{name}_p50_ms"), seen.p50_ms);
        findings.figure(format!("{name}_p99_ms"), seen.p99_ms);
    }
    findings.figure("failed", (findings.failed(SYSTEM) + findings.failed(SENDS)) as f64);
}
