//! One drain: a copy of a backlog, empty tables, and who brings the one into the other. At its end all rows are read
//! back: what is not there, or differs from what the others wrote, is an error.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::time::Instant;
use xtask::servers::Process;

use crate::backlog::{Backlog, Spread};
use crate::findings::Found;
use crate::log::{Drained, Log};
use crate::stage::Stage;
use crate::usage::{self, Part};
use crate::views::{Views, views_of};

pub(crate) const DRAIN_TIME_MAX: Duration = Duration::from_secs(600);
const LOOK_FOR_BEGIN_EVERY: Duration = Duration::from_millis(2);
pub(crate) const LOOK_FOR_END_EVERY: Duration = Duration::from_millis(20);
/// Before the first round, of each spread, as a Java that has just started is slow.
const WARM_UP_EVENTS: u64 = 100_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Drainer {
    /// The bare drivers.
    Bare,
    Projectors(usize),
}

impl Drainer {
    pub(crate) fn name(self) -> String {
        match self {
            Self::Bare => "bare".to_owned(),
            Self::Projectors(1) => "1 projector".to_owned(),
            Self::Projectors(count) => format!("{count} projectors"),
        }
    }
}

/// A backlog in Redis, and what its rows must be.
pub(crate) struct Source {
    pub(crate) backlog: Backlog,
    pub(crate) key_prefix: String,
    heads: BTreeMap<String, u64>,
    /// Of the rows of whoever drained it first.
    digest: Option<u64>,
}

impl Source {
    pub(crate) async fn put(stage: &Stage, backlog: Backlog) -> Result<Self> {
        let Backlog { events, conversations, .. } = backlog;
        stage.progress.say(&format!("appending {events} events of {conversations} conversations"));
        let key_prefix = format!("{}:", stage.new_name("source"));
        backlog.put(&stage.redis()?.url(), &key_prefix, None).await?;
        Ok(Self { backlog, key_prefix, heads: backlog.heads(), digest: None })
    }
}

/// Where drains happen.
pub(crate) struct Basin<'a> {
    pub(crate) stage: &'a Stage,
    pub(crate) views: &'a Views<'a>,
    /// Cassandra, or what stands before it.
    pub(crate) node: SocketAddr,
}

impl Basin<'_> {
    pub(crate) async fn warm_up(&self, spreads: &[u64]) -> Result<()> {
        let events = WARM_UP_EVENTS.min(self.stage.settings.events);
        for conversations in spreads {
            let backlog = Backlog { events, conversations: *conversations, spread: Spread::Even };
            let mut source = Source::put(self.stage, backlog).await?;
            self.stage.progress.say("warming up");
            for drainer in [Drainer::Bare, Drainer::Projectors(1)] {
                self.drain(&mut source, drainer).await?;
            }
        }
        Ok(())
    }

    /// From the first event delivered to the last one acknowledged. Also: the most memory that one process had, in
    /// bytes.
    pub(crate) async fn drain(&self, source: &mut Source, drainer: Drainer) -> Result<(Found, u64)> {
        let Self { stage, views, .. } = self;
        let name = stage.new_name("drain");
        let key_prefix = format!("{name}:");
        let mut log = Log::copy(&stage.redis()?.url(), &source.key_prefix, &key_prefix)?;
        views.make(&name)?;
        let servers = [stage.redis_part().context("a log needs Redis")?, views.part()];
        usage::settle(&servers).await?;

        let mut processes = self.start(drainer, (&key_prefix, &name))?;
        let part = |process: &Process| Part { name: "projector", pid: process.pid() };
        let parts: Vec<Part> = processes.iter().map(part).chain(servers).collect();
        let (mut before, mut after) = (Vec::new(), Vec::new());
        let begun = reached(&mut log, &mut processes, Drained::Some, LOOK_FOR_BEGIN_EVERY).await?;
        usage::sample(&parts, &mut before)?;
        let ended = reached(&mut log, &mut processes, Drained::All, LOOK_FOR_END_EVERY).await?;
        usage::sample(&parts, &mut after)?;
        let peaks = parts[..processes.len()].iter().map(Part::memory_peak_bytes);
        let peak = peaks.collect::<Result<Vec<_>>>()?.into_iter().max().unwrap_or_default();
        drop(processes);

        let digest = views.check(&name, &source.heads).await.with_context(|| drainer.name())?;
        let expected = *source.digest.get_or_insert(digest);
        ensure!(digest == expected, "{} wrote other rows than who drained this log before", drainer.name());
        views.remove(&name, 1).await?;
        log.remove()?;
        let (seconds, events) = ((ended - begun).as_secs_f64(), source.backlog.events as f64);
        let mut cpu_us = BTreeMap::new();
        for ((part, before), (_, after)) in before.iter().zip(&after) {
            *cpu_us.entry(*part).or_default() += (after - before) * 1e6 / events;
        }
        Ok((Found { seconds, per_second: events / seconds, cpu_us, ..Found::default() }, peak))
    }

    fn start(&self, drainer: Drainer, place: (&str, &str)) -> Result<Vec<Process>> {
        match drainer {
            Drainer::Bare => Ok(vec![self.start_bare(place)?]),
            Drainer::Projectors(count) => {
                let arguments = &self.stage.settings.service_arguments;
                let start = |nth| {
                    self.views.start_projector(&format!("projector-{nth}"), place, self.node, arguments)
                };
                (1..=count).map(start).collect()
            }
        }
    }

    fn start_bare(&self, (key_prefix, keyspace): (&str, &str)) -> Result<Process> {
        let mut command = Process::command(std::env::current_exe()?);
        let redis_url = self.stage.redis()?.url();
        command.args(["baseline", "drain", "--redis-url", &redis_url, "--key-prefix", key_prefix]);
        command.args(["--cassandra-node", &self.node.to_string(), "--keyspace", &views_of(keyspace)]);
        Process::spawn("bare", command, &self.stage.new_place("bare")?.join("log"))
    }
}

/// When so much was drained. An error if one of those who drain ends.
pub(crate) async fn reached(
    log: &mut Log,
    processes: &mut [Process],
    much: Drained,
    every: Duration,
) -> Result<Instant> {
    let deadline = Instant::now() + DRAIN_TIME_MAX;
    while log.drained()? < much {
        for process in &mut *processes {
            process.wait_until(Duration::ZERO, || true)?;
        }
        ensure!(Instant::now() < deadline, "not drained after {} s", DRAIN_TIME_MAX.as_secs());
        tokio::time::sleep(every).await;
    }
    Ok(Instant::now())
}
