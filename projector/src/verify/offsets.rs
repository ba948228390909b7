//! Whether the log is whole: its entries are numbered 1, 2, 3, … within a partition. What is not there cannot be
//! compared, so a gap is a difference like any other.

use std::collections::HashMap;

use shared::ports::Delivery;

use super::report::Difference;

/// The last offset of each partition.
#[derive(Default)]
pub(super) struct Offsets(HashMap<u16, u64>);

impl Offsets {
    /// An entry that cannot be read has the offset that it must have.
    pub(super) fn note(&mut self, delivery: &Delivery) -> Option<Difference> {
        let partition = delivery.position.partition;
        let last = self.0.entry(partition).or_default();
        let expected = *last + 1;
        *last = delivery.content.as_ref().map_or(expected, |recorded| recorded.offset);
        let found = *last;
        (found != expected).then(|| {
            let what =
                format!("event {found} at {} stands where event {expected} belongs", delivery.position);
            Difference::Log { partition, what }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::deliveries::{registered, unreadable};

    #[test]
    fn a_gap_is_told_once() {
        let mut offsets = Offsets::default();
        let mut note = |delivery: &Delivery| offsets.note(delivery).map(|found| found.to_string());
        assert_eq!(note(&registered("samer", 1)), None);
        assert_eq!(note(&unreadable("lena", "samer", 1, 2)), None, "nobody knows what it says");
        assert_eq!(note(&registered("lena", 3)), None);
        let gap = "log partition 0: event 6 at 0/6-0 stands where event 4 belongs";
        assert_eq!(note(&registered("omar", 6)).as_deref(), Some(gap));
        assert_eq!(note(&registered("nour", 7)), None);
    }
}
