//! Whether the entries of a partition are of one piece, by the numbers that they carry.

use shared::ports::{Delivery, HotLog, LogEntry, StoreError};

/// Whether entries are numbered 1, 2, 3, …
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Numbers {
    /// Of the last entry that could be read; `None`: of none yet, and anything may follow.
    last: Option<u64>,
    /// Entries since then that could not be read.
    unreadable: u64,
}

impl Numbers {
    /// Before the first entry that ever was.
    pub(crate) const BEGINNING: Self = Self { last: Some(0), unreadable: 0 };

    /// Somewhere in the log.
    pub(super) const UNKNOWN: Self = Self { last: None, unreadable: 0 };

    /// As [`Numbers::note`], one after the other.
    pub(super) fn note_all(&mut self, log: &dyn HotLog, entries: &[LogEntry]) -> Result<(), StoreError> {
        for entry in entries {
            if entry.may_hold_event() {
                self.note(&log.read(entry.clone()))?;
            } else {
                self.unreadable += 1;
            }
        }
        Ok(())
    }

    /// An entry that cannot be read takes a number, or is one that somebody put there by hand.
    pub(crate) fn note(&mut self, delivery: &Delivery) -> Result<(), StoreError> {
        let Ok(recorded) = &delivery.content else {
            self.unreadable += 1;
            return Ok(());
        };
        let found = recorded.offset;
        if let Some(last) = self.last
            && !(last + 1..=last + 1 + self.unreadable).contains(&found)
        {
            let expected = last + 1 + self.unreadable;
            let what =
                format!("event {found} at {} stands where event {expected} belongs", recorded.position);
            return Err(damaged(recorded.position.partition, &what));
        }
        *self = Self { last: Some(found), unreadable: 0 };
        Ok(())
    }

    /// Of the last entry, at most: one that cannot be read may be one that somebody put there by hand.
    pub(crate) fn last(&self) -> u64 {
        self.last.unwrap_or(0) + self.unreadable
    }
}

pub(crate) fn damaged(partition: u16, what: &str) -> StoreError {
    StoreError::Damaged { store: "the log or its archive", what: format!("partition {partition}: {what}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::deliveries::{registered, unreadable};

    #[test]
    fn a_gap_or_another_log_is_told() {
        let says = |numbers: Numbers, entries: &[Option<u64>]| {
            let mut numbers = numbers;
            let note = |entry: &Option<u64>| match entry {
                Some(offset) => numbers.note(&registered("samer", *offset)),
                None => numbers.note(&unreadable("lena", "samer", 1, 2)),
            };
            entries.iter().try_for_each(note).is_ok()
        };
        let (first, unknown) = (Numbers::BEGINNING, Numbers::UNKNOWN);
        assert!(says(first, &[Some(1), Some(2), None, Some(4)]));
        assert!(says(first, &[None, Some(2), None, None, Some(4)]), "one of them was put there by hand");
        assert!(!says(first, &[Some(2)]) && !says(first, &[Some(1), Some(3)]));
        assert!(!says(first, &[Some(1), Some(2), Some(1)]), "another log");
        assert!(says(unknown, &[None, Some(900), Some(901)]) && !says(unknown, &[Some(900), Some(1)]));
    }
}
