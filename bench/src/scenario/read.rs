//! Pages and inboxes: one that everybody reads, beside ready bytes after one round trip to Redis; inboxes, and pages
//! that nobody has read before, beside the bare driver; what the length of a conversation costs, and what the messages of
//! others cost that lie in the same tables. Rows are written directly.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::time::Instant;
use xtask::servers::Process;

use crate::connection::Connection;
use crate::findings::{Findings, Found};
use crate::history::{self, Written};
use crate::load::{self, Load, Pace};
use crate::reads::{LIMIT, Pages, each_once, request, same};
use crate::sends::{Source, name};
use crate::stage::{self, SYSTEM, Stage};
use crate::usage::{self, Part};
use crate::views::{Views, views_of};

mod cold_newest;

use cold_newest::ColdNewest;

const CONNECTIONS: [usize; 2] = [64, 256];
/// Of figures that compare one kind of page with another.
const USUAL_CONNECTIONS: usize = CONNECTIONS[0];

/// Reads all conversations, and has sent every other message.
const READER: u64 = 0;
const HOT: Written = Written { users: (READER, 1), messages: 100 };
const SMALL: (u64, u64) = (10, 100);
const MEDIUM: (u64, u64) = (9_000, 10_000);
/// In reports, the system on tables of their own.
const ALONE: &str = "alone";
const LARGE: (u64, u64) = (9_900, 1_000_000);
const SMALL_CONVERSATIONS: u64 = 2_000;
/// Conversations that nobody reads, of [`MEDIUM`] messages each between users from here on. As many as can be written in
/// some minutes, a hundred at least.
const OTHERS: (u64, u64) = (1_000_000, 900);
const OTHERS_AT_ONCE: u64 = 100;
const OTHERS_TIME_MAX: Duration = Duration::from_secs(180);
const MEDIUM_CONVERSATIONS: u64 = 10;
/// Pages of a conversation of a million messages that are read: those that end with the newest message, and those
/// that end so many pages before it.
const PAGES: u64 = 100_000;
const DEEP_PAGES: u64 = 10_000;
/// Owners of inboxes, and how many conversations each has.
const INBOXES: [(u64, u64); 2] = [(100_000, 50), (200_000, 10_000)];

/// Who answers.
struct Server {
    name: &'static str,
    address: SocketAddr,
    parts: Vec<Part>,
    _process: Process,
}

/// What is asked of whom, over so many connections.
struct Question {
    label: &'static str,
    source: Arc<dyn Source>,
    servers: Vec<usize>,
    connections: &'static [usize],
}

pub(super) async fn run(stage: &Stage) -> Result<Findings> {
    let redis_url = stage.redis()?.url();
    let mut views = Views::start(stage).await?;
    let (keyspace, key_prefix) = (stage.new_name("views"), "read:");
    views.make(&keyspace)?;
    let large = fill(stage, &views, &keyspace, (&redis_url, key_prefix)).await?;
    // The same conversations of 100 messages in tables where nothing else is.
    let alone = stage.new_name("views");
    views.make(&alone)?;
    history::write_rows(views.session(), &views_of(&alone), &small()).await?;
    views.settle().await?;
    let token = history::log_in(&redis_url, key_prefix, READER).await?;

    let (address, process) = views.start_query_api((key_prefix, &keyspace))?;
    let system = server(stage, SYSTEM, address, process, Some(views.part()));
    let ready = start_ready(stage, &system, &token).await?;
    let select = start_select(stage, &views, &keyspace)?;
    let (address, process) = views.start_query_api((key_prefix, &alone))?;
    let alone = server(stage, ALONE, address, process, Some(views.part()));
    let servers = [system, ready, select, alone];
    let mut questions = questions(stage, (&redis_url, key_prefix), &token, large).await?;

    let measurements: usize = questions.iter().map(|one| one.servers.len() * one.connections.len()).sum();
    let rounds = stage.settings.rounds;
    stage.progress.expect((1 + rounds) * measurements + rounds * cold_newest::KINDS.len());
    stage.progress.say("warming up");
    let mut unrecorded = Findings::default();
    for question in &questions {
        ask_all(stage, &servers, question, 0, &mut unrecorded).await?;
    }
    let cold_newest = ColdNewest {
        views: &views,
        log: (&redis_url, key_prefix),
        keyspace: &keyspace,
        token: &token,
        large,
    };
    let mut findings = Findings::default();
    for round in 1..=rounds {
        for question in &questions {
            ask_all(stage, &servers, question, round, &mut findings).await?;
        }
        cold_newest.measure(stage, round, &mut findings).await?;
        // Who comes first finds less of the tables in Cassandra's memory: it must not always be the same.
        questions.iter_mut().for_each(|question| question.servers.reverse());
    }
    add_figures(&mut findings);
    Ok(findings)
}

