//! Rows of inboxes that the tables do not have yet (write-behind). Each message replaces two of them, so they are kept
//! here, where everybody reads them, and only the last of each is written, now and then, together with the cursor.
//!
//! So the cursor in the tables never claims more than they hold; rows of the other views may be ahead of it. A crash takes
//! what is here, and the feed gives the events since that cursor again, which changes nothing where they were applied.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Instant;

use fjall::Slice;
use shared::limits::{INBOXES_UNWRITTEN_BYTES_MAX, INBOXES_UNWRITTEN_FOR_MAX, INBOXES_UNWRITTEN_ROWS_MAX};

#[derive(Default)]
pub(super) struct Unwritten(RwLock<Held>);

#[derive(Default)]
struct Held {
    rows: BTreeMap<Vec<u8>, Slice>,
    /// Of keys and values.
    bytes: usize,
    /// When the first came of what the tables do not have: a row, or a cursor that has moved on.
    since: Option<Instant>,
}

impl Unwritten {
    pub(super) fn get(&self, key: &[u8]) -> Option<Slice> {
        self.held().rows.get(key).cloned()
    }

    /// The first rows of a range, at most so many.
    pub(super) fn range(
        &self,
        range: &(Bound<Vec<u8>>, Bound<Vec<u8>>),
        rows_max: usize,
    ) -> Vec<(Vec<u8>, Slice)> {
        let held = self.held();
        let rows = held.rows.range(range.clone()).take(rows_max);
        rows.map(|(key, value)| (key.clone(), value.clone())).collect()
    }

    /// What a batch put, which may be nothing but its cursor.
    pub(super) fn put(&self, rows: impl Iterator<Item = (Vec<u8>, Slice)>, now: Instant) {
        let mut held = self.change();
        for (key, value) in rows {
            held.bytes += key.len() + value.len();
            let length = key.len();
            if let Some(replaced) = held.rows.insert(key, value) {
                held.bytes -= length + replaced.len();
            }
        }
        held.since.get_or_insert(now);
    }

    /// Whether the tables lack something.
    pub(super) fn is_any(&self) -> bool {
        self.held().since.is_some()
    }

    /// Whether it is time to write them.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        let held = self.held();
        let is_old = |since| now.saturating_duration_since(since) >= INBOXES_UNWRITTEN_FOR_MAX;
        held.rows.len() >= INBOXES_UNWRITTEN_ROWS_MAX
            || held.bytes >= INBOXES_UNWRITTEN_BYTES_MAX
            || held.since.is_some_and(is_old)
    }

    pub(super) fn rows(&self) -> Vec<(Vec<u8>, Slice)> {
        self.range(&(Bound::Unbounded, Bound::Unbounded), usize::MAX)
    }

    /// Once the tables have all of it.
    pub(super) fn clear(&self) {
        // Given up without the lock, for which readers may wait.
        drop(std::mem::take(&mut *self.change()));
    }

    fn held(&self) -> RwLockReadGuard<'_, Held> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self) -> RwLockWriteGuard<'_, Held> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(key: u8, bytes: usize) -> (Vec<u8>, Slice) {
        (vec![key], vec![key; bytes - 1].into())
    }

    #[test]
    fn is_due_once_it_is_old_or_large() {
        let (unwritten, now) = (Unwritten::default(), Instant::now());
        assert!(!unwritten.is_any());
        assert!(!unwritten.is_due(now + 2 * INBOXES_UNWRITTEN_FOR_MAX));

        unwritten.put(std::iter::empty(), now);
        assert!(unwritten.is_any(), "its cursor has moved on");
        assert!(!unwritten.is_due(now));
        unwritten.put([row(1, 10)].into_iter(), now + INBOXES_UNWRITTEN_FOR_MAX / 2);
        assert!(unwritten.is_due(now + INBOXES_UNWRITTEN_FOR_MAX), "since the first");

        let half = INBOXES_UNWRITTEN_BYTES_MAX / 2;
        for replaced in [half, half - 1] {
            unwritten.put([row(1, replaced), row(2, half)].into_iter(), now);
        }
        assert!(!unwritten.is_due(now), "what was replaced does not count");
        unwritten.put([row(3, 1)].into_iter(), now);
        assert!(unwritten.is_due(now));
        assert_eq!(unwritten.rows().len(), 3);
        unwritten.clear();
        assert!(!unwritten.is_any() && !unwritten.is_due(now + 2 * INBOXES_UNWRITTEN_FOR_MAX));

        let rows = (1..INBOXES_UNWRITTEN_ROWS_MAX).map(|row| (row.to_be_bytes().to_vec(), Slice::from([0])));
        unwritten.put(rows, now);
        assert!(!unwritten.is_due(now));
        unwritten.put([row(0, 1)].into_iter(), now);
        assert!(unwritten.is_due(now));
    }
}
