//! What one more projector is worth where the store is far away: each of its answers takes a while longer, as on another
//! machine, which costs no core of this one.

use std::time::Duration;

use anyhow::Result;

use crate::backlog::{Backlog, Spread};
use crate::delay::Delay;
use crate::drain::{Basin, Drainer, Source};
use crate::findings::Findings;
use crate::stage::Stage;
use crate::views::Views;

/// How many ms each is away, and what the ratio is called there. With the first one projector keeps two cores busy; with
/// the second it waits for what it has in flight.
const STORES: [(&str, u64); 2] = [("4_of_1_projector", 5), ("4_of_1_projector_at_300_ms", 300)];
const CONVERSATIONS: u64 = 1_000;
const DRAINERS: [Drainer; 2] = [Drainer::Projectors(1), Drainer::Projectors(4)];

pub(super) async fn run(stage: &Stage) -> Result<Findings> {
    stage.redis()?;
    let views = Views::start(stage).await?;
    let events = stage.settings.events;
    let backlog = Backlog { events, conversations: CONVERSATIONS, spread: Spread::Even };
    let mut source = Source::put(stage, backlog).await?;
    let near = Basin { stage, views: &views, node: views.node() };
    near.warm_up(&[CONVERSATIONS]).await?;
    stage.progress.expect(stage.settings.rounds * STORES.len() * DRAINERS.len());
    let mut findings = Findings::default();
    for round in 1..=stage.settings.rounds {
        for (_, delay_ms) in STORES {
            let far = Delay::start(views.node(), Duration::from_millis(delay_ms))?;
            let basin = Basin { node: far.address, ..near };
            for drainer in DRAINERS {
                let (found, _) = basin.drain(&mut source, drainer).await?;
                let (label, name) = (label(delay_ms), drainer.name());
                stage.progress.step(&format!("{label}, {name}: {:.0} events/s", found.per_second));
                findings.record(round, &label, &name, found);
            }
        }
    }
    for (figure, delay_ms) in STORES {
        let (label, [one, four]) = (label(delay_ms), DRAINERS.map(Drainer::name));
        findings.figure(figure, findings.ratio(|found| found.per_second, (&label, &four), (&label, &one)));
    }
    Ok(findings)
}

fn label(delay_ms: u64) -> String {
    format!("store {delay_ms} ms away")
}
