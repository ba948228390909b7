//! Event streams: how long after a send's 201 its event is there, on every stream of both users, and what an idle one
//! costs. On real, the views stay empty: live events come from the log.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures_util::future::try_join_all;
use shared::limits::STREAMS_PER_USER;
use tokio::time::Instant;
use xtask::servers::Process;

use crate::connection::Connection;
use crate::findings::{Findings, Found};
use crate::listeners::{Id, Listeners};
use crate::load::Measured;
use crate::sends::{self, Population, SENDERS};
use crate::stage::{Contender, SYSTEM, Stage, Target};
use crate::tally::Tally;
use crate::usage::{self, Part};
use crate::views::Views;

const STREAMS: [u64; 2] = [1_000, 5_000];
/// A quick run holds a fifth.
const QUICK_DIVISOR: u64 = 5;
const PEERS_PER_SENDER: u64 = 100;
/// Of all senders together.
const SENDS_PER_SECOND: u32 = 500;
const LOGINS_AT_ONCE: u64 = 4;
/// What has not arrived by then never will.
const ARRIVAL_TIME_MAX: Duration = Duration::from_secs(5);
/// What streams just opened still do.
const REST: Duration = Duration::from_secs(2);

pub(super) async fn run(stage: &Stage) -> Result<Findings> {
    stage.progress.expect(stage.settings.rounds * STREAMS.len());
    let views = match stage.settings.target {
        Target::Standalone => None,
        Target::Real => Some(Views::start(stage).await?),
    };
    let mut findings = Findings::default();
    for streams in STREAMS {
        let divisor = if stage.settings.quick { QUICK_DIVISOR } else { 1 };
        of_so_many((stage, views.as_ref()), streams, streams / divisor, &mut findings).await?;
    }
    findings.figure("failed", findings.failed(SYSTEM) as f64);
    Ok(findings)
}

