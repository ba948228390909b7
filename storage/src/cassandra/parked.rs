//! The parked table: events that could not be applied, by generation and partition of the log. It is read by
//! operators only, so it is made to be written easily.

use std::collections::HashMap;

use futures_util::TryStreamExt;
use scylla::client::session::Session;
use scylla::statement::prepared::PreparedStatement;
use shared::ids::Position;
use shared::ports::StoreError;
use shared::view::{ParkedChange, ParkedRow};

use super::error;
use super::statement::{Value, Write, prepare};

/// The version of every parked row: what it says about a position is always the same.
const PARKED: i64 = 1;
/// Rows may be large: few at a time.
const ROWS_PER_REQUEST: i32 = 10;

pub(super) struct Table {
    put: PreparedStatement,
    /// Walks the whole table, by its partitions only: they are few.
    select_partitions: PreparedStatement,
    select: PreparedStatement,
}

impl Table {
    pub(super) async fn prepare(session: &Session, keyspace: &str) -> Result<Self, StoreError> {
        let put = format!(
            "INSERT INTO {keyspace}.parked (generation, log_partition, entry_ms, entry_counter, cause, bytes) \
             VALUES (?, ?, ?, ?, ?, ?) USING TIMESTAMP ?"
        );
        let partitions = format!("SELECT DISTINCT generation, log_partition FROM {keyspace}.parked");
        let select = format!(
            "SELECT entry_ms, entry_counter, cause, bytes FROM {keyspace}.parked \
             WHERE generation = ? AND log_partition = ?"
        );
        let mut select = prepare(session, &select).await?;
        select.set_page_size(ROWS_PER_REQUEST);
        Ok(Self {
            put: prepare(session, &put).await?,
            select_partitions: prepare(session, &partitions).await?,
            select,
        })
    }

    pub(super) async fn read(
        &self,
        session: &Session,
        generation: u32,
        rows_max: usize,
    ) -> Result<Vec<ParkedRow>, StoreError> {
        let mut parked = Vec::new();
        for partition in self.partitions(session, generation).await? {
            let key = (generation.cast_signed(), i32::from(partition));
            let pages = session.execute_iter(self.select.clone(), key).await.map_err(error::of_pager)?;
            let mut rows =
                pages.rows_stream::<(i64, i64, String, Vec<u8>)>().map_err(|error| error::unfit(&error))?;
            while parked.len() < rows_max {
                let Some((ms, counter, cause, bytes)) = rows.try_next().await.map_err(error::of_next_row)?
                else {
                    break;
                };
                let position =
                    Position { partition, ms: ms.cast_unsigned(), counter: counter.cast_unsigned() };
                parked.push(ParkedRow { position, cause, bytes });
            }
        }
        Ok(parked)
    }

    /// The partitions of the log with parked events, ascending.
    async fn partitions(&self, session: &Session, generation: u32) -> Result<Vec<u16>, StoreError> {
        let pages =
            session.execute_iter(self.select_partitions.clone(), ()).await.map_err(error::of_pager)?;
        let rows = pages.rows_stream::<(i32, i32)>().map_err(|error| error::unfit(&error))?;
        let keys: Vec<_> = rows.map_err(error::of_next_row).try_collect().await?;
        let ours = keys.into_iter().filter(|(number, _)| *number == generation.cast_signed());
        let mut partitions = ours
            .map(|(_, partition)| u16::try_from(partition).map_err(error::damaged))
            .collect::<Result<Vec<_>, _>>()?;
        partitions.sort_unstable();
        Ok(partitions)
    }
}

/// What a batch does to the table: each position once.
#[derive(Default)]
pub(super) struct Changes<'a>(HashMap<Position, &'a ParkedRow>);

impl<'a> Changes<'a> {
    pub(super) fn add(&mut self, change: &'a ParkedChange) {
        let ParkedChange::PutParked(row) = change;
        self.0.insert(row.position, row);
    }

    /// The writes, each by itself: two of the same partition in one batch are too rare to look for.
    pub(super) fn partitions(self, table: &'a Table, generation: u32) -> Vec<Vec<Write<'a>>> {
        let write = |row: &'a ParkedRow| {
            let Position { partition, ms, counter } = row.position;
            let values = vec![
                Value::Number(generation.cast_signed()),
                Value::Number(i32::from(partition)),
                // Bit for bit: an entry's id may be any number, if somebody chose it by hand.
                Value::Big(ms.cast_signed()),
                Value::Big(counter.cast_signed()),
                Value::text(row.cause.as_str()),
                Value::Bytes(&row.bytes),
                Value::Big(PARKED),
            ];
            vec![Write { statement: &table.put, values }]
        };
        self.0.into_values().map(write).collect()
    }
}
