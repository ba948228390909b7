//! Brings the schema to this program's version. May be killed at any point and run again: every statement can be
//! repeated, and a file counts as applied only when all of its statements have answered. Of several at once one
//! works and the others wait, then find nothing to do. It refuses a schema newer than its own.

use std::collections::BTreeMap;

use scylla::client::session::Session;
use scylla::policies::load_balancing::{NodeIdentifier, SingleTargetLoadBalancingPolicy};
use scylla::response::query_result::QueryResult;
use scylla::serialize::row::SerializeRow;
use scylla::statement::unprepared::Statement;
use shared::generation::State;
use shared::limits::{
    MIGRATION_LOCK_LIFETIME, MIGRATION_STATEMENT_TIMEOUT, MIGRATION_WAIT_MAX, RING_WAIT_MAX,
    VIEWS_RECONNECT_PAUSE,
};
use shared::ports::StoreError;
use tokio::time::{Instant, sleep};

use super::{FILES, File, NEWEST, REGISTER, applied, check_options, error, has_table, refuse_newer};
use crate::cassandra::generations;
use crate::cassandra::locks::{self, is_applied};
use crate::cassandra::{Options, STORE, connection, parked, seen};

/// What a migration did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Migrated {
    /// The files that it applied; empty: there was nothing to do.
    pub files: Vec<&'static str>,
    /// The version of the schema now.
    pub version: i32,
}

#[derive(Debug, Clone)]
pub struct Migrator {
    options: Options,
}

impl Migrator {
    /// # Errors
    /// For options that cannot work.
    pub fn new(options: &Options) -> Result<Self, StoreError> {
        check_options(options)?;
        Ok(Self { options: options.clone() })
    }

    /// Waits for the store, and for a migration that is under way, up to
    /// [`shared::limits::MIGRATION_WAIT_MAX`] together. `Ok`: the schema is this program's on every node that is
    /// up, and a generation is serving.
    pub async fn migrate(&self) -> Result<Migrated, StoreError> {
        let migration = Migration::begin(&self.options).await?;
        let applied = applied(&migration.session, &migration.keyspace).await?;
        refuse_newer(&applied, &migration.keyspace)?;
        if applied.is_empty() {
            migration.check_quorum(&self.options).await?;
        }
        for statement in statements(REGISTER) {
            migration.execute(&migration.named(&statement, None), ()).await?;
        }
        migration.locked(async || migration.apply().await).await
    }

    /// Makes the tables of the next generation, and returns its number. It is not in the register yet: repeated, it
    /// finds them there.
    pub(in crate::cassandra) async fn add_generation(&self) -> Result<u32, StoreError> {
        let migration = Migration::begin(&self.options).await?;
        migration.check_quorum(&self.options).await?;
        migration.locked(async || migration.make_next_views().await).await
    }

    /// Removes its tables and what was parked of it.
    pub(in crate::cassandra) async fn remove_generation(&self, number: u32) -> Result<(), StoreError> {
        let migration = Migration::begin(&self.options).await?;
        migration.locked(async || migration.remove_views(number).await).await
    }
}

/// A migration under way.
struct Migration {
    session: Session,
    keyspace: String,
    replication: String,
    /// Who holds the lock.
    holder: String,
    /// All statements go through one node, the same one for every migrator: two nodes that make a table of the
    /// same name at the same time, before there is a lock, would make two different tables.
    node: NodeIdentifier,
    /// Until then it waits for others, and repeats what has not answered.
    deadline: Instant,
}

impl Migration {
    async fn begin(options: &Options) -> Result<Self, StoreError> {
        let deadline = Instant::now() + MIGRATION_WAIT_MAX;
        let session = loop {
            match connection::session(&options.nodes, MIGRATION_STATEMENT_TIMEOUT).await {
                Err(error) if error.is_retryable() && Instant::now() < deadline => {
                    tracing::info!(cause = ?error, "waiting for cassandra");
                    sleep(VIEWS_RECONNECT_PAUSE).await;
                }
                session => break session?,
            }
        };
        let ring = session.get_cluster_state();
        let up = ring.get_nodes_info().iter().filter(|node| node.is_connected()).map(|node| node.host_id);
        let first = up.min().ok_or_else(|| StoreError::unavailable(STORE, "no node is up"))?;
        Ok(Self {
            keyspace: options.keyspace.clone(),
            // In every datacenter: QUORUM then counts over all of them.
            replication: format!(
                "{{'class': 'NetworkTopologyStrategy', 'replication_factor': {}}}",
                options.replication_factor
            ),
            holder: session.session_id().to_string(),
            node: NodeIdentifier::HostId(first),
            session,
            deadline,
        })
    }

