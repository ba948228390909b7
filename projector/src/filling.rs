//! Which generations this process works on: all that the register says are filled, for as long as it says so.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use shared::Clock;
use shared::generation::{Generation, Generations, State};
use shared::limits::{FILLING_ENDS_WITHIN, GENERATION_CHECK_INTERVAL};
use shared::ports::StoreError;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::progress::{Progress, Watched};
use crate::reapplying::{Reapplier, reapply};
use crate::run::{Projector, run};

/// Makes what works on a generation.
pub trait Makes: Send + Sync {
    /// All consumers of this process. One that is being built is paced.
    fn projectors(&self, generation: Generation) -> Vec<Projector>;

    fn reapplier(&self, generation: u32) -> Reapplier;

    fn watched(&self, generation: u32) -> Watched;
}

/// Until the register was read once. While there is no connection that costs nothing, and a projector that has one is
/// ready.
const FIRST_LOOKS_APART: Duration = Duration::from_millis(10);

/// What fills the views, until shutdown: then all of it is waited for.
pub struct Filler {
    pub generations: Arc<dyn Generations>,
    pub makes: Box<dyn Makes>,
    pub progress: Progress,
    pub clock: Clock,
}

impl Filler {
    pub async fn run(self, shutdown: CancellationToken) {
        let mut filled: BTreeMap<u32, Filled> = BTreeMap::new();
        let (mut watch, mut interval) = (Watch::default(), FIRST_LOOKS_APART);
        loop {
            match self.generations.list().await {
                Ok(listed) => {
                    self.follow(&listed, &mut filled, &shutdown).await;
                    watch.follow(&self, &listed, &shutdown);
                    interval = GENERATION_CHECK_INTERVAL;
                }
                // A newer program has changed them. This one can write none of what it has read; while it held that,
                // nobody else would.
                Err(StoreError::Unfit { what, .. }) if !filled.is_empty() => {
                    tracing::error!(
                        what,
                        "the views do not fit this program any more: it leaves its work to others"
                    );
                    filled.clear();
                }
                // A register that cannot be read for another reason changes nothing.
                Err(_) => {}
            }
            if shutdown.run_until_cancelled(tokio::time::sleep(interval)).await.is_none() {
                break;
            }
        }
        for mut filled in filled.into_values() {
            filled.consumers.ended().await;
            filled.reapplying.ended().await;
        }
        while watch.tasks.join_next().await.is_some() {}
    }

    async fn follow(
        &self,
        listed: &[Generation],
        filled: &mut BTreeMap<u32, Filled>,
        shutdown: &CancellationToken,
    ) {
        let wanted = |number: &u32| listed.iter().find(|one| one.number == *number && one.state.is_filled());
        let stale: Vec<_> = filled
            .iter()
            .filter(|(number, one)| wanted(number).map(pace) != Some(one.pace))
            .map(|(number, _)| *number)
            .collect();
        for number in stale {
            let Some(one) = filled.remove(&number) else { continue };
            one.consumers.end(FILLING_ENDS_WITHIN).await;
            let Some(generation) = wanted(&number) else {
                one.reapplying.end(FILLING_ENDS_WITHIN).await;
                tracing::info!(generation = number, "stopped filling");
                continue;
            };
            let consumers = self.consume(*generation, shutdown.child_token());
            filled.insert(number, Filled { pace: pace(generation), consumers, ..one });
        }
        for generation in listed.iter().filter(|generation| generation.state.is_filled()) {
            let begin = || self.begin(*generation, shutdown);
            filled.entry(generation.number).or_insert_with(begin);
        }
    }

    fn begin(&self, generation: Generation, shutdown: &CancellationToken) -> Filled {
        let mut reapplying = Work { stop: shutdown.child_token(), tasks: JoinSet::new() };
        let reapplier = self.makes.reapplier(generation.number);
        reapplying.tasks.spawn(reapply(reapplier, reapplying.stop.clone()));
        let consumers = self.consume(generation, shutdown.child_token());
        Filled { pace: pace(&generation), consumers, reapplying }
    }

    fn consume(&self, generation: Generation, stop: CancellationToken) -> Work {
        tracing::info!(generation = generation.number, state = generation.state.name(), "filling");
        let mut tasks = JoinSet::new();
        for projector in self.makes.projectors(generation) {
            tasks.spawn(run(projector, stop.clone()));
        }
        Work { stop, tasks }
    }
}

/// What of a generation cannot be changed while it is filled: whether it is held back, and to what rate.
fn pace(generation: &Generation) -> Option<Option<u32>> {
    (generation.state == State::Building).then_some(generation.rate)
}

/// A generation that this process works on.
struct Filled {
    pace: Option<Option<u32>>,
    consumers: Work,
    /// Goes on at another pace: no store has lost anything for that.
    reapplying: Work,
}

struct Work {
    stop: CancellationToken,
    tasks: JoinSet<()>,
}

impl Work {
    /// What was read is written and acknowledged; what is left then is another's to take over.
    async fn end(mut self, within: Duration) {
        self.stop.cancel();
        if tokio::time::timeout(within, self.ended()).await.is_err() {
            self.tasks.shutdown().await;
        }
    }

    async fn ended(&mut self) {
        while self.tasks.join_next().await.is_some() {}
    }
}

/// The look at the generations that are complete.
#[derive(Default)]
struct Watch {
    complete: Vec<u32>,
    stop: CancellationToken,
    tasks: JoinSet<()>,
}

impl Watch {
    fn follow(&mut self, filler: &Filler, listed: &[Generation], shutdown: &CancellationToken) {
        let complete = listed.iter().filter(|generation| generation.state.is_complete());
        let complete: Vec<_> = complete.map(|generation| generation.number).collect();
        if complete == self.complete {
            return;
        }
        self.stop.cancel();
        self.stop = shutdown.child_token();
        let watched = complete.iter().map(|number| filler.makes.watched(*number)).collect();
        let watching = filler.progress.clone().watch(watched, filler.clock.clone(), self.stop.clone());
        self.tasks.spawn(watching);
        self.complete = complete;
    }
}
