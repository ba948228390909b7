//! The table of what was seen of the log: one row per partition, all of a generation in one Cassandra partition, so
//! that the note of a batch is one small write. A merge as everything else: the highest offset wins, whoever writes it
//! and when.

use std::collections::BTreeMap;

use scylla::client::session::Session;
use scylla::statement::batch::{Batch, BatchType};
use scylla::statement::prepared::PreparedStatement;
use shared::ids::Position;
use shared::limits::BATCH_STATEMENTS_MAX;
use shared::ports::{Delivery, Epoch, LogPlace, Seen, StoreError};

use super::error;
use super::statement::{bigint, prepare_all, read, unsigned};

pub(super) struct Table {
    note: PreparedStatement,
    follow: PreparedStatement,
    tell: PreparedStatement,
    select: PreparedStatement,
    /// Of a whole generation.
    remove: PreparedStatement,
}

type Row = (i32, Option<String>, Option<i64>, Option<i64>, Option<i64>, Option<bool>);

impl Table {
    pub(super) async fn prepare(session: &Session, keyspace: &str) -> Result<Self, StoreError> {
        let key = "generation, log_partition";
        let place = "log_offset, entry_ms, entry_counter";
        let note =
            format!("INSERT INTO {keyspace}.seen ({key}, {place}) VALUES (?, ?, ?, ?, ?) USING TIMESTAMP ?");
        let follow = format!("INSERT INTO {keyspace}.seen ({key}, epoch) VALUES (?, ?, ?) USING TIMESTAMP ?");
        let tell = format!("INSERT INTO {keyspace}.seen ({key}, lost) VALUES (?, ?, ?)");
        let select =
            format!("SELECT log_partition, epoch, {place}, lost FROM {keyspace}.seen WHERE generation = ?");
        let remove = format!("DELETE FROM {keyspace}.seen WHERE generation = ?");
        let [note, follow, tell, select, remove] =
            prepare_all(session, [&note, &follow, &tell, &select, &remove]).await?;
        Ok(Self { note, follow, tell, select, remove })
    }

    /// The highest of each partition.
    pub(super) async fn note(
        &self,
        session: &Session,
        generation: u32,
        read: &[Delivery],
    ) -> Result<(), StoreError> {
        let rows: Vec<_> = highest(read)
            .map(|LogPlace { position: Position { partition, ms, counter }, offset }| {
                let offset = bigint(offset)?;
                let (ms, counter) = (ms.cast_signed(), counter.cast_signed());
                Ok((generation.cast_signed(), i32::from(partition), offset, ms, counter, offset))
            })
            .collect::<Result<_, StoreError>>()?;
        write(session, &self.note, &rows).await
    }

    pub(super) async fn follow(
        &self,
        session: &Session,
        generation: u32,
        partitions: &[u16],
        epoch: &Epoch,
    ) -> Result<(), StoreError> {
        let (text, version) = (epoch.to_string(), i64::from(epoch.repairs) + 1);
        let row = |partition: &u16| (generation.cast_signed(), i32::from(*partition), text.as_str(), version);
        let rows: Vec<_> = partitions.iter().map(row).collect();
        write(session, &self.follow, &rows).await
    }

    pub(super) async fn tell(
        &self,
        session: &Session,
        generation: u32,
        (lost, whole): (&[u16], &[u16]),
    ) -> Result<(), StoreError> {
        let row = |is_lost| move |partition: &u16| (generation.cast_signed(), i32::from(*partition), is_lost);
        let rows: Vec<_> = lost.iter().map(row(true)).chain(whole.iter().map(row(false))).collect();
        write(session, &self.tell, &rows).await
    }

    /// By partition.
    pub(super) async fn list(&self, session: &Session, generation: u32) -> Result<Vec<Seen>, StoreError> {
        let rows = read(session, &self.select, (generation.cast_signed(),)).await?;
        let rows = rows.rows::<Row>().map_err(|error| error::unfit(&error))?;
        rows.map(|row| seen(row.map_err(error::damaged)?)).collect()
    }

    pub(super) async fn remove(&self, session: &Session, generation: u32) -> Result<(), StoreError> {
        let key = (generation.cast_signed(),);
        session.execute_unpaged(&self.remove, key).await.map_err(error::of_write)?;
        Ok(())
    }
}

async fn write<Row: scylla::serialize::row::SerializeRow>(
    session: &Session,
    statement: &PreparedStatement,
    rows: &[Row],
) -> Result<(), StoreError> {
    for rows in rows.chunks(BATCH_STATEMENTS_MAX) {
        let mut batch = Batch::new(BatchType::Unlogged);
        batch.set_is_idempotent(true);
        rows.iter().for_each(|_| batch.append_statement(statement.clone()));
        session.batch(&batch, rows).await.map_err(error::of_write)?;
    }
    Ok(())
}

fn highest(read: &[Delivery]) -> impl Iterator<Item = LogPlace> {
    let mut highest: BTreeMap<u16, LogPlace> = BTreeMap::new();
    for place in read.iter().filter_map(LogPlace::of) {
        let known = highest.entry(place.position.partition).or_insert(place);
        if known.offset < place.offset {
            *known = place;
        }
    }
    highest.into_values()
}

fn seen((partition, epoch, offset, ms, counter, lost): Row) -> Result<Seen, StoreError> {
    let broken = || error::damaged(format_args!("what was seen of partition {partition}"));
    let partition = u16::try_from(partition).map_err(|_| broken())?;
    let epoch = epoch.map(|text| text.parse().map_err(|_| broken())).transpose()?;
    let last = match (offset, ms, counter) {
        (None, None, None) => None,
        (Some(offset), Some(ms), Some(counter)) => {
            let position = Position { partition, ms: ms.cast_unsigned(), counter: counter.cast_unsigned() };
            Some(LogPlace { position, offset: unsigned(offset)? })
        }
        (Some(_) | None, _, _) => return Err(broken()),
    };
    Ok(Seen { partition, epoch, last, is_told_lost: lost.unwrap_or(false) })
}
