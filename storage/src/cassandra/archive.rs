//! The archive: blocks of the log, each in parts that Cassandra takes, and how far they reach. A block that grows is
//! written again, whole, by whoever does it; its timestamp is how often the log was repaired and how many entries there
//! are up to its last one, so the longest version of the latest log stays. The first part is written last and says how
//! many there are: while the others are of another version the block is being written.

use std::sync::Arc;

use async_trait::async_trait;
use futures_util::TryStreamExt;
use scylla::DeserializeRow;
use scylla::client::session::Session;
use scylla::statement::prepared::PreparedStatement;
use shared::limits::{
    ARCHIVE_BLOCKS_PER_SPAN, ARCHIVE_PART_BYTES_MAX, ARCHIVE_PARTS_PER_REQUEST, SCAN_PAGE_TIMEOUT,
};
use shared::ports::{self, BeingWritten, Block, Reach, StoreError};

use super::connection::Connection;
use super::statement::{bigint, prepare_all, read, unsigned};
use super::{STORE, error};
use crate::archive::block;

/// At 5,000 entries per second a partition has them after 400 years.
const ENTRIES_OF_AN_EPOCH_MAX: i64 = 1 << 46;

/// A handle to the archive.
#[derive(Clone)]
pub struct Archive {
    pub(super) connection: Arc<Connection>,
}

pub(super) struct Table {
    put: PreparedStatement,
    select: PreparedStatement,
    select_versions: PreparedStatement,
    put_reach: PreparedStatement,
    select_reach: PreparedStatement,
}

#[derive(DeserializeRow)]
struct Part {
    part: i32,
    /// Entries of the version that it is of.
    length: i32,
    parts: i32,
    bytes: Vec<u8>,
}

#[async_trait]
impl ports::Archive for Archive {
    async fn reach(&self, partition: u16) -> Result<Reach, StoreError> {
        let store = self.connection.current()?;
        let result = store.archive.reach(&store.session, partition).await;
        self.connection.heed(result)
    }

    async fn block(&self, partition: u16, number: u64) -> Result<Option<Block>, StoreError> {
        let store = self.connection.current()?;
        let result = store.archive.block(&store.session, partition, number).await;
        self.connection.heed(result)
    }

    async fn put(&self, block: &Block, repairs: u32) -> Result<(), StoreError> {
        let store = self.connection.current()?;
        let result = store.archive.put(&store.session, block, repairs).await;
        self.connection.heed(result)
    }

    async fn replace(&self, block: &Block, repairs: u32) -> Result<(), StoreError> {
        let store = self.connection.current()?;
        let result = store.archive.replace(&store.session, block, repairs).await;
        self.connection.heed(result)
    }
}

impl Table {
    pub(super) async fn prepare(session: &Session, keyspace: &str) -> Result<Self, StoreError> {
        let columns = "log_partition, span, block, part, length, parts, bytes";
        let put = format!(
            "INSERT INTO {keyspace}.archive ({columns}) VALUES (?, ?, ?, ?, ?, ?, ?) USING TIMESTAMP ?"
        );
        let select = format!(
            "SELECT part, length, parts, bytes FROM {keyspace}.archive \
             WHERE log_partition = ? AND span = ? AND block = ?"
        );
        let select_versions = format!(
            "SELECT WRITETIME(bytes) FROM {keyspace}.archive \
             WHERE log_partition = ? AND span = ? AND block = ?"
        );
        let put_reach = format!(
            "INSERT INTO {keyspace}.archive_reach (log_partition, reach, repairs) VALUES (?, ?, ?) \
             USING TIMESTAMP ?"
        );
        let select_reach =
            format!("SELECT reach, repairs FROM {keyspace}.archive_reach WHERE log_partition = ?");
        let [put, mut select, select_versions, put_reach, select_reach] =
            prepare_all(session, [&put, &select, &select_versions, &put_reach, &select_reach]).await?;
        select.set_page_size(ARCHIVE_PARTS_PER_REQUEST);
        select.set_request_timeout(Some(SCAN_PAGE_TIMEOUT));
        Ok(Self { put, select, select_versions, put_reach, select_reach })
    }

    async fn reach(&self, session: &Session, partition: u16) -> Result<Reach, StoreError> {
        let rows = read(session, &self.select_reach, (i32::from(partition),)).await?;
        let row = rows.maybe_first_row::<(i64, i32)>().map_err(error::damaged)?;
        let Some((entries, repairs)) = row else { return Ok(Reach::default()) };
        Ok(Reach { entries: unsigned(entries)?, repairs: repairs.try_into().map_err(error::damaged)? })
    }

