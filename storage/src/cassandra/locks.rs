//! Locks: a row each, with an end, so that who is killed blocks nobody for long. All writes are conditional.

use scylla::response::query_result::QueryResult;
use scylla::value::{CqlValue, Row};
use shared::ports::StoreError;

use super::error;

/// Name, holder, seconds.
pub(super) const TAKE: &str =
    "INSERT INTO {keyspace}.locks (name, holder) VALUES (?, ?) IF NOT EXISTS USING TTL ?";
/// Seconds, holder, name, holder.
pub(super) const KEEP: &str =
    "UPDATE {keyspace}.locks USING TTL ? SET holder = ? WHERE name = ? IF holder = ?";
/// Name, holder.
pub(super) const GIVE_BACK: &str = "DELETE FROM {keyspace}.locks WHERE name = ? IF holder = ?";

/// Whether a conditional write was done: the first column of its answer.
pub(super) fn is_applied(answer: QueryResult) -> Result<bool, StoreError> {
    let rows = answer.into_rows_result().map_err(|error| error::unfit(&error))?;
    let mut rows = rows.rows::<Row>().map_err(|error| error::unfit(&error))?;
    let row = rows.next().transpose().map_err(error::damaged)?;
    let first = row.and_then(|row| row.columns.into_iter().next().flatten());
    Ok(matches!(first, Some(CqlValue::Boolean(true))))
}
