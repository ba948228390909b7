//! The register of generations: which sets of views there are, and which one is read. It fills none. Which one serves
//! is not a state of a row but one column for all of them; every change is one conditional write on the one
//! partition that all of it is in.

use std::sync::Arc;

use async_trait::async_trait;
use scylla::client::session::Session;
use scylla::serialize::row::SerializeRow;
use scylla::statement::prepared::PreparedStatement;
use scylla::value::CqlTimestamp;
use shared::Timestamp;
use shared::generation::{self, Generation, State};
use shared::limits::REBUILD_CLAIM_LIFETIME;
use shared::ports::StoreError;

use super::connection::Connection;
use super::locks::{self, is_applied};
use super::statement::{Value, prepare, read};
use super::{Options, STORE, error, schema};

/// The one partition of the register.
pub(super) const REGISTER: &str = "views";

/// The name of the right to rebuild, among the locks.
const REBUILD: &str = "rebuild";

/// The state of one, from what it was to what it is to be.
const CHANGE: &str = "UPDATE {keyspace}.generations SET state = ?, kept_until = null \
    WHERE register = ? AND number = ? IF state = ?";

/// That one is complete, and until when the one that serves before it is kept.
const SERVE: &str = "UPDATE {keyspace}.generations SET kept_until = null WHERE register = ? AND number = ? IF state = ?; \
     UPDATE {keyspace}.generations SET kept_until = ? WHERE register = ? AND number = ?";

/// Together with which one serves, from what it was to what it is to be. As one write: what is being dropped must not
/// begin to serve meanwhile.
fn beside_serving(updates: &str) -> String {
    let serving = "UPDATE {keyspace}.generations SET serving = ? WHERE register = ? IF serving = ?";
    ["BEGIN BATCH ", serving, "; ", updates, "; APPLY BATCH"].concat()
}

/// A handle to the register.
#[derive(Clone)]
pub struct Generations {
    connection: Arc<Connection>,
    options: Options,
}

impl Generations {
    pub(super) fn new(connection: Arc<Connection>, options: Options) -> Self {
        Self { connection, options }
    }

    /// A conditional write. They are rare, so nothing is kept prepared for them.
    async fn write(&self, text: &str, values: impl SerializeRow) -> Result<bool, StoreError> {
        let store = self.connection.current()?;
        let text = text.replace("{keyspace}", &self.options.keyspace);
        let written = store.session.query_unpaged(text, values).await.map_err(error::of_write);
        is_applied(self.connection.heed(written)?)
    }

    async fn serving(&self) -> Result<i32, StoreError> {
        let listed = generation::Generations::list(self).await?;
        let serving = listed.iter().find(|generation| generation.state == State::Serving);
        let none = || schema::unfinished(&self.options.keyspace, "no generation of views is serving");
        Ok(serving.ok_or_else(none)?.number.cast_signed())
    }
}

#[async_trait]
impl generation::Generations for Generations {
    async fn list(&self) -> Result<Vec<Generation>, StoreError> {
        let store = self.connection.current()?;
        let result = store.generations.list(&store.session).await;
        self.connection.heed(result)
    }

    async fn add(&self, rate: Option<u32>) -> Result<Generation, StoreError> {
        let number = schema::Migrator::new(&self.options)?.add_generation().await?;
        let insert = "INSERT INTO {keyspace}.generations (register, number, state, rate) VALUES (?, ?, ?, ?) \
                      IF NOT EXISTS";
        let row = (REGISTER, number.cast_signed(), State::Building.name(), stored(rate));
        if self.write(insert, row).await? {
            self.connection.learns_of(number).await;
            Ok(Generation { number, state: State::Building, rate, kept_until: None })
        } else {
            let what = format!("generation {number} was made by somebody else just now");
            Err(StoreError::Unfit { store: STORE, what })
        }
    }

    async fn change(&self, number: u32, from: State, to: State) -> Result<bool, StoreError> {
        let (serving, number) = (self.serving().await?, number.cast_signed());
        if serving == number {
            return Ok(false);
        }
        let values = (serving, REGISTER, serving, to.name(), REGISTER, number, from.name());
        self.write(&beside_serving(CHANGE), values).await
    }

    async fn limit(&self, number: u32, rate: Option<u32>) -> Result<bool, StoreError> {
        let update =
            "UPDATE {keyspace}.generations SET rate = ? WHERE register = ? AND number = ? IF state = ?";
        let key = (REGISTER, number.cast_signed());
        self.write(update, (stored(rate), key.0, key.1, State::Building.name())).await
    }

    async fn serve(&self, number: u32, keep_until: Timestamp) -> Result<bool, StoreError> {
        let (serving, number) = (self.serving().await?, number.cast_signed());
        if serving == number {
            return Ok(false);
        }
        let (complete, kept) = (State::Projecting.name(), Value::time(keep_until)?);
        let values = (number, REGISTER, serving, REGISTER, number, complete, kept, REGISTER, serving);
        self.write(&beside_serving(SERVE), values).await
    }

