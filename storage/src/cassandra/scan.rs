//! Every row of a generation, by ranges of tokens and page by page, with statements of its own: it shares nothing
//! with the reads of queries but the tables. A row that is not whole, or not where readers look for it, is told as
//! broken.

use std::sync::Arc;

use async_trait::async_trait;
use scylla::DeserializeRow;
use scylla::client::session::Session;
use scylla::response::PagingState;
use scylla::response::query_result::QueryRowsResult;
use scylla::statement::prepared::PreparedStatement;
use scylla::value::CqlTimestamp;
use shared::clock::Timestamp;
use shared::ids::{Conversation, Position, Seq, Username};
use shared::limits::{SCAN_PAGE_TIMEOUT, SCAN_PARTS, SCAN_ROWS_PER_PAGE};
use shared::message::Message;
use shared::ports::{ScanCursor, ScanPage, ScannedRow, ScannedTable, StoreError, ViewScan};
use shared::view::timeline::bucket;
use shared::view::{InboxRow, TimelineEntry, UserRow};
use tokio::sync::OnceCell;

use super::connection::Connection;
use super::error;
use super::generations;
use super::statement::prepare;

/// Reads all of one generation.
#[derive(Clone)]
pub struct Scan {
    connection: Arc<Connection>,
    keyspace: String,
    generation: u32,
    statements: Arc<OnceCell<Statements>>,
}

struct Statements {
    timeline: PreparedStatement,
    inbox: PreparedStatement,
    users: PreparedStatement,
    parked: PreparedStatement,
}

impl Scan {
    pub(super) fn new(connection: Arc<Connection>, keyspace: &str, generation: u32) -> Self {
        Self { connection, keyspace: keyspace.to_owned(), generation, statements: Arc::default() }
    }

    async fn read(&self, at: &ScanCursor) -> Result<ScanPage, StoreError> {
        let store = self.connection.current()?;
        store.views(self.generation)?;
        let prepared = || Statements::prepare(&store.session, &self.keyspace, self.generation);
        let statements = self.statements.get_or_try_init(prepared).await?;
        let statement = match at.table {
            ScannedTable::Timeline => &statements.timeline,
            ScannedTable::Inbox => &statements.inbox,
            ScannedTable::Users => &statements.users,
            ScannedTable::Parked => &statements.parked,
        };
        let place = at.place.as_deref().map_or_else(PagingState::start, PagingState::new_from_raw_bytes);
        let page = store.session.execute_single_page(statement, tokens(at.part), place).await;
        let (page, goes_on) = page.map_err(error::of_read)?;
        let page = page.into_rows_result().map_err(|error| error::unfit(&error))?;
        let rows = match at.table {
            ScannedTable::Timeline => timeline(&page)?,
            ScannedTable::Inbox => inbox(&page)?,
            ScannedTable::Users => users(&page)?,
            ScannedTable::Parked => parked(&page, self.generation)?,
        };
        let place = goes_on.into_paging_control_flow().continue_value();
        let place = place.and_then(|place| place.as_bytes_slice().map(|bytes| bytes.to_vec()));
        let next = place.map(|place| ScanCursor { place: Some(place), ..at.clone() });
        Ok(ScanPage { rows, next })
    }
}

#[async_trait]
impl ViewScan for Scan {
    fn parts(&self, table: ScannedTable) -> Vec<ScanCursor> {
        (0..SCAN_PARTS).map(|part| ScanCursor { table, part, place: None }).collect()
    }

    async fn page(&self, at: &ScanCursor) -> Result<ScanPage, StoreError> {
        let page = self.read(at).await;
        self.connection.heed(page)
    }
}

/// The range of a part: behind the first token, up to and with the last. No row has the lowest token.
fn tokens(part: u16) -> (i64, i64) {
    let width = u64::MAX / u64::from(SCAN_PARTS) + 1;
    let begin = |part: u16| i64::MIN.wrapping_add_unsigned(width.wrapping_mul(u64::from(part)));
    let last = if part + 1 == SCAN_PARTS { i64::MAX } else { begin(part + 1) };
    (begin(part), last)
}

