//! The views beside the log: a Cassandra with its stock periodic commit log, and the programs that fill and read it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use futures_util::TryStreamExt;
use scylla::client::session::Session;
use scylla::client::session_builder::SessionBuilder;
use scylla::statement::unprepared::Statement;
use xtask::servers::{self, Cassandra, Keeping, Process};

use crate::rows::Rows;
use crate::stage::{self, Stage};
use crate::usage::{self, Part};

/// Rows in one answer while all are read back.
const ROWS_PER_ANSWER: i32 = 5_000;
/// Of one answer, and of a change of the schema.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(60);
/// Each of them ends at once where there is nothing to wait for.
const SETTLES_MAX: usize = 5;
/// Of the first generation.
const GENERATION: &str = "_g1";

pub(crate) struct Views<'a> {
    stage: &'a Stage,
    place: servers::Options,
    cassandra: Cassandra,
    session: Session,
}

impl<'a> Views<'a> {
    pub(crate) async fn start(stage: &'a Stage) -> Result<Self> {
        stage.progress.say("starting Cassandra");
        let place = servers::Options { dir: stage.dir().join("cassandra"), port: servers::free_port()? };
        let cassandra = Cassandra::start(&place, Keeping::Data)?;
        let session = connect(&cassandra).await?;
        Ok(Self { stage, place, cassandra, session })
    }

    /// From here on all that was written lies in files, as nearly all of a store does that has run for long: a
    /// Cassandra that starts writes what its commit log holds into tables.
    pub(crate) async fn settle(&mut self) -> Result<()> {
        self.stage.progress.say("starting Cassandra again, so that what was written lies in files");
        self.cassandra.stop()?;
        self.cassandra = Cassandra::start(&self.place, Keeping::Data)?;
        self.session = connect(&self.cassandra).await?;
        // Compactions take longer than what is waited for between two measurements.
        for _ in 0..SETTLES_MAX {
            usage::settle(&[self.part()]).await?;
        }
        Ok(())
    }

    pub(crate) fn node(&self) -> SocketAddr {
        self.cassandra.addr()
    }

    pub(crate) fn session(&self) -> &Session {
        &self.session
    }

    pub(crate) fn part(&self) -> Part {
        Part { name: "cassandra", pid: self.cassandra.pid() }
    }

    /// Makes the tables of the first generation.
    pub(crate) fn make(&self, keyspace: &str) -> Result<()> {
        let mut command = Process::command(stage::programs()?.join("projector"));
        command.args(["migrate", "--cassandra-nodes", &self.node().to_string(), "--keyspace", keyspace]);
        Process::spawn("migrate", command, &self.stage.new_place("migrate")?.join("log"))?.wait()
    }

    /// With so many generations, those that were dropped among them.
    pub(crate) async fn remove(&self, keyspace: &str, generations: u32) -> Result<()> {
        let views = (1..=generations).map(|number| format!("{keyspace}_g{number}"));
        for keyspace in views.chain([keyspace.to_owned()]) {
            let mut statement = Statement::new(format!("DROP KEYSPACE IF EXISTS {keyspace}"));
            statement.set_request_timeout(Some(ANSWER_TIME_MAX));
            self.session.query_unpaged(statement, ()).await?;
        }
        Ok(())
    }

    /// Does not wait until it is ready: it begins when it can.
    pub(crate) fn start_projector(
        &self,
        name: &str,
        (key_prefix, keyspace): (&str, &str),
        node: SocketAddr,
        arguments: &[String],
    ) -> Result<Process> {
        let mut command = Process::command(stage::programs()?.join("projector"));
        command.args(["run", "--name", name, "--log", "warn", "--redis-url", &self.stage.redis()?.url()]);
        command.args(["--key-prefix", key_prefix, "--keyspace", keyspace]);
        command.args(["--cassandra-nodes", &node.to_string()]);
        command.args(["--metrics-listen", &stage::free_address()?.to_string()]).args(arguments);
        Process::spawn(name, command, &self.stage.new_place(name)?.join("log"))
    }

    /// A command of the projector that ends by itself; and where its output goes, which is one object of JSON, and
    /// how far it is.
    pub(crate) fn start_command(
        &self,
        words: &[&str],
        (key_prefix, keyspace): (&str, &str),
    ) -> Result<(Process, PathBuf)> {
        let mut command = Process::command(stage::programs()?.join("projector"));
        command.args(words).args(["--json", "--redis-url", &self.stage.redis()?.url()]);
        command.args(["--key-prefix", key_prefix, "--keyspace", keyspace]);
        command.args(["--cassandra-nodes", &self.node().to_string()]);
        let log = self.stage.new_place(words[0])?.join("log");
        Ok((Process::spawn(words[0], command, &log)?, log))
    }

    /// Ready when it returns.
    pub(crate) fn start_query_api(
        &self,
        (key_prefix, keyspace): (&str, &str),
    ) -> Result<(SocketAddr, Process)> {
        let listen = stage::free_address()?;
        let mut command = Process::command(stage::programs()?.join("query-api"));
        command.args(["--log", "warn", "--in-flight-limit", "1000000", "--listen", &listen.to_string()]);
        command.args(["--metrics-listen", &stage::free_address()?.to_string()]);
        command.args(["--redis-url", &self.stage.redis()?.url(), "--key-prefix", key_prefix]);
        command.args(["--cassandra-nodes", &self.node().to_string(), "--keyspace", keyspace]);
        let place = self.stage.new_place("query-api")?;
        Ok((listen, stage::start("query-api", command, &place, listen)?))
    }

    /// Reads every row back. An error unless they are what they must be; else a digest of all of them.
    pub(crate) async fn check(&self, keyspace: &str, heads: &BTreeMap<String, u64>) -> Result<u64> {
        let views = views_of(keyspace);
        let mut rows = Rows::new(heads);
        let select = format!("SELECT conversation, seq, id, sender, content, sent_at FROM {views}.timeline");
        let mut messages = self.session.query_iter(whole(&select), ()).await?.rows_stream()?;
        while let Some(message) = messages.try_next().await? {
            rows.add_message(message);
        }
        let select =
            format!("SELECT owner, peer, seq, id, sender, content, sent_at, own_seq FROM {views}.inbox");
        let mut inboxes = self.session.query_iter(whole(&select), ()).await?.rows_stream()?;
        while let Some(row) = inboxes.try_next().await? {
            rows.add_inbox_row(&row)?;
        }
        rows.finish()
    }
}

async fn connect(cassandra: &Cassandra) -> Result<Session> {
    let session = SessionBuilder::new().known_node_addr(cassandra.addr()).fetch_full_schema_metadata(false);
    Ok(session.build().await?)
}

/// The keyspace that holds the tables.
pub(crate) fn views_of(keyspace: &str) -> String {
    format!("{keyspace}{GENERATION}")
}

fn whole(select: &str) -> Statement {
    let mut statement = Statement::new(select);
    statement.set_page_size(ROWS_PER_ANSWER);
    statement.set_request_timeout(Some(ANSWER_TIME_MAX));
    statement
}
