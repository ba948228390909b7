//! The newest page where it is not ready: of the conversation of a million messages beside those of 100. Who asks for it
//! again and again gets what is ready, so each is asked for once, of a query-api that has just started: short conversations
//! are many, and of the long one the head beside the log is another one before each read, as after a send. One read at a
//! time, of both kinds in turns: what disturbs one disturbs the other.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::time::Instant;

use super::{LARGE, PAGES, READER, SMALL, label, newest};
use crate::connection::Connection;
use crate::findings::{Findings, Found};
use crate::history::{self, Written};
use crate::load::Measured;
use crate::reads::{LIMIT, STRIDE, request};
use crate::stage::{SYSTEM, Stage};
use crate::tally::Tally;
use crate::usage;
use crate::views::Views;

/// Of each kind in a round, and of no conversation of 100 twice.
const READS: u64 = 1_000;
pub(super) const KINDS: [&str; 2] = ["cold newest page of 100", "cold newest page of 1,000,000"];

pub(super) struct ColdNewest<'a> {
    pub(super) views: &'a Views<'a>,
    /// Redis, and the prefix of its keys.
    pub(super) log: (&'a str, &'a str),
    pub(super) keyspace: &'a str,
    pub(super) token: &'a str,
    /// The length of the long conversation.
    pub(super) large: u64,
}

impl ColdNewest<'_> {
    pub(super) async fn measure(&self, stage: &Stage, round: usize, findings: &mut Findings) -> Result<()> {
        let (address, _process) = self.views.start_query_api((self.log.1, self.keyspace))?;
        usage::settle(&[self.views.part()]).await?;
        let mut connection = Connection::open(address).await?;
        let mut found = KINDS.map(|_| (Tally::new(), Duration::ZERO));
        // Backwards, so that the last head of the long conversation is its true one again.
        for nth in (0..READS).rev() {
            let short = Written { users: (READER, SMALL.0 + nth), messages: SMALL.1 };
            let long = Written { users: (READER, LARGE.0), messages: self.large - nth * STRIDE % PAGES };
            for (conversation, (tally, waited)) in [short, long].into_iter().zip(&mut found) {
                let latency = self.read(&mut connection, conversation, tally).await?;
                *waited += latency;
            }
        }
        for (kind, (tally, waited)) in KINDS.into_iter().zip(found) {
            let measured = Measured { tally, seconds: waited.as_secs_f64(), cpu: Vec::new() };
            let (label, found) = (label(kind, 1), Found::of(&measured));
            stage.progress.step(&format!("{label}, {SYSTEM}: {}", found.line()));
            findings.record(round, &label, SYSTEM, found);
        }
        Ok(())
    }

    /// How long it took.
    async fn read(
        &self,
        connection: &mut Connection,
        conversation: Written,
        tally: &mut Tally,
    ) -> Result<Duration> {
        // Of both kinds, so that both come after the same.
        history::set_heads(self.log, &[conversation])?;
        let request = request(&newest(conversation.users.1), self.token);
        let begun = Instant::now();
        let answer = connection.exchange(request.as_bytes()).await;
        let latency = begun.elapsed();
        tally.record(&answer, latency);
        if matches!(answer, Ok(200)) {
            let page: Vec<serde_json::Value> = serde_json::from_slice(connection.body()).context("a page")?;
            let last = page.last().and_then(|message| message["seq"].as_u64());
            ensure!(
                page.len() as u64 == LIMIT && last == Some(conversation.messages),
                "of {} messages the newest page shows {}, up to {last:?}",
                conversation.messages,
                page.len()
            );
        }
        Ok(latency)
    }
}

pub(super) fn add_figures(findings: &mut Findings) {
    let [short, long] = KINDS.map(|kind| label(kind, 1));
    let cost = findings.ratio(|found| found.p50_ms, (&long, SYSTEM), (&short, SYSTEM));
    findings.figure("cost_of_newest_of_1000000", cost);
}