impl Statements {
    async fn prepare(session: &Session, keyspace: &str, generation: u32) -> Result<Self, StoreError> {
        let views = generations::keyspace(keyspace, generation);
        let select = async |columns: &str, table: &str, key: &str| {
            let range = format!("token({key}) > ? AND token({key}) <= ?");
            let text = format!("SELECT {columns} FROM {table} WHERE {range}");
            let mut statement = prepare(session, &text).await?;
            statement.set_page_size(i32::try_from(SCAN_ROWS_PER_PAGE).expect("a small number"));
            statement.set_request_timeout(Some(SCAN_PAGE_TIMEOUT));
            Ok::<_, StoreError>(statement)
        };
        let message = "seq, id, sender, content, sent_at";
        let timeline = format!("conversation, bucket, {message}, parked");
        let inbox = format!("owner, peer, {message}, own_seq, read_mark, parked_seq");
        let parked = "generation, log_partition, entry_ms, entry_counter, settled";
        Ok(Self {
            timeline: select(&timeline, &format!("{views}.timeline"), "conversation, bucket").await?,
            inbox: select(&inbox, &format!("{views}.inbox"), "owner").await?,
            users: select("username, registered_at", &format!("{views}.users"), "username").await?,
            parked: select(parked, &format!("{keyspace}.parked"), "generation, log_partition").await?,
        })
    }
}

#[derive(DeserializeRow)]
#[scylla(flavor = "enforce_order")]
struct TimelineRow<'a> {
    conversation: &'a str,
    bucket: i64,
    seq: i64,
    id: Option<&'a str>,
    sender: Option<&'a str>,
    content: Option<&'a str>,
    sent_at: Option<CqlTimestamp>,
    parked: Option<bool>,
}

fn timeline(page: &QueryRowsResult) -> Result<Vec<ScannedRow>, StoreError> {
    let mut rows = Vec::with_capacity(page.rows_num());
    // Rows of a conversation come one after the other.
    let mut last: Option<Conversation> = None;
    for row in page.rows::<TimelineRow<'_>>().map_err(|error| error::unfit(&error))? {
        let row = row.map_err(error::damaged)?;
        if last.as_ref().is_none_or(|last| !is_named(last, row.conversation)) {
            last = row.conversation.parse().ok();
        }
        let entry = last.as_ref().and_then(|conversation| row.open(conversation));
        rows.extend(match (entry, &last) {
            (Some(Some(entry)), Some(conversation)) => {
                Some(ScannedRow::Timeline { conversation: conversation.clone(), entry })
            }
            // A row without a cell that says anything: nobody sees it.
            (Some(None), _) => None,
            (None, _) | (Some(Some(_)), None) => Some(ScannedRow::Broken(format!(
                "timeline row {} in bucket {} of {}",
                row.seq,
                row.bucket,
                row.conversation.escape_debug()
            ))),
        });
    }
    Ok(rows)
}

fn is_named(conversation: &Conversation, text: &str) -> bool {
    let names = text.split_once(':');
    names
        .is_some_and(|(low, high)| low == conversation.low().as_str() && high == conversation.high().as_str())
}

impl TimelineRow<'_> {
    /// `None`: it is not what this program writes. `Some(None)`: there is nothing in it.
    fn open(&self, conversation: &Conversation) -> Option<Option<TimelineEntry>> {
        let seq = Seq::try_from(self.seq).ok().filter(|seq| *seq > 0)?;
        if u64::try_from(self.bucket) != Ok(bucket(seq)) {
            return None;
        }
        let cells = (self.id, self.sender, self.content, self.sent_at);
        if matches!(cells, (None, None, None, None)) {
            return Some(self.parked.map(|_| TimelineEntry::Parked { seq }));
        }
        let between = (conversation.low(), conversation.high());
        message(seq, cells, between).map(TimelineEntry::Message).map(Some)
    }
}

type Cells<'a> = (Option<&'a str>, Option<&'a str>, Option<&'a str>, Option<CqlTimestamp>);

fn message(seq: Seq, cells: Cells<'_>, (one, other): (&Username, &Username)) -> Option<Message> {
    let (Some(id), Some(sender), Some(content), Some(sent_at)) = cells else { return None };
    let (sender, recipient) = match sender {
        sender if sender == one.as_str() => (one, other),
        sender if sender == other.as_str() => (other, one),
        _ => return None,
    };
    Some(Message {
        id: id.parse().ok()?,
        seq,
        sender: sender.clone(),
        recipient: recipient.clone(),
        content: content.to_owned(),
        timestamp: Timestamp(u64::try_from(sent_at.0).ok()?),
    })
}

