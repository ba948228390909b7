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

const DELAY: Duration = Duration::from_millis(5);
const CONVERSATIONS: u64 = 1_000;
const ONE: Drainer = Drainer::Projectors(1);
const FOUR: Drainer = Drainer::Projectors(4);

pub(super) async fn run(stage: &Stage) -> Result<Findings> {
    stage.redis()?;
    let views = Views::start(stage).await?;
    let far = Delay::start(views.node(), DELAY)?;
    let basin = Basin { stage, views: &views, node: far.address };
    let events = stage.settings.events;
    let backlog = Backlog { events, conversations: CONVERSATIONS, spread: Spread::Even };
    let mut source = Source::put(stage, backlog).await?;
    basin.warm_up(&[CONVERSATIONS]).await?;
    let label = format!("store {} ms away", DELAY.as_millis());
    stage.progress.expect(stage.settings.rounds * 2);
    let mut findings = Findings::default();
    for round in 1..=stage.settings.rounds {
        for drainer in [ONE, FOUR] {
            let (found, _) = basin.drain(&mut source, drainer).await?;
            let name = drainer.name();
            stage.progress.step(&format!("{label}, {name}: {:.0} events/s", found.per_second));
            findings.record(round, &label, &name, found);
        }
    }
    let rate = |drainer: Drainer| findings.typical(&label, &drainer.name()).map(|found| found.per_second);
    let ratio = rate(FOUR).zip(rate(ONE)).map_or(f64::NAN, |(four, one)| four / one);
    findings.figure("4_of_1_projector", ratio);
    Ok(findings)
}