    async fn block(
        &self,
        session: &Session,
        partition: u16,
        number: u64,
    ) -> Result<Option<Block>, StoreError> {
        let (span, block) = place(number)?;
        let key = (i32::from(partition), span, block);
        let pages = session.execute_iter(self.select.clone(), key).await.map_err(error::of_pager)?;
        let rows = pages.rows_stream::<Part>().map_err(|error| error::unfit(&error))?;
        let parts: Vec<_> = rows.map_err(error::of_next_row).try_collect().await?;
        let broken =
            |what: String| error::damaged(format_args!("block {number} of partition {partition}: {what}"));
        let Some((bytes, length)) = whole(parts).map_err(|what| broken(what.to_owned()))? else {
            return Ok(None);
        };
        let Some(bytes) = bytes else {
            return Err(StoreError::unavailable(STORE, BeingWritten));
        };
        let block = block::decode(partition, number, &bytes).map_err(|bad| broken(bad.to_string()))?;
        if block.entries.len() as u64 != unsigned(length.into())? {
            return Err(broken(format!("it has {} entries, and says {length}", block.entries.len())));
        }
        Ok(Some(block))
    }

    async fn put(&self, session: &Session, block: &Block, repairs: u32) -> Result<(), StoreError> {
        let (partition, reach) = (i32::from(block.partition), bigint(block.reach())?);
        let version = version(block, repairs)?;
        self.put_parts(session, block, version).await?;
        let repairs = i32::try_from(repairs).map_err(error::damaged)?;
        let row = (partition, reach, repairs, version);
        session.execute_unpaged(&self.put_reach, row).await.map_err(error::of_write).map(drop)
    }

    /// Above what is there. No longer version follows that of a full block, so nothing is ever below it by mistake.
    async fn replace(&self, session: &Session, block: &Block, repairs: u32) -> Result<(), StoreError> {
        let (span, number) = place(block.number)?;
        let rows = read(session, &self.select_versions, (i32::from(block.partition), span, number)).await?;
        let rows = rows.rows::<(Option<i64>,)>().map_err(|error| error::unfit(&error))?;
        let mut version = version(block, repairs)?;
        for row in rows {
            version = row.map_err(error::damaged)?.0.unwrap_or(0).max(version);
        }
        self.put_parts(session, block, version + 1).await
    }

    async fn put_parts(&self, session: &Session, block: &Block, version: i64) -> Result<(), StoreError> {
        let (span, number) = place(block.number)?;
        let partition = i32::from(block.partition);
        let bytes = block::encode(block);
        let parts: Vec<_> = (0..).zip(bytes.chunks(ARCHIVE_PART_BYTES_MAX)).collect();
        let count = i32::try_from(parts.len()).map_err(error::damaged)?;
        let entries = i32::try_from(block.entries.len()).map_err(error::damaged)?;
        for (part, bytes) in parts.into_iter().rev() {
            let row = (partition, span, number, part, entries, count, bytes, version);
            session.execute_unpaged(&self.put, row).await.map_err(error::of_write)?;
        }
        Ok(())
    }
}

fn version(block: &Block, repairs: u32) -> Result<i64, StoreError> {
    Ok(i64::from(repairs) * ENTRIES_OF_AN_EPOCH_MAX + bigint(block.reach())?)
}

/// Span and block.
fn place(number: u64) -> Result<(i64, i64), StoreError> {
    Ok((bigint(number / ARCHIVE_BLOCKS_PER_SPAN)?, bigint(number)?))
}

/// All parts put together, and how many entries are in them. `None`: there is no block; no bytes: its parts are of more
/// than one version. Parts that an older version had more are left over.
#[expect(clippy::type_complexity, reason = "three outcomes that are told apart right where it is called")]
fn whole(parts: Vec<Part>) -> Result<Option<(Option<Vec<u8>>, i32)>, &'static str> {
    let Some(&Part { part, length, parts: count, .. }) = parts.first() else { return Ok(None) };
    if part != 0 {
        // The first one is written last.
        return Ok(None);
    }
    let mut bytes = Vec::with_capacity(parts.iter().map(|part| part.bytes.len()).sum());
    let mut expected = 0;
    for part in parts.into_iter().take_while(|part| part.part < count) {
        if part.part != expected {
            return Err("a part of it is missing");
        }
        if part.length != length {
            return Ok(Some((None, length)));
        }
        expected += 1;
        bytes.extend(part.bytes);
    }
    if expected == count { Ok(Some((Some(bytes), length))) } else { Err("a part of it is missing") }
}