fn many((first, messages): (u64, u64), count: u64) -> impl Iterator<Item = Written> {
    (first..first + count).map(move |peer| Written { users: (READER, peer), messages })
}

fn small() -> Vec<Written> {
    many(SMALL, SMALL_CONVERSATIONS).collect()
}

/// The length of the longest conversation.
async fn fill(stage: &Stage, views: &Views<'_>, keyspace: &str, log: (&str, &str)) -> Result<u64> {
    let large = if stage.settings.quick { LARGE.1 / 4 + DEEP_PAGES * LIMIT } else { LARGE.1 };
    let conversations: Vec<_> = [HOT]
        .into_iter()
        .chain(small())
        .chain(many(MEDIUM, MEDIUM_CONVERSATIONS))
        .chain(many((LARGE.0, large), 1))
        .collect();
    let messages: u64 = conversations.iter().map(|written| written.messages).sum();
    stage.progress.say(&format!("writing {messages} messages"));
    history::write(views.session(), &views_of(keyspace), log, &conversations).await?;
    for (owner, peers) in INBOXES {
        let peers = (owner + 1..=owner + peers).collect();
        history::write_inbox(views.session(), &views_of(keyspace), (owner, peers), 1).await?;
    }
    if !stage.settings.quick {
        write_others(stage, views, keyspace).await?;
    }
    Ok(large)
}

async fn write_others(stage: &Stage, views: &Views<'_>, keyspace: &str) -> Result<()> {
    let (begun, (first, conversations)) = (Instant::now(), OTHERS);
    for begin in (0..conversations).step_by(usize::try_from(OTHERS_AT_ONCE)?) {
        stage.progress.say(&format!("{} messages of others are written", begin * MEDIUM.1));
        if begun.elapsed() > OTHERS_TIME_MAX {
            break;
        }
        let pairs = (begin..begin + OTHERS_AT_ONCE).map(|nth| (first + 2 * nth, first + 2 * nth + 1));
        let written: Vec<_> = pairs.map(|users| Written { users, messages: MEDIUM.1 }).collect();
        history::write_rows(views.session(), &views_of(keyspace), &written).await?;
    }
    Ok(())
}

async fn questions(
    stage: &Stage,
    (redis_url, key_prefix): (&str, &str),
    token: &str,
    large: u64,
) -> Result<Vec<Question>> {
    let [system, ready, select, alone] = [0, 1, 2, 3];
    let pages = |(first_peer, messages): (u64, u64), peers, befores| {
        let first_before = messages + 2 - befores;
        each_once(Pages { reader: READER, first_peer, peers, first_before, befores }, token)
    };
    let mut questions = vec![
        Question {
            label: "hot page",
            source: same(&newest(HOT.users.1), token),
            servers: vec![system, ready],
            connections: &CONNECTIONS,
        },
        Question {
            label: "cold page of 100",
            source: pages(SMALL, SMALL_CONVERSATIONS, SMALL.1 - LIMIT + 1),
            servers: vec![system, select, alone],
            connections: &CONNECTIONS,
        },
        Question {
            label: "cold page of 10,000",
            source: pages(MEDIUM, MEDIUM_CONVERSATIONS, MEDIUM.1 - LIMIT + 1),
            servers: vec![system, select],
            connections: &CONNECTIONS,
        },
        Question {
            label: "cold page of 1,000,000",
            source: pages((LARGE.0, large), 1, PAGES),
            servers: vec![system, select],
            connections: &CONNECTIONS,
        },
        Question {
            label: "cold page, 10,000 deep",
            source: pages((LARGE.0, large - DEEP_PAGES * LIMIT), 1, PAGES),
            servers: vec![system, select],
            connections: &CONNECTIONS,
        },
    ];
    for ((owner, _), (label, connections)) in
        INBOXES.into_iter().zip([("inbox of 50", &CONNECTIONS[..]), ("inbox of 10,000", &[1])])
    {
        let token = history::log_in(redis_url, key_prefix, owner).await?;
        // The system knows the owner by the token, and passes over what is written for the bare driver.
        let source = same(&format!("/conversations?owner={}", name(owner)), &token);
        questions.push(Question { label, source, servers: vec![system, select], connections });
    }
    if stage.settings.quick {
        questions.iter_mut().for_each(|question| question.connections = &question.connections[..1]);
    }
    Ok(questions)
}

fn newest(peer: u64) -> String {
    format!("/messages?sender={}&recipient={}", name(READER), name(peer))
}

