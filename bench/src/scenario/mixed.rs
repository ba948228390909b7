//! Sends and reads as people make them, one to five, at steady rates through nginx. The whole system is on this machine:
//! nginx, command-api, query-api, projector, Redis and Cassandra, and the load client too.

use anyhow::Result;

use crate::edge::{Edge, READS, SENDS};
use crate::findings::{Findings, Found};
use crate::history::{self, Written};
use crate::mixture::Read;
use crate::sends::{Population, SENDERS};
use crate::stage::Stage;
use crate::usage;
use crate::views::{Views, views_of};

/// Requests per second of both kinds together.
const RATES: [u32; 3] = [1_000, 2_000, 4_000];
const READS_PER_SEND: f64 = 5.0;
/// Of ten reads.
const KINDS: [Read; 10] = {
    use Read::{Hot, Inbox, Own, Past};
    [Hot, Hot, Hot, Hot, Past, Past, Past, Inbox, Inbox, Own]
};
const POPULATION: Population = Population { messages: 100, ..Population::USUAL };

pub(super) async fn run(stage: &Stage) -> Result<Findings> {
    stage.redis()?;
    let mut views = Views::start(stage).await?;
    let (key_prefix, keyspace) = ("mixed:", stage.new_name("views"));
    views.make(&keyspace)?;
    write_history(stage, &views, &keyspace).await?;
    views.settle().await?;
    let place = (key_prefix, keyspace.as_str());
    let projector = views.start_projector("projector", place, views.node(), &[])?;
    let edge = Edge::start(stage, &views, place, &projector, (POPULATION, &KINDS)).await?;

    // A Java that has just started is slow, and gets faster by work, not by time: with one pass the first round still
    // has three times the latency of the second.
    stage.progress.say("warming up");
    for rate in [RATES, RATES].concat().into_iter().rev() {
        edge.measure(stage, parts_of(rate)).await?;
    }
    stage.progress.expect(stage.settings.rounds * RATES.len());
    let mut findings = Findings::default();
    for round in 1..=stage.settings.rounds {
        for rate in RATES {
            usage::settle(edge.system.servers()).await?;
            let [sends, reads] = edge.measure(stage, parts_of(rate)).await?;
            let label = label(rate);
            stage.progress.step(&format!("{label}: sends {}; reads {}", sends.line(), reads.line()));
            findings.record(round, &label, SENDS, sends);
            findings.record(round, &label, READS, reads);
        }
    }
    RATES.into_iter().for_each(|rate| add_figures(&mut findings, rate));
    Ok(findings)
}

/// What the heads of the population say is there.
async fn write_history(stage: &Stage, views: &Views<'_>, keyspace: &str) -> Result<()> {
    let messages = POPULATION.messages;
    stage.progress.say(&format!("writing {} messages", POPULATION.conversations * messages));
    let conversations: Vec<_> = POPULATION.pairs().map(|users| Written { users, messages }).collect();
    history::write_rows(views.session(), &views_of(keyspace), &conversations).await?;
    for owner in 0..SENDERS {
        let peers = POPULATION.pairs().filter(|(sender, _)| *sender == owner).map(|(_, peer)| peer).collect();
        history::write_inbox(views.session(), &views_of(keyspace), (owner, peers), messages).await?;
    }
    Ok(())
}

/// Sends and reads of so many requests.
fn parts_of(rate: u32) -> [f64; 2] {
    let sends = f64::from(rate) / (1.0 + READS_PER_SEND);
    [sends, sends * READS_PER_SEND]
}

fn label(rate: u32) -> String {
    format!("{rate} requests/s")
}

fn add_figures(findings: &mut Findings, rate: u32) {
    let label = label(rate);
    for who in [SENDS, READS] {
        let Some(found) = findings.typical(&label, who) else { continue };
        findings.figure(format!("at_{rate}_{who}_p50_ms"), found.p50_ms);
        findings.figure(format!("at_{rate}_{who}_p99_ms"), found.p99_ms);
        findings.figure(format!("at_{rate}_{who}_p999_ms"), found.p999_ms.unwrap_or(f64::NAN));
    }
    // Of all rounds: a median would hide what happened once.
    let sum = |of: fn(&Found) -> f64| {
        let rounds = findings.rounds.iter().filter(|round| round.load == label);
        rounds.map(|round| of(&round.found)).sum::<f64>()
    };
    let sums = [
        ("behind", sum(|found| found.behind as f64)),
        ("refused", sum(|found| found.refused_per_second * found.seconds)),
        ("failed", sum(|found| found.failed as f64)),
    ];
    sums.into_iter().for_each(|(name, value)| findings.figure(format!("at_{rate}_{name}"), value));
}