    /// Before anything is made: with too few nodes for a quorum of the copies the tables could be made, and never be used.
    /// A ring that has just begun is given a while to become one.
    async fn check_quorum(&self, options: &Options) -> Result<(), StoreError> {
        let (copies, deadline) = (options.replication_factor.into(), Instant::now() + RING_WAIT_MAX);
        loop {
            let ring = self.session.get_cluster_state();
            let datacenters = ring.get_nodes_info().iter().map(|node| node.datacenter.as_deref());
            match check_quorum(copies, datacenters) {
                Err(_) if Instant::now() < deadline => sleep(VIEWS_RECONNECT_PAUSE).await,
                checked => return checked,
            }
            // What could not be read is looked for again.
            let _ = self.session.refresh_metadata().await;
        }
    }

    async fn apply(&self) -> Result<Migrated, StoreError> {
        let applied = applied(&self.session, &self.keyspace).await?;
        refuse_newer(&applied, &self.keyspace)?;
        let mut files = Vec::new();
        for file in FILES.iter().filter(|file| !applied.contains(&file.version)) {
            self.apply_file(file).await?;
            files.push(file.name);
        }
        self.serve_first_generation().await?;
        Ok(Migrated { files, version: NEWEST })
    }

    async fn apply_file(&self, file: &File) -> Result<(), StoreError> {
        tracing::info!(file = file.name, keyspace = self.keyspace, "applying a schema file");
        for statement in statements(file.text) {
            if statement.contains("{views}") {
                for generation in self.generations().await? {
                    self.run(&statement, Some(generation)).await?;
                }
            } else {
                self.run(&statement, None).await?;
            }
        }
        let record = "INSERT INTO {keyspace}.schema_versions (version, file, applied_at) \
                      VALUES (?, ?, toTimestamp(now()))";
        self.execute(record, (file.version, file.name)).await?;
        Ok(())
    }

    /// Those that have view tables; the first one always has.
    async fn generations(&self) -> Result<Vec<u32>, StoreError> {
        if !has_table(&self.session, &self.keyspace, "generations").await? {
            return Ok(vec![FIRST_GENERATION]);
        }
        let listed = generations::with_views(&self.session, &self.keyspace).await?;
        Ok(if listed.is_empty() { vec![FIRST_GENERATION] } else { listed })
    }

    /// On a new system; else it changes nothing.
    async fn serve_first_generation(&self) -> Result<(), StoreError> {
        let first = FIRST_GENERATION.cast_signed();
        let insert =
            "INSERT INTO {keyspace}.generations (register, number, state) VALUES (?, ?, ?) IF NOT EXISTS";
        self.execute(insert, (generations::REGISTER, first, State::Projecting.name())).await?;
        let serve = "UPDATE {keyspace}.generations SET serving = ? WHERE register = ? IF serving = NULL";
        self.execute(serve, (first, generations::REGISTER)).await?;
        Ok(())
    }

    async fn make_next_views(&self) -> Result<u32, StoreError> {
        let register = generations::Table::prepare(&self.session, &self.keyspace).await?;
        let newest = register.list(&self.session).await?.iter().map(|one| one.number).max();
        let next = newest.map_or(FIRST_GENERATION, |newest| newest + 1);
        for statement in FILES.iter().flat_map(|file| statements(file.text)) {
            if statement.contains("{views}") {
                self.run(&statement, Some(next)).await?;
            }
        }
        Ok(next)
    }

    /// Its number is never used again, so the tombstones of what was parked hide nothing.
    async fn remove_views(&self, number: u32) -> Result<(), StoreError> {
        self.run("DROP KEYSPACE IF EXISTS {views}", Some(number)).await?;
        self.renew_lock().await?;
        let parked = parked::Table::prepare(&self.session, &self.keyspace).await?;
        parked.remove(&self.session, number).await?;
        seen::Table::prepare(&self.session, &self.keyspace).await?.remove(&self.session, number).await
    }

    /// Waits for its turn.
    async fn locked<T>(&self, act: impl AsyncFnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
        self.lock().await?;
        let done = act().await;
        self.unlock().await;
        done
    }

    async fn lock(&self) -> Result<(), StoreError> {
        let mut is_told = false;
        while !self.take_lock().await? {
            if Instant::now() >= self.deadline {
                return Err(StoreError::unavailable(STORE, "another migration is under way"));
            }
            if !std::mem::replace(&mut is_told, true) {
                let seconds_max = lock_seconds();
                tracing::warn!(
                    seconds_max,
                    "waiting for another change of the schema, as when a generation is dropped; one that was killed \
                     holds its lock for so long"
                );
            }
            sleep(VIEWS_RECONNECT_PAUSE).await;
        }
        Ok(())
    }

    /// Whether it has it; an attempt that was not answered may have taken it.
    async fn take_lock(&self) -> Result<bool, StoreError> {
        let taken = self.execute(locks::TAKE, (LOCK, &self.holder, lock_seconds())).await?;
        Ok(is_applied(taken)? || self.keep_lock().await?)
    }

    async fn keep_lock(&self) -> Result<bool, StoreError> {
        let holder = &self.holder;
        is_applied(self.execute(locks::KEEP, (lock_seconds(), holder, LOCK, holder)).await?)
    }

