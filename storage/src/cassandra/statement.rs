//! The little that all tables share: preparing a statement, a row on its way into a batch, numbers as CQL has
//! them, and a read of one response.

use std::borrow::Cow;

use futures_util::future::try_join_all;
use scylla::client::session::Session;
use scylla::cluster::metadata::ColumnType;
use scylla::response::query_result::QueryRowsResult;
use scylla::serialize::SerializationError;
use scylla::serialize::row::SerializeRow;
use scylla::serialize::value::SerializeValue;
use scylla::serialize::writers::{CellWriter, WrittenCellProof};
use scylla::statement::prepared::PreparedStatement;
use scylla::value::CqlTimestamp;
use shared::clock::Timestamp;
use shared::ids::Seq;
use shared::limits::VIEW_ROWS_PER_REQUEST;
use shared::ports::StoreError;

use super::error;

/// Not for conditional writes: the columns of their answers are others when they are not applied.
pub(super) async fn prepare(session: &Session, text: &str) -> Result<PreparedStatement, StoreError> {
    let mut statement = session.prepare(text).await.map_err(error::of_prepare)?;
    // Writes are merges and reads change nothing: another node may take over what one has dropped.
    statement.set_is_idempotent(true);
    statement.set_page_size(VIEW_ROWS_PER_REQUEST);
    // Every statement names its columns, and none of them ever becomes of another type: what the server told of them
    // when it was prepared need not come with every answer again.
    statement.set_use_cached_result_metadata(true);
    Ok(statement)
}

/// In their order. At once, as each waits for an answer, and the store may be far away.
pub(super) async fn prepare_all<const N: usize>(
    session: &Session,
    texts: [&str; N],
) -> Result<[PreparedStatement; N], StoreError> {
    let prepared = try_join_all(texts.map(|text| prepare(session, text))).await?;
    Ok(prepared.try_into().expect("as many as texts"))
}

/// All rows in one response; only for reads that are bounded by their key.
pub(super) async fn read(
    session: &Session,
    statement: &PreparedStatement,
    key: impl SerializeRow,
) -> Result<QueryRowsResult, StoreError> {
    let response = session.execute_unpaged(statement, key).await.map_err(error::of_read)?;
    response.into_rows_result().map_err(|error| error::unfit(&error))
}

/// One row to write.
pub(super) struct Write<'a> {
    pub(super) statement: &'a PreparedStatement,
    pub(super) values: Vec<Value<'a>>,
}

impl Write<'_> {
    /// What the row adds to a batch on the wire.
    pub(super) fn bytes(&self) -> usize {
        STATEMENT_BYTES + self.values.iter().map(|value| LENGTH_BYTES + value.bytes()).sum::<usize>()
    }
}

/// A kind, a prepared id with its length, and the number of values.
const STATEMENT_BYTES: usize = 1 + 2 + 16 + 2;
const LENGTH_BYTES: usize = 4;

/// A value of one of the types that the tables use.
pub(super) enum Value<'a> {
    Text(Cow<'a, str>),
    Bytes(&'a [u8]),
    /// `int`
    Number(i32),
    /// `bigint`
    Big(i64),
    Time(CqlTimestamp),
}

impl<'a> Value<'a> {
    pub(super) fn text(text: impl Into<Cow<'a, str>>) -> Self {
        Self::Text(text.into())
    }

    /// A number of the log; those count up from 1.
    pub(super) fn seq(seq: Seq) -> Result<Self, StoreError> {
        if seq == 0 { Err(error::damaged("0 is no number of the log")) } else { Self::big(seq) }
    }

    pub(super) fn big(number: u64) -> Result<Self, StoreError> {
        bigint(number).map(Self::Big)
    }

    pub(super) fn time(time: Timestamp) -> Result<Self, StoreError> {
        Ok(Self::Time(CqlTimestamp(bigint(time.0)?)))
    }

    fn bytes(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Bytes(bytes) => bytes.len(),
            Self::Number(_) => 4,
            Self::Big(_) | Self::Time(_) => 8,
        }
    }
}

impl SerializeValue for Value<'_> {
    fn serialize<'b>(
        &self,
        column: &ColumnType<'_>,
        writer: CellWriter<'b>,
    ) -> Result<WrittenCellProof<'b>, SerializationError> {
        match self {
            Self::Text(text) => text.as_ref().serialize(column, writer),
            Self::Bytes(bytes) => bytes.serialize(column, writer),
            Self::Number(number) => number.serialize(column, writer),
            Self::Big(number) => number.serialize(column, writer),
            Self::Time(time) => time.serialize(column, writer),
        }
    }
}

/// CQL's numbers are signed. The log counts up from 1, so a number beyond them was never given by it.
pub(super) fn bigint(number: u64) -> Result<i64, StoreError> {
    i64::try_from(number).map_err(|_| error::damaged(format_args!("{number} cannot be a number of the log")))
}

/// Back from CQL: nothing negative was ever written.
pub(super) fn unsigned(number: i64) -> Result<u64, StoreError> {
    u64::try_from(number)
        .map_err(|_| error::damaged(format_args!("{number} stands where only positive numbers do")))
}
