//! Rows that end at a time: idempotency records and sessions. Who reads one compares its time, so an expired
//! row is never used; this file only gives its space back, a bounded step at a time.
//!
//! For each such row there is an index row under its time. A row that was renewed has several; only the last
//! one still says what the row says. Every row that expires begins with a version byte and its expiry.

use fjall::{Keyspace, Slice};
use shared::clock::Timestamp;
use shared::limits::EXPIRED_PER_GROUP_MAX;
use shared::ports::StoreError;

use super::rows::Rows;
use super::{damaged, encoding, keys, read_error};

/// Where pruning stands.
pub(super) struct Expiry {
    /// Nothing in the index expires before. Looking from here, not from its beginning, passes over what was
    /// deleted and not compacted yet.
    next: Timestamp,
}

impl Default for Expiry {
    /// Knows nothing yet.
    fn default() -> Self {
        Self { next: Timestamp(0) }
    }
}

/// A row that is over, with its key.
pub(super) struct Expired {
    pub(super) key: Vec<u8>,
    pub(super) row: Slice,
}

impl Expiry {
    /// The row under `key` ends at `expires`.
    pub(super) fn note(&mut self, rows: &mut Rows<'_>, expires: Timestamp, key: &[u8]) {
        self.next = self.next.min(expires);
        rows.put(keys::expiry(expires, key), Vec::new());
    }

    /// Until the next start.
    pub(super) fn stop(&mut self) {
        self.next = Timestamp(u64::MAX);
    }

    /// Takes at most [`EXPIRED_PER_GROUP_MAX`] rows out of the index and returns those that are over; removing
    /// them is the caller's, as they may have more to them.
    pub(super) fn take(
        &mut self,
        rows: &mut Rows<'_>,
        state: &Keyspace,
        now: Timestamp,
    ) -> Result<Vec<Expired>, StoreError> {
        let mut expired = Vec::new();
        if now < self.next {
            return Ok(expired);
        }
        let mut index = state.range(keys::expiry(self.next, &[])..keys::expiry(Timestamp(u64::MAX), &[]));
        for _ in 0..EXPIRED_PER_GROUP_MAX {
            let Some(entry) = index.next() else {
                // What this group has noted is not in the index yet, and was not over when it was noted.
                self.next = Timestamp(now.0.saturating_add(1));
                return Ok(expired);
            };
            let entry = entry.key().map_err(read_error)?;
            let (at, key) = keys::expiring(&entry).ok_or_else(unreadable)?;
            self.next = at;
            if now < at {
                break;
            }
            if let Some(row) = rows.get(key)?
                && expiry_of(&row).ok_or_else(unreadable)? <= now
            {
                expired.push(Expired { key: key.to_vec(), row });
            }
            rows.remove(entry.to_vec());
        }
        Ok(expired)
    }
}

fn expiry_of(row: &[u8]) -> Option<Timestamp> {
    encoding::number(row.get(1..9)?).map(Timestamp)
}

fn unreadable() -> StoreError {
    damaged("the index of what expires cannot be read".to_owned())
}
