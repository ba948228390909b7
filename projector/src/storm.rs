//! Guards against parking the world: when more than half of what is read cannot be applied, it is not the events
//! that are wrong but this program or what it reads from. It counts events, not time, so that what it says
//! depends on the log alone.

use std::sync::{Arc, Mutex, PoisonError};

use shared::limits::{STORM_EVENTS, STORM_UNREADABLE_MAX};
use shared::ports::Delivery;

/// Of the consumers of one projector: clones are the same, so that they stop together.
#[derive(Debug, Clone, Default)]
pub struct StormGuard(Arc<Mutex<Recent>>);

/// What was read of late: when [`STORM_EVENTS`] are counted, both numbers are halved.
#[derive(Debug, Default)]
struct Recent {
    read: usize,
    unreadable: usize,
    storm: Option<Storm>,
}

/// More than [`STORM_UNREADABLE_MAX`] events of late, and more than half of all, cannot be applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{unreadable} of the last {read} events read cannot be applied")]
pub struct Storm {
    pub read: usize,
    pub unreadable: usize,
}

impl StormGuard {
    /// Counts a batch that was read; on an error nothing of it may be parked. Once there was a storm there is no end
    /// to it.
    pub(crate) fn admit(&self, batch: &[Delivery]) -> Result<(), Storm> {
        let mut recent = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        recent.read += batch.len();
        recent.unreadable += batch.iter().filter(|delivery| delivery.content.is_err()).count();
        let Recent { read, unreadable, storm } = *recent;
        let begins = unreadable > STORM_UNREADABLE_MAX && unreadable > read / 2;
        recent.storm = storm.or(begins.then_some(Storm { read, unreadable }));
        while recent.read > STORM_EVENTS {
            (recent.read, recent.unreadable) = (recent.read / 2, recent.unreadable / 2);
        }
        recent.storm.map_or(Ok(()), Err)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::deliveries::{sent, unreadable};

    fn batch(good: usize, bad: usize) -> Vec<Delivery> {
        let (one, other) = (sent("samer", "lena", 1, 1), unreadable("samer", "lena", 2, 2));
        [vec![one; good], vec![other; bad]].concat()
    }

    #[test]
    fn few_or_not_the_most_are_no_storm() {
        let admitted = |batches: &[(usize, usize)]| {
            let guard = StormGuard::default();
            batches.iter().all(|(good, bad)| guard.admit(&batch(*good, *bad)).is_ok())
        };
        let max = STORM_UNREADABLE_MAX;
        assert!(admitted(&[(0, max)]), "a few, though they are all");
        assert!(admitted(&[(max + 1, max + 1)]), "many, but half");
        assert!(admitted(&[(STORM_EVENTS, 0), (0, max), (0, max)]), "many at once, after many good ones");
        assert!(admitted(&[(3, 2); 10_000]), "two fifths for ever");
        assert!(!admitted(&[(0, max + 1)]) && !admitted(&[(0, 1); STORM_UNREADABLE_MAX + 1]));
        assert!(!admitted(&[(2, 3); 10_000]), "three fifths for long");
        assert!(
            !admitted(&[[(STORM_EVENTS, 0); 5].as_slice(), &[(0, STORM_EVENTS); 2]].concat()),
            "it turns"
        );
    }

    #[test]
    fn a_storm_says_its_numbers() {
        let guard = StormGuard::default();
        guard.admit(&batch(50, 0)).unwrap();
        let storm = guard.admit(&batch(0, 900)).unwrap_err();
        assert_eq!(storm.to_string(), "900 of the last 950 events read cannot be applied");
    }

    #[test]
    fn all_consumers_of_a_projector_stop() {
        let (one, other) = (StormGuard::default(), StormGuard::default());
        let same = one.clone();
        let storm = one.admit(&batch(0, STORM_UNREADABLE_MAX + 1)).unwrap_err();
        assert_eq!(same.admit(&batch(10 * STORM_EVENTS, 0)), Err(storm), "whatever it reads");
        assert!(other.admit(&batch(1, 0)).is_ok());
    }
}