    /// # Errors
    /// When the lock is another's by now: this migration was stopped for longer than the lock lives.
    async fn renew_lock(&self) -> Result<(), StoreError> {
        if self.keep_lock().await? {
            Ok(())
        } else {
            Err(StoreError::unavailable(STORE, "another migration has taken the lock"))
        }
    }

    /// A lock that cannot be given back now ends by itself.
    async fn unlock(&self) {
        if let Err(error) = self.attempt(locks::GIVE_BACK, (LOCK, &self.holder)).await {
            tracing::warn!(cause = ?error, "the migration's lock is left to end by itself");
        }
    }

    /// A statement of a schema file, for the views of one generation if it is about them, by the holder of the lock.
    /// Answers when all nodes agree on its outcome.
    async fn run(&self, text: &str, generation: Option<u32>) -> Result<(), StoreError> {
        let text = self.named(text, generation);
        loop {
            self.renew_lock().await?;
            if self.attempt(&text, ()).await?.is_some() {
                return Ok(());
            }
        }
    }

    fn named(&self, text: &str, generation: Option<u32>) -> String {
        let views =
            generation.map(|number| generations::keyspace(&self.keyspace, number)).unwrap_or_default();
        text.replace("{views}", &views).replace("{replication}", &self.replication)
    }

    async fn execute(&self, text: &str, values: impl SerializeRow) -> Result<QueryResult, StoreError> {
        loop {
            if let Some(done) = self.attempt(text, &values).await? {
                return Ok(done);
            }
        }
    }

    /// `None`: it has not answered and is to be repeated, as all that change something here can be. A node that makes
    /// or drops a table writes others to the disk first, which may take a busy one longer than a timeout.
    async fn attempt(
        &self,
        text: &str,
        values: impl SerializeRow,
    ) -> Result<Option<QueryResult>, StoreError> {
        let mut statement = Statement::new(text.replace("{keyspace}", &self.keyspace));
        let node = SingleTargetLoadBalancingPolicy::new(self.node.clone(), None);
        statement.set_load_balancing_policy(Some(node));
        match self.session.query_unpaged(statement, values).await.map_err(error::of_write) {
            Err(error) if error.is_retryable() && Instant::now() < self.deadline => {
                tracing::info!(cause = ?error, "a statement of a migration has not answered; repeating it");
                sleep(VIEWS_RECONNECT_PAUSE).await;
                Ok(None)
            }
            done => done.map(Some),
        }
    }
}

/// Reads and writes ask a quorum of all copies, which are as many in each datacenter.
fn check_quorum<'a>(copies: usize, nodes: impl Iterator<Item = Option<&'a str>>) -> Result<(), StoreError> {
    let mut datacenters = BTreeMap::<_, usize>::new();
    nodes.for_each(|datacenter| *datacenters.entry(datacenter).or_default() += 1);
    let quorum = copies * datacenters.len() / 2 + 1;
    let possible: usize = datacenters.values().map(|nodes| copies.min(*nodes)).sum();
    if possible >= quorum {
        return Ok(());
    }
    let what = format!(
        "with a replication factor of {copies} each answer needs {quorum} copies of a row, and the nodes of the ring can \
         have {possible}"
    );
    Err(StoreError::Unfit { store: STORE, what })
}

const FIRST_GENERATION: u32 = 1;
/// The one row of the table of locks.
const LOCK: &str = "migration";

fn lock_seconds() -> i32 {
    i32::try_from(MIGRATION_LOCK_LIFETIME.as_secs()).expect("a constant of a minute")
}

/// The statements of a file, without its comments. Each ends with a semicolon at the end of a line.
fn statements(file: &str) -> Vec<String> {
    let lines = file.lines().filter(|line| !line.starts_with("--"));
    let text = lines.collect::<Vec<_>>().join("\n");
    text.split(";\n")
        .map(|text| text.trim().trim_end_matches(';').to_owned())
        .filter(|text| !text.is_empty())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quorum_must_be_possible() {
        let check = |copies, datacenters: &[(&str, usize)]| {
            let nodes = datacenters.iter().flat_map(|(name, nodes)| vec![Some(*name); *nodes]);
            check_quorum(copies, nodes).is_ok()
        };
        for (copies, datacenters) in [
            (1, &[("a", 1)][..]),
            (1, &[("a", 5)]),
            (2, &[("a", 2)]),
            (3, &[("a", 2)]),
            (3, &[("a", 3), ("b", 1)]),
            (3, &[("a", 2), ("b", 2)]),
        ] {
            assert!(check(copies, datacenters), "{copies} {datacenters:?}");
        }
        for (copies, datacenters) in
            [(2, &[("a", 1)][..]), (3, &[("a", 1)]), (5, &[("a", 2)]), (3, &[("a", 2), ("b", 1)])]
        {
            assert!(!check(copies, datacenters), "{copies} {datacenters:?}");
        }
    }
}
