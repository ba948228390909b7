//! The parked table: events that could not be applied, by generation and partition of the log. It is read by
//! operators only, so it is made to be written easily. A settled event keeps its key, without cause and bytes:
//! nothing is deleted, and a slow projector that parks it again changes nothing.

use std::collections::HashMap;

use futures_util::TryStreamExt;
use scylla::DeserializeRow;
use scylla::client::session::Session;
use scylla::statement::prepared::PreparedStatement;
use scylla::value::CqlTimestamp;
use shared::clock::Timestamp;
use shared::ids::{Conversation, Position, Seq};
use shared::ports::StoreError;
use shared::view::{ParkedChange, ParkedEvent, ParkedRow, version};

use super::error;
use super::statement::{Value, Write, prepare_all, read, unsigned};

/// Without the bytes, of which each row may have a MiB.
const EVENT: &str = "entry_ms, entry_counter, cause, attempts, parked_at, conversation, seq, settled";

pub(super) struct Table {
    put: PreparedStatement,
    settle: PreparedStatement,
    /// Walks the whole table, by its partitions only: they are few.
    select_partitions: PreparedStatement,
    select: PreparedStatement,
    select_one: PreparedStatement,
    select_bytes: PreparedStatement,
    /// Of a whole generation.
    remove: PreparedStatement,
}

#[derive(DeserializeRow)]
struct Row {
    entry_ms: i64,
    entry_counter: i64,
    cause: Option<String>,
    attempts: Option<i32>,
    parked_at: Option<CqlTimestamp>,
    /// Empty, and `seq` 0, where the entry tells no place.
    conversation: Option<String>,
    seq: Option<i64>,
    settled: Option<bool>,
}

impl Table {
    pub(super) async fn prepare(session: &Session, keyspace: &str) -> Result<Self, StoreError> {
        let key = "generation, log_partition, entry_ms, entry_counter";
        let put = format!(
            "INSERT INTO {keyspace}.parked ({key}, cause, attempts, parked_at, conversation, seq, bytes) \
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) USING TIMESTAMP ?"
        );
        let settle = format!(
            "INSERT INTO {keyspace}.parked ({key}, cause, bytes, settled) VALUES (?, ?, ?, ?, '', 0x, true) \
             USING TIMESTAMP ?"
        );
        let partitions = format!("SELECT DISTINCT generation, log_partition FROM {keyspace}.parked");
        let of = "WHERE generation = ? AND log_partition = ?";
        let select =
            format!("SELECT {EVENT} FROM {keyspace}.parked {of} AND (entry_ms, entry_counter) > (?, ?)");
        let one = |columns: &str| {
            format!("SELECT {columns} FROM {keyspace}.parked {of} AND entry_ms = ? AND entry_counter = ?")
        };
        let remove = format!("DELETE FROM {keyspace}.parked {of}");
        let [put, settle, select_partitions, select, select_one, select_bytes, remove] =
            prepare_all(session, [&put, &settle, &partitions, &select, &one(EVENT), &one("bytes"), &remove])
                .await?;
        Ok(Self { put, settle, select_partitions, select, select_one, select_bytes, remove })
    }

    pub(super) async fn list(
        &self,
        session: &Session,
        generation: u32,
        after: Option<Position>,
        events_max: usize,
    ) -> Result<Vec<ParkedEvent>, StoreError> {
        let mut events = Vec::new();
        for partition in self.partitions(session, generation).await? {
            if after.is_some_and(|after| partition < after.partition) {
                continue;
            }
            let after = after.filter(|after| after.partition == partition);
            let after = after.map_or((i64::MIN, i64::MIN), |after| (signed(after.ms), signed(after.counter)));
            let key = (generation.cast_signed(), i32::from(partition), after.0, after.1);
            let pages = session.execute_iter(self.select.clone(), key).await.map_err(error::of_pager)?;
            let mut rows = pages.rows_stream::<Row>().map_err(|error| error::unfit(&error))?;
            while events.len() < events_max {
                let Some(row) = rows.try_next().await.map_err(error::of_next_row)? else { break };
                events.extend(row.open(partition)?);
            }
        }
        Ok(events)
    }

