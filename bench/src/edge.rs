//! All that answers requests, behind nginx: command-api and query-api, and people who send to the one and read from the
//! other.

use std::sync::Arc;

use anyhow::Result;
use xtask::servers::{Nginx, NginxOptions, Process};

use crate::findings::Found;
use crate::load::{self, Load, Pace, WhenLate};
use crate::mixture::{LastSent, Mixture, Read, told};
use crate::sends::{Population, Source};
use crate::stage::{self, Contender, Stage};
use crate::usage::Part;
use crate::views::Views;

/// Enough that a request seldom waits for a connection.
const SEND_CONNECTIONS: usize = 32;
const READ_CONNECTIONS: usize = 64;

/// In reports.
pub(crate) const SENDS: &str = "sends";
pub(crate) const READS: &str = "reads";

pub(crate) struct Edge {
    /// What answers is nginx.
    pub(crate) system: Contender,
    sends: Arc<dyn Source>,
    reads: Arc<dyn Source>,
    _nginx: Nginx,
    _query_api: Process,
}

impl Edge {
    /// On the log and the views of this place. `projector` is counted, too.
    pub(crate) async fn start(
        stage: &Stage,
        views: &Views<'_>,
        (key_prefix, keyspace): (&str, &str),
        projector: &Process,
        (population, kinds): (Population, &'static [Read]),
    ) -> Result<Self> {
        let mut system = stage.start_system_on(key_prefix.to_owned(), population).await?;
        let (queries, query_api) = views.start_query_api((key_prefix, keyspace))?;
        let nginx = Nginx::start(&NginxOptions {
            dir: stage.new_place("nginx")?,
            listen: stage::free_address()?,
            command_apis: &[system.address],
            query_apis: &[queries],
        })?;
        system.address = nginx.addr();
        let part = |name, process: &Process| Part { name, pid: process.pid() };
        let mut parts = vec![part("projector", projector), part("queries", &query_api), views.part()];
        parts.extend(part("nginx", &nginx).children()?);
        system.parts.splice(1..1, parts);
        let (tokens, last) = (system.tokens.clone(), LastSent::default());
        let reads = Mixture { population, tokens, kinds, last: last.clone(), past: Arc::default() };
        let sends = told(system.sends.clone(), last);
        Ok(Self { system, sends, reads: Arc::new(reads), _nginx: nginx, _query_api: query_api })
    }

    /// Sends and reads at fixed rates. CPU is per request of either.
    pub(crate) async fn measure(&self, stage: &Stage, [sends, reads]: [f64; 2]) -> Result<[Found; 2]> {
        let load = |connections, per_second| -> Load {
            stage.load(&self.system, connections, Pace::Open { per_second, when_late: WhenLate::Wait })
        };
        let (sends, reads) = (load(SEND_CONNECTIONS, sends), load(READ_CONNECTIONS, reads));
        let loads = [(&sends, &self.sends), (&reads, &self.reads)];
        let [sends, reads] = load::measure_together(loads, &self.system.parts).await?;
        let (sent, read) = (sends.tally.answered(), reads.tally.answered());
        let share = sent as f64 / (sent + read).max(1) as f64;
        let [mut sends, reads] = [Found::of(&sends), Found::of(&reads)];
        sends.cpu_us.values_mut().for_each(|us| *us *= share);
        Ok([sends, reads])
    }
}
