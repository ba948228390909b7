//! How fast a backlog gets into the views: drained by one projector and by several, beside the bare drivers. Everybody
//! has a copy of the same log and tables of his own, and his turn in every round.

use anyhow::Result;

use crate::backlog::{Backlog, Spread};
use crate::drain::{Basin, Drainer, Source};
use crate::findings::Findings;
use crate::stage::Stage;
use crate::views::Views;

/// Few enough that a window holds several messages of each, and so many that it does not.
const CONVERSATIONS: [u64; 2] = [1_000, 100_000];
const PROJECTORS: [usize; 3] = [1, 2, 4];

pub(super) async fn run(stage: &Stage) -> Result<Findings> {
    stage.redis()?;
    let views = Views::start(stage).await?;
    let basin = Basin { stage, views: &views, node: views.node() };
    let mut sources = Vec::new();
    for conversations in CONVERSATIONS {
        let backlog = Backlog { events: stage.settings.events, conversations, spread: Spread::Even };
        sources.push(Source::put(stage, backlog).await?);
    }
    basin.warm_up(&CONVERSATIONS).await?;
    let mut drainers = vec![Drainer::Bare];
    drainers.extend(PROJECTORS.map(Drainer::Projectors));
    stage.progress.expect(stage.settings.rounds * sources.len() * drainers.len());
    let mut findings = Findings::default();
    let mut memory_peak = 0;
    for round in 1..=stage.settings.rounds {
        for source in &mut sources {
            for drainer in &drainers {
                let (found, memory) = basin.drain(source, *drainer).await?;
                let (label, name) = (label(source.backlog.conversations), drainer.name());
                stage.progress.step(&format!("{label}, {name}: {:.0} events/s", found.per_second));
                findings.record(round, &label, &name, found);
                if *drainer != Drainer::Bare {
                    memory_peak = memory_peak.max(memory);
                }
            }
        }
        // Cassandra gets faster for a while: who comes later must not always be the same.
        drainers.reverse();
    }
    add_figures(&mut findings, memory_peak);
    Ok(findings)
}

fn label(conversations: u64) -> String {
    format!("{conversations} conversations")
}

fn add_figures(findings: &mut Findings, memory_peak: u64) {
    for conversations in CONVERSATIONS {
        let label = label(conversations);
        let rate = |findings: &Findings, drainer: Drainer| {
            findings.typical(&label, &drainer.name()).map_or(f64::NAN, |found| found.per_second)
        };
        let ratio = |findings: &Findings, one: Drainer, other: Drainer| {
            findings.ratio(|found| found.per_second, (&label, &one.name()), (&label, &other.name()))
        };
        let one = Drainer::Projectors(PROJECTORS[0]);
        let share = ratio(findings, one, Drainer::Bare);
        findings.figure(format!("share_of_bare_{conversations}_conversations"), share);
        let rates = PROJECTORS.map(|count| rate(findings, Drainer::Projectors(count)));
        let least = rates.into_iter().fold(f64::INFINITY, f64::min);
        findings.figure(format!("least_per_second_{conversations}_conversations"), least);
        for count in PROJECTORS.into_iter().skip(1) {
            let more = ratio(findings, Drainer::Projectors(count), one);
            findings.figure(format!("{count}_of_1_projector_{conversations}_conversations"), more);
        }
    }
    findings.figure("memory_peak_mib", memory_peak as f64 / f64::from(1 << 20));
}
