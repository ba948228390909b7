//! The ports `LogScan` and `ViewScan`: all of the log by offset, and all of a table by key. Rows are read one by
//! one, so that one that cannot be read is told and the rest is read all the same.

use std::ops::Bound;

use async_trait::async_trait;
use shared::ids::{Conversation, Position, Username};
use shared::limits::SCAN_ROWS_PER_PAGE;
use shared::ports::{
    Delivery, LogScan, ScanCursor, ScanPage, ScannedRow, ScannedTable, Span, StoreError, ViewScan,
};

use super::entry::{self, Entry};
use super::{Embedded, damaged, encoding, inbox, keys, parked, read_error, timeline, users};

#[async_trait]
impl LogScan for Embedded {
    async fn extent(&self) -> Result<Vec<Span>, StoreError> {
        let last = *self.log_end().borrow();
        if last == 0 {
            return Ok(Vec::new());
        }
        self.blocking(move |store| {
            Ok(vec![Span { first: store.position_of(1)?, last: store.position_of(last)? }])
        })
        .await
    }

    async fn page(&self, span: &Span, events_max: usize) -> Result<Vec<Delivery>, StoreError> {
        let (first, last) = (span.first.counter, span.last.counter);
        self.blocking(move |store| {
            let rows = store.directory().log.range(first.to_be_bytes()..=last.to_be_bytes());
            let mut page = Vec::new();
            for row in rows.take(events_max) {
                let (key, bytes) = row.into_inner().map_err(read_error)?;
                let unreadable = || damaged("an entry of the log cannot be read".to_owned());
                let offset = encoding::number(&key).ok_or_else(unreadable)?;
                page.push(Entry::decode(&bytes).ok_or_else(unreadable)?.deliver(offset, &bytes));
            }
            Ok(page)
        })
        .await
    }
}

impl Embedded {
    /// Of the entry at this offset, which there must be.
    pub(super) fn position_of(&self, offset: u64) -> Result<Position, StoreError> {
        let bytes = self.directory().log.get(offset.to_be_bytes()).map_err(read_error)?;
        let entry = bytes.as_deref().and_then(Entry::decode);
        let entry = entry.ok_or_else(|| damaged(format!("log entry {offset} cannot be read")))?;
        Ok(entry::position(entry.ms, offset))
    }
}

#[async_trait]
impl ViewScan for Embedded {
    fn parts(&self, table: ScannedTable) -> Vec<ScanCursor> {
        vec![ScanCursor { table, part: 0, place: None }]
    }

    async fn page(&self, at: &ScanCursor) -> Result<ScanPage, StoreError> {
        let at = at.clone();
        self.blocking(move |store| store.scan(&at)).await
    }
}

impl Embedded {
    fn scan(&self, at: &ScanCursor) -> Result<ScanPage, StoreError> {
        let kind = match at.table {
            ScannedTable::Timeline => keys::TIMELINE,
            ScannedTable::Inbox => keys::INBOX,
            ScannedTable::Users => keys::USERS,
            ScannedTable::Parked => keys::PARKED[0],
        };
        let first = match &at.place {
            Some(place) => Bound::Excluded(place.clone()),
            None => Bound::Included(vec![kind]),
        };
        let range = (first, Bound::Excluded(vec![kind + 1]));
        let (mut rows, mut last) = (Vec::new(), None);
        for (key, bytes) in self.view_rows(range, SCAN_ROWS_PER_PAGE)? {
            let opened = open(at.table, &key, &bytes);
            let broken = || ScannedRow::Broken(format!("the row with the key {}", key.escape_ascii()));
            rows.push(opened.unwrap_or_else(broken));
            last = Some(key.to_vec());
        }
        let is_full = rows.len() == SCAN_ROWS_PER_PAGE;
        let next = last.filter(|_| is_full).map(|key| ScanCursor { place: Some(key), ..at.clone() });
        Ok(ScanPage { rows, next })
    }
}

fn open(table: ScannedTable, key: &[u8], bytes: &[u8]) -> Option<ScannedRow> {
    let (_kind, rest) = key.split_first()?;
    match table {
        ScannedTable::Timeline => {
            let (pair, seq) = rest.split_last_chunk::<8>()?;
            let pair = std::str::from_utf8(pair).ok()?.strip_suffix('\0')?;
            let (conversation, seq) = (pair.parse::<Conversation>().ok()?, u64::from_be_bytes(*seq));
            let entry = timeline::read(&conversation, seq, bytes).ok()?;
            Some(ScannedRow::Timeline { conversation, entry })
        }
        ScannedTable::Inbox => {
            let (owner, peer) = std::str::from_utf8(rest).ok()?.split_once('\0')?;
            let (owner, peer) = (owner.parse::<Username>().ok()?, peer.parse::<Username>().ok()?);
            let row = inbox::read(&owner, peer, bytes).ok()?;
            Some(ScannedRow::Inbox { owner, row, parked_seq: None })
        }
        ScannedTable::Users => {
            let username: Username = std::str::from_utf8(rest).ok()?.parse().ok()?;
            let (_version, registered_at) = users::read(&username, bytes).ok()?;
            Some(ScannedRow::User(shared::view::UserRow { username, registered_at }))
        }
        ScannedTable::Parked => {
            let position = parked::position(key)?;
            let is_settled = parked::read(key, bytes).ok()?.is_none();
            Some(ScannedRow::Parked { position, is_settled })
        }
    }
}