/// `streams` as they are called, and as many as are opened.
async fn of_so_many(
    (stage, views): (&Stage, Option<&Views<'_>>),
    streams: u64,
    opened: u64,
    findings: &mut Findings,
) -> Result<()> {
    let users = (opened / u64::from(STREAMS_PER_USER)).max(SENDERS + PEERS_PER_SENDER);
    let conversations = SENDERS * PEERS_PER_SENDER;
    let population = Population { users, conversations, ..Population::USUAL };
    let system = stage.start_system(population).await?;
    let queries = Queries::of(stage, &system, views)?;
    let listening = opened / u64::from(STREAMS_PER_USER);
    let tokens = log_in(system.address, listening).await?;
    usage::settle(&[queries.part]).await?;
    let before = queries.part.memory_bytes()?;
    let listeners = Listeners::open(queries.address, &tokens, usize::try_from(STREAMS_PER_USER)?).await?;
    tokio::time::sleep(REST).await;
    let grown = queries.part.memory_bytes()?.saturating_sub(before);
    findings.figure(format!("bytes_per_idle_stream_at_{streams}"), grown as f64 / opened as f64);

    let label = format!("{streams} streams");
    for round in 1..=stage.settings.rounds {
        usage::settle(&[queries.part]).await?;
        let found = Found::of(&measure(stage, (&system, &queries), &listeners, listening).await?);
        stage.progress.step(&format!("{label}: arrived, {}", found.line()));
        findings.record(round, &label, SYSTEM, found);
    }
    ensure!(listeners.broken() == 0, "{} streams were closed", listeners.broken());
    if let Some(arrived) = findings.typical(&label, SYSTEM) {
        findings.figure(format!("at_{streams}_p50_ms"), arrived.p50_ms);
        findings.figure(format!("at_{streams}_p99_ms"), arrived.p99_ms);
    }
    Ok(())
}

/// What serves the streams.
struct Queries {
    address: SocketAddr,
    part: Part,
    /// `None`: the system itself.
    process: Option<Process>,
}

impl Queries {
    fn of(stage: &Stage, system: &Contender, views: Option<&Views<'_>>) -> Result<Self> {
        let Some(views) = views else {
            return Ok(Self { address: system.address, part: system.parts[0], process: None });
        };
        let keyspace = stage.new_name("views");
        views.make(&keyspace)?;
        let (address, process) = views.start_query_api((&system.key_prefix, &keyspace))?;
        let part = Part { name: "queries", pid: process.pid() };
        Ok(Self { address, part, process: Some(process) })
    }
}

/// The tokens of the first users.
async fn log_in(address: SocketAddr, users: u64) -> Result<Vec<String>> {
    let some = |first: u64| async move {
        let mut connection = Connection::open(address).await?;
        let mut tokens = Vec::new();
        for user in (first..users).step_by(usize::try_from(LOGINS_AT_ONCE)?) {
            let status = connection.exchange(&sends::login(&sends::name(user))).await?;
            ensure!(status == 200, "login was answered {status}");
            let answer: serde_json::Value = serde_json::from_slice(connection.body())?;
            tokens.push(answer["token"].as_str().context("an answer without a token")?.to_owned());
        }
        Ok(tokens)
    };
    Ok(try_join_all((0..LOGINS_AT_ONCE).map(some)).await?.into_iter().flatten().collect())
}

/// Counts the messages sent within the window, which begins after the warm-up; each as often as it must arrive.
async fn measure(
    stage: &Stage,
    (system, queries): (&Contender, &Queries),
    listeners: &Listeners,
    listening: u64,
) -> Result<Measured> {
    let timing = stage.settings.timing;
    let parts: Vec<Part> =
        system.parts.iter().copied().chain(queries.process.is_some().then_some(queries.part)).collect();
    let begin = Instant::now() + timing.warm_up;
    let (mut before, mut after) = (Vec::new(), Vec::new());
    let senders =
        (0..usize::try_from(SENDERS)?).map(|sender| send(system, sender, begin, begin + timing.measured));
    let (sent, sampled) = tokio::join!(try_join_all(senders), async {
        tokio::time::sleep_until(begin).await;
        usage::sample(&parts, &mut before)?;
        tokio::time::sleep_until(begin + timing.measured).await;
        usage::sample(&parts, &mut after)
    });
    sampled?;
    let mut tally = Tally::new();
    let (mut acknowledged, mut expected) = (HashMap::new(), 0);
    for sent in sent?.into_iter().flatten() {
        match sent {
            Sent::Taken { id, recipient, at } => {
                acknowledged.insert(id, at);
                let both = 1 + u64::from(recipient < listening);
                expected += both * u64::from(STREAMS_PER_USER);
            }
            Sent::Failed => tally.add_unanswered(1),
        }
    }
    let mut arrived = 0;
    let deadline = Instant::now() + ARRIVAL_TIME_MAX;
    while arrived < expected && Instant::now() < deadline {
        for (id, at) in listeners.take() {
            let Some(acknowledged) = acknowledged.get(&id) else { continue };
            arrived += 1;
            // It may be there before the answer is.
            tally.record(&Ok(200), at.saturating_duration_since(*acknowledged));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    tally.add_unanswered(expected - arrived.min(expected));
    let used = before.iter().zip(&after).map(|((name, before), (_, after))| (*name, after - before));
    Ok(Measured { tally, seconds: timing.measured.as_secs_f64(), cpu: used.collect() })
}

enum Sent {
    Taken { id: Id, recipient: u64, at: Instant },
    Failed,
}

/// What one sender sent, evenly over the time.
async fn send(system: &Contender, sender: usize, begin: Instant, end: Instant) -> Result<Vec<Sent>> {
    let senders = u32::try_from(SENDERS)?;
    let every = Duration::from_secs(1) * senders / SENDS_PER_SECOND;
    let mut connection = Connection::open(system.address).await?;
    let mut requests = system.sends.requests(sender);
    let mut sent = Vec::new();
    let mut due = begin + every * u32::try_from(sender)? / senders;
    while due < end {
        tokio::time::sleep_until(due).await;
        let answer = connection.exchange(requests.next()).await;
        let at = Instant::now();
        sent.push(match answer {
            Ok(201) => {
                let message: serde_json::Value = serde_json::from_slice(connection.body())?;
                let text = |key: &str| message[key].as_str().context("the answer to a send");
                let id = text("id")?.as_bytes().try_into().context("an id")?;
                // Names are a letter and the user's number.
                Sent::Taken { id, recipient: text("recipient")?[1..].parse()?, at }
            }
            Ok(_) | Err(_) => Sent::Failed,
        });
        due += every;
    }
    Ok(sent)
}
