//! The register of generations: which sets of views there are, and which one is read. It fills none.

use std::sync::Arc;

use scylla::client::session::Session;
use scylla::statement::prepared::PreparedStatement;
use shared::ports::StoreError;

use super::connection::Connection;
use super::statement::{prepare, read};
use super::{STORE, error};

/// The one partition of the register.
pub(super) const REGISTER: &str = "views";

/// One full set of view tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Generation {
    pub number: u32,
    pub state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Filled by projectors, read by nobody.
    Projecting,
    /// Filled by projectors, and the one that is read.
    Serving,
}

/// How `Projecting` is written. Which one is serving is not a state of a row but one column for all of them.
pub(super) const PROJECTING: &str = "projecting";

/// A handle to the register.
#[derive(Clone)]
pub struct Generations {
    connection: Arc<Connection>,
}

impl Generations {
    pub(super) fn new(connection: Arc<Connection>) -> Self {
        Self { connection }
    }

    /// All that are registered, by number.
    pub async fn list(&self) -> Result<Vec<Generation>, StoreError> {
        let store = self.connection.current()?;
        let result = store.generations.list(&store.session).await;
        self.connection.heed(result)
    }
}

/// The keyspace of a generation's views.
pub(super) fn keyspace(keyspace: &str, generation: u32) -> String {
    format!("{keyspace}_g{generation}")
}

pub(super) struct Table {
    select: PreparedStatement,
}

impl Table {
    pub(super) async fn prepare(session: &Session, keyspace: &str) -> Result<Self, StoreError> {
        let select = format!(
            "SELECT number, state, serving FROM {keyspace}.generations WHERE register = '{REGISTER}'"
        );
        Ok(Self { select: prepare(session, &select).await? })
    }

    /// By number. The list is in one Cassandra partition, so it is never seen half changed.
    pub(super) async fn list(&self, session: &Session) -> Result<Vec<Generation>, StoreError> {
        let rows = read(session, &self.select, ()).await?;
        let mut generations = Vec::with_capacity(rows.rows_num());
        let rows =
            rows.rows::<(Option<i32>, Option<&str>, Option<i32>)>().map_err(|error| error::unfit(&error))?;
        for row in rows {
            // Before the first generation there is a row of the common column alone.
            let (Some(number), state, serving) = row.map_err(error::damaged)? else { continue };
            let state = match state {
                _ if serving == Some(number) => State::Serving,
                Some(PROJECTING) => State::Projecting,
                other => {
                    let what = format!("generation {number} is {other:?}, which this program does not know");
                    return Err(StoreError::Unfit { store: STORE, what });
                }
            };
            generations.push(Generation { number: u32::try_from(number).map_err(error::damaged)?, state });
        }
        Ok(generations)
    }
}