    async fn keep(&self, number: u32, until: Timestamp) -> Result<bool, StoreError> {
        let update = "UPDATE {keyspace}.generations SET kept_until = ? WHERE register = ? AND number = ? \
                      IF kept_until != null";
        self.write(update, (Value::time(until)?, REGISTER, number.cast_signed())).await
    }

    async fn expire(&self, number: u32, now: Timestamp) -> Result<bool, StoreError> {
        let (serving, number) = (self.serving().await?, number.cast_signed());
        let (from, to) = (State::Projecting.name(), State::Dropping.name());
        let values = (serving, REGISTER, serving, to, REGISTER, number, from, Value::time(now)?);
        self.write(&beside_serving(&format!("{CHANGE} AND kept_until <= ?")), values).await
    }

    async fn remove(&self, number: u32) -> Result<(), StoreError> {
        schema::Migrator::new(&self.options)?.remove_generation(number).await
    }

    async fn claim_rebuild(&self, holder: &str) -> Result<bool, StoreError> {
        let lifetime = i32::try_from(REBUILD_CLAIM_LIFETIME.as_secs()).expect("a constant of some seconds");
        if self.write(locks::TAKE, (REBUILD, holder, lifetime)).await? {
            return Ok(true);
        }
        self.write(locks::KEEP, (lifetime, holder, REBUILD, holder)).await
    }

    async fn release_rebuild(&self, holder: &str) -> Result<(), StoreError> {
        self.write(locks::GIVE_BACK, (REBUILD, holder)).await.map(drop)
    }
}

fn stored(rate: Option<u32>) -> Option<i32> {
    rate.map(|rate| i32::try_from(rate).unwrap_or(i32::MAX))
}

/// The keyspace of a generation's views.
pub(super) fn keyspace(keyspace: &str, generation: u32) -> String {
    format!("{keyspace}_g{generation}")
}

/// The numbers of those that have tables, from any version of the register.
pub(super) async fn with_views(session: &Session, keyspace: &str) -> Result<Vec<u32>, StoreError> {
    let select = format!("SELECT number, state FROM {keyspace}.generations WHERE register = '{REGISTER}'");
    let rows = read(session, &prepare(session, &select).await?, ()).await?;
    let rows = rows.rows::<(Option<i32>, Option<&str>)>().map_err(|error| error::unfit(&error))?;
    let mut numbers = Vec::new();
    for row in rows {
        let (Some(number), Some(state)) = row.map_err(error::damaged)? else { continue };
        if known(number, state)?.has_views() {
            numbers.push(u32::try_from(number).map_err(error::damaged)?);
        }
    }
    Ok(numbers)
}

fn known(number: i32, state: &str) -> Result<State, StoreError> {
    let unknown = || StoreError::Unfit {
        store: STORE,
        what: format!("generation {number} is {state:?}, which this program does not know"),
    };
    State::ALL.into_iter().find(|known| known.name() == state).ok_or_else(unknown)
}

pub(super) struct Table {
    select: PreparedStatement,
}

impl Table {
    pub(super) async fn prepare(session: &Session, keyspace: &str) -> Result<Self, StoreError> {
        let select = format!(
            "SELECT number, state, serving, rate, kept_until FROM {keyspace}.generations \
             WHERE register = '{REGISTER}'"
        );
        Ok(Self { select: prepare(session, &select).await? })
    }

    /// By number. The list is in one Cassandra partition, so it is never seen half changed.
    pub(super) async fn list(&self, session: &Session) -> Result<Vec<Generation>, StoreError> {
        let rows = read(session, &self.select, ()).await?;
        let mut generations = Vec::with_capacity(rows.rows_num());
        let rows = rows
            .rows::<(Option<i32>, Option<&str>, Option<i32>, Option<i32>, Option<CqlTimestamp>)>()
            .map_err(|error| error::unfit(&error))?;
        for row in rows {
            // Before the first generation there is a row of the common column alone, and before a new one has its
            // state there may be one without.
            let (Some(number), Some(state), serving, rate, kept) = row.map_err(error::damaged)? else {
                continue;
            };
            let state = if serving == Some(number) { State::Serving } else { known(number, state)? };
            let number = u32::try_from(number).map_err(error::damaged)?;
            let rate = rate.map(u32::try_from).transpose().map_err(error::damaged)?;
            let kept = kept.map(|CqlTimestamp(kept)| kept.try_into().map(Timestamp));
            let kept_until = kept.transpose().map_err(error::damaged)?;
            generations.push(Generation { number, state, rate, kept_until });
        }
        Ok(generations)
    }
}