/// Of what answers, then what is behind it; the load client is the last.
fn server(
    stage: &Stage,
    name: &'static str,
    address: SocketAddr,
    process: Process,
    store: Option<Part>,
) -> Server {
    let api = Part { name: "api", pid: process.pid() };
    let parts = [Some(api), stage.redis_part(), store, Some(Part::client())];
    Server { name, address, parts: parts.into_iter().flatten().collect(), _process: process }
}

/// Answers what the system has just answered.
async fn start_ready(stage: &Stage, system: &Server, token: &str) -> Result<Server> {
    let mut connection = Connection::open(system.address).await?;
    let status = connection.exchange(request(&newest(HOT.users.1), token).as_bytes()).await?;
    let messages: Vec<serde_json::Value> =
        serde_json::from_slice(connection.body()).context("the hot page")?;
    ensure!(status == 200 && messages.len() as u64 == LIMIT, "the hot page has {} messages", messages.len());
    let place = stage.new_place("ready")?;
    let body = place.join("page.json");
    std::fs::write(&body, connection.body())?;
    let (address, mut command) = baseline("ready")?;
    command.args(["--redis-url", &stage.redis()?.url(), "--body"]).arg(&body);
    Ok(server(stage, "ready", address, stage::start("ready", command, &place, address)?, None))
}

fn start_select(stage: &Stage, views: &Views<'_>, keyspace: &str) -> Result<Server> {
    let place = stage.new_place("select")?;
    let (address, mut command) = baseline("select")?;
    command.args(["--cassandra-node", &views.node().to_string(), "--keyspace", &views_of(keyspace)]);
    let process = stage::start("select", command, &place, address)?;
    Ok(server(stage, "select", address, process, Some(views.part())))
}

fn baseline(name: &str) -> Result<(SocketAddr, std::process::Command)> {
    let address = stage::free_address()?;
    let mut command = Process::command(std::env::current_exe()?);
    command.args(["baseline", name, "--listen", &address.to_string()]);
    Ok((address, command))
}

async fn ask_all(
    stage: &Stage,
    servers: &[Server],
    question: &Question,
    round: usize,
    findings: &mut Findings,
) -> Result<()> {
    for &connections in question.connections {
        let label = label(question.label, connections);
        for server in question.servers.iter().map(|server| &servers[*server]) {
            usage::settle(&server.parts[..server.parts.len() - 1]).await?;
            let load = Load {
                address: server.address,
                connections,
                pace: Pace::Closed,
                timing: stage.settings.timing,
                yields: false,
            };
            let found = Found::of(&load::measure(&load, &question.source, &server.parts).await?);
            stage.progress.step(&format!("{label}, {}: {}", server.name, found.line()));
            findings.record(round, &label, server.name, found);
        }
    }
    Ok(())
}

fn label(question: &str, connections: usize) -> String {
    format!("{question}, {connections}")
}

fn add_figures(findings: &mut Findings) {
    let ratio = |findings: &Findings, connections, one: (&str, &str), other: (&str, &str)| {
        let [(one, ours), (other, theirs)] =
            [one, other].map(|(question, server)| (label(question, connections), server));
        findings.ratio(|found| found.per_second, (&one, ours), (&other, theirs))
    };
    for connections in CONNECTIONS {
        for (figure, question, baseline) in [
            ("share_of_ready", "hot page", "ready"),
            ("share_of_select", "cold page of 100", "select"),
            ("inbox_of_select", "inbox of 50", "select"),
        ] {
            let share = ratio(findings, connections, (question, SYSTEM), (question, baseline));
            findings.figure(format!("{figure}_at_{connections}"), share);
        }
    }
    let of_100 = "cold page of 100";
    // The bare driver shows what of it is Cassandra's own.
    for (whose, server) in [("", SYSTEM), ("select_", "select")] {
        for (name, question) in [
            ("cost_of_10000", "cold page of 10,000"),
            ("cost_of_1000000", "cold page of 1,000,000"),
            ("cost_of_10000_pages_deep", "cold page, 10,000 deep"),
        ] {
            let cost = ratio(findings, USUAL_CONNECTIONS, (of_100, server), (question, server));
            findings.figure(format!("{whose}{name}"), cost);
        }
    }
    cold_newest::add_figures(findings);
    let cost = ratio(findings, USUAL_CONNECTIONS, (of_100, ALONE), (of_100, SYSTEM));
    findings.figure("cost_beside_others", cost);
    for (name, question, connections) in
        [("inbox_of_50", "inbox of 50", USUAL_CONNECTIONS), ("inbox_of_10000", "inbox of 10,000", 1)]
    {
        if let Some(found) = findings.typical(&label(question, connections), SYSTEM) {
            findings.figure(format!("{name}_p50_ms"), found.p50_ms);
        }
    }
    findings.figure("failed", findings.failed(SYSTEM) as f64);
}