    pub(super) async fn find(
        &self,
        session: &Session,
        generation: u32,
        position: Position,
    ) -> Result<Option<ParkedRow>, StoreError> {
        let key = key(generation, position);
        let rows = read(session, &self.select_one, key).await?;
        let row = rows.maybe_first_row::<Row>().map_err(error::damaged)?;
        let Some(event) = row.map_or(Ok(None), |row| row.open(position.partition))? else { return Ok(None) };
        let rows = read(session, &self.select_bytes, key).await?;
        let bytes = rows.maybe_first_row::<(Option<Vec<u8>>,)>().map_err(error::damaged)?;
        Ok(Some(ParkedRow { event, bytes: bytes.and_then(|(bytes,)| bytes).unwrap_or_default() }))
    }

    pub(super) async fn remove(&self, session: &Session, generation: u32) -> Result<(), StoreError> {
        for partition in self.partitions(session, generation).await? {
            let key = (generation.cast_signed(), i32::from(partition));
            session.execute_unpaged(&self.remove, key).await.map_err(error::of_write)?;
        }
        Ok(())
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

impl Row {
    /// `None`: it is settled.
    fn open(self, partition: u16) -> Result<Option<ParkedEvent>, StoreError> {
        if self.settled.is_some() {
            return Ok(None);
        }
        let (ms, counter) = (self.entry_ms.cast_unsigned(), self.entry_counter.cast_unsigned());
        let position = Position { partition, ms, counter };
        let broken = || error::damaged(format_args!("parked event {position}"));
        // Before there were attempts, a row was of the first, and the place was not kept.
        let attempts = u32::try_from(self.attempts.unwrap_or(1)).map_err(|_| broken())?;
        let parked_at = self.parked_at.map_or(Ok(ms), |time| unsigned(time.0)).map(Timestamp)?;
        let place: Option<(Conversation, Seq)> = match (self.conversation.as_deref(), self.seq) {
            (Some(""), _) | (None, _) | (_, None) => None,
            (Some(pair), Some(seq)) => Some((pair.parse().map_err(|_| broken())?, unsigned(seq)?)),
        };
        let cause = self.cause.ok_or_else(broken)?;
        Ok(Some(ParkedEvent { position, cause, attempts, parked_at, place }))
    }
}

fn key(generation: u32, position: Position) -> (i32, i32, i64, i64) {
    let Position { partition, ms, counter } = position;
    (generation.cast_signed(), i32::from(partition), signed(ms), signed(counter))
}

/// Bit for bit: an entry's id may be any number, if somebody chose it by hand.
fn signed(number: u64) -> i64 {
    number.cast_signed()
}

/// What a batch does to the table: for each position the last attempt, or `None` if it is settled.
#[derive(Default)]
pub(super) struct Changes<'a>(HashMap<Position, Option<&'a ParkedRow>>);

impl<'a> Changes<'a> {
    pub(super) fn add(&mut self, change: &'a ParkedChange) {
        match change {
            ParkedChange::PutParked(row) => {
                let rank = |row: &ParkedRow| (row.event.attempts, row.event.parked_at);
                let last = self.0.entry(row.event.position).or_insert(Some(row));
                if last.is_some_and(|last| rank(last) < rank(row)) {
                    *last = Some(row);
                }
            }
            ParkedChange::Settle { position } => {
                self.0.insert(*position, None);
            }
        }
    }

    /// The writes, each by itself: two of the same partition in one batch are too rare to look for.
    pub(super) fn partitions(
        self,
        table: &'a Table,
        generation: u32,
    ) -> Result<Vec<Vec<Write<'a>>>, StoreError> {
        let write = |(position, row)| Ok(vec![table.write(generation, position, row)?]);
        self.0.into_iter().map(write).collect()
    }
}

impl Table {
    fn write<'a>(
        &'a self,
        generation: u32,
        position: Position,
        row: Option<&'a ParkedRow>,
    ) -> Result<Write<'a>, StoreError> {
        let (generation, partition, ms, counter) = key(generation, position);
        let mut values =
            vec![Value::Number(generation), Value::Number(partition), Value::Big(ms), Value::Big(counter)];
        let Some(ParkedRow { event, bytes }) = row else {
            values.push(Value::big(version::SETTLED)?);
            return Ok(Write { statement: &self.settle, values });
        };
        let (conversation, seq) =
            event.place.as_ref().map_or((String::new(), 0), |(pair, seq)| (pair.to_string(), *seq));
        values.extend([
            Value::text(event.cause.as_str()),
            Value::Number(i32::try_from(event.attempts).map_err(error::damaged)?),
            Value::time(event.parked_at)?,
            Value::text(conversation),
            Value::big(seq)?,
            Value::Bytes(bytes),
            Value::big(version::tried(event.attempts))?,
        ]);
        Ok(Write { statement: &self.put, values })
    }
}