#[derive(DeserializeRow)]
#[scylla(flavor = "enforce_order")]
struct InboxCells<'a> {
    owner: &'a str,
    peer: &'a str,
    seq: Option<i64>,
    id: Option<&'a str>,
    sender: Option<&'a str>,
    content: Option<&'a str>,
    sent_at: Option<CqlTimestamp>,
    own_seq: Option<i64>,
    read_mark: Option<i64>,
    parked_seq: Option<i64>,
}

fn inbox(page: &QueryRowsResult) -> Result<Vec<ScannedRow>, StoreError> {
    let rows = page.rows::<InboxCells<'_>>().map_err(|error| error::unfit(&error))?;
    rows.map(|row| {
        let row = row.map_err(error::damaged)?;
        let (owner, peer) = (row.owner.escape_debug(), row.peer.escape_debug());
        Ok(row.open().unwrap_or_else(|| ScannedRow::Broken(format!("inbox row of {owner} with {peer}"))))
    })
    .collect()
}

impl InboxCells<'_> {
    /// `None`: it is not what this program writes.
    fn open(&self) -> Option<ScannedRow> {
        let (owner, peer): (Username, Username) = (self.owner.parse().ok()?, self.peer.parse().ok()?);
        let conversation = Conversation::between(&owner, &peer)?;
        let number = |cell: Option<i64>| cell.map_or(Some(0), |number| Seq::try_from(number).ok());
        let cells = (self.id, self.sender, self.content, self.sent_at);
        let last = match (self.seq, cells) {
            (None, (None, None, None, None)) => None,
            (Some(seq), cells) => Some(message(Seq::try_from(seq).ok()?, cells, (&owner, &peer))?),
            (None, _) => return None,
        };
        let (own_seq, read_mark) = (number(self.own_seq)?, number(self.read_mark)?);
        let parked_seq = number(self.parked_seq)?;
        // Readers look for it in the row of the lower name only.
        let is_low = *conversation.low() == owner;
        if !is_low && parked_seq > 0 {
            return None;
        }
        let parked_seq = is_low.then_some(parked_seq);
        Some(ScannedRow::Inbox { owner, row: InboxRow { peer, last, own_seq, read_mark }, parked_seq })
    }
}

fn users(page: &QueryRowsResult) -> Result<Vec<ScannedRow>, StoreError> {
    let rows = page.rows::<(&str, Option<CqlTimestamp>)>().map_err(|error| error::unfit(&error))?;
    rows.map(|row| {
        let (name, at) = row.map_err(error::damaged)?;
        let at = at.and_then(|at| u64::try_from(at.0).ok()).map(Timestamp);
        Ok(match (name.parse(), at) {
            (Ok(username), Some(registered_at)) => ScannedRow::User(UserRow { username, registered_at }),
            (Ok(_) | Err(_), _) => ScannedRow::Broken(format!("user row of {}", name.escape_debug())),
        })
    })
    .collect()
}

fn parked(page: &QueryRowsResult, generation: u32) -> Result<Vec<ScannedRow>, StoreError> {
    type Cells = (i32, i32, i64, i64, Option<bool>);
    let rows = page.rows::<Cells>().map_err(|error| error::unfit(&error))?;
    let mut found = Vec::new();
    for row in rows {
        let (of, partition, ms, counter, settled) = row.map_err(error::damaged)?;
        if of != generation.cast_signed() {
            continue;
        }
        let partition = u16::try_from(partition).map_err(error::damaged)?;
        let position = Position { partition, ms: ms.cast_unsigned(), counter: counter.cast_unsigned() };
        found.push(ScannedRow::Parked { position, is_settled: settled.is_some() });
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_hold_every_token_once() {
        let ranges: Vec<_> = (0..SCAN_PARTS).map(tokens).collect();
        assert_eq!((ranges[0].0, ranges[ranges.len() - 1].1), (i64::MIN, i64::MAX));
        for pair in ranges.windows(2) {
            assert!(pair[0].0 < pair[0].1 && pair[0].1 == pair[1].0, "{pair:?}");
        }
    }
}
