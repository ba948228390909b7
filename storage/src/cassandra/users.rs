//! The users table: who is registered.

use std::collections::HashMap;

use scylla::client::session::Session;
use scylla::statement::prepared::PreparedStatement;
use scylla::value::CqlTimestamp;
use shared::clock::Timestamp;
use shared::ids::{Seq, Username};
use shared::ports::StoreError;
use shared::view::{UserRow, UsersChange, version};

use super::error;
use super::statement::{Value, Write, prepare_all, read, unsigned};

pub(super) struct Table {
    put: PreparedStatement,
    select: PreparedStatement,
}

impl Table {
    pub(super) async fn prepare(session: &Session, keyspace: &str) -> Result<Self, StoreError> {
        let put =
            format!("INSERT INTO {keyspace}.users (username, registered_at) VALUES (?, ?) USING TIMESTAMP ?");
        let select = format!("SELECT registered_at FROM {keyspace}.users WHERE username = ?");
        let [put, select] = prepare_all(session, [&put, &select]).await?;
        Ok(Self { put, select })
    }

    pub(super) async fn read(
        &self,
        session: &Session,
        user: &Username,
    ) -> Result<Option<UserRow>, StoreError> {
        let rows = read(session, &self.select, (user.as_str(),)).await?;
        let row = rows.maybe_first_row::<(CqlTimestamp,)>().map_err(error::damaged)?;
        row.map(|(at,)| Ok(UserRow { username: user.clone(), registered_at: Timestamp(unsigned(at.0)?) }))
            .transpose()
    }
}

/// What a batch does to the table: the last registration of each user.
#[derive(Default)]
pub(super) struct Changes<'a>(HashMap<&'a Username, (Seq, &'a UserRow)>);

impl<'a> Changes<'a> {
    pub(super) fn add(&mut self, change: &'a UsersChange) {
        let UsersChange::PutUser { user, seq } = change;
        let last = self.0.entry(&user.username).or_insert((*seq, user));
        if *seq > last.0 {
            *last = (*seq, user);
        }
    }

    /// The writes, by Cassandra partition.
    pub(super) fn partitions(self, table: &'a Table) -> Result<Vec<Vec<Write<'a>>>, StoreError> {
        let write = |(seq, user): (Seq, &'a UserRow)| {
            let values = vec![
                Value::text(user.username.as_str()),
                Value::time(user.registered_at)?,
                Value::big(version::effect(seq))?,
            ];
            Ok(vec![Write { statement: &table.put, values }])
        };
        self.0.into_values().map(write).collect()
    }
}
