//! Which offsets the views hold. In order it is one number; batches that were applied out of order are kept as
//! ranges beyond it until the gap closes.

use std::collections::BTreeMap;

use fjall::Keyspace;
use shared::ports::StoreError;

use super::encoding::{Decoder, Encoder};
use super::{damaged, keys, read_error};

const VERSION: u8 = 1;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Acknowledged {
    /// This offset and all before it.
    up_to: u64,
    /// First to last, neither touching each other nor `up_to`.
    beyond: BTreeMap<u64, u64>,
}

impl Acknowledged {
    pub(super) fn load(views: &Keyspace) -> Result<Self, StoreError> {
        let Some(bytes) = views.get(keys::ACKNOWLEDGED).map_err(read_error)? else {
            return Ok(Self::default());
        };
        Self::decode(&bytes).ok_or_else(|| damaged("the cursor of the views cannot be read".to_owned()))
    }

    pub(super) fn up_to(&self) -> u64 {
        self.up_to
    }

    pub(super) fn highest(&self) -> u64 {
        self.beyond.last_key_value().map_or(self.up_to, |(_, last)| *last)
    }

    pub(super) fn contains(&self, offset: u64) -> bool {
        let before = || self.beyond.range(..=offset).next_back();
        offset <= self.up_to || before().is_some_and(|(_, last)| offset <= *last)
    }

    /// How many of the offsets after `after` it contains.
    pub(super) fn count_after(&self, after: u64) -> u64 {
        let beyond =
            self.beyond.iter().map(|(first, last)| (last + 1).saturating_sub(*first.max(&(after + 1))));
        self.up_to.saturating_sub(after) + beyond.sum::<u64>()
    }

    pub(super) fn insert(&mut self, offset: u64) {
        if self.contains(offset) {
            return;
        }
        let before = self.beyond.range(..offset).next_back().filter(|(_, last)| **last + 1 == offset);
        let first = before.map_or(offset, |(first, _)| *first);
        let last = self.beyond.remove(&(offset + 1)).unwrap_or(offset);
        if first == self.up_to + 1 {
            self.up_to = last;
        } else {
            self.beyond.insert(first, last);
        }
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let up_to = Encoder::new(VERSION).u64(self.up_to);
        self.beyond.iter().fold(up_to, |encoder, (first, last)| encoder.u64(*first).u64(*last)).finish()
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let mut decoder = Decoder::new(VERSION, bytes)?;
        let mut read = Self { up_to: decoder.u64()?, beyond: BTreeMap::new() };
        while let Some(first) = decoder.u64() {
            read.beyond.insert(first, decoder.u64()?);
        }
        decoder.end()?;
        Some(read)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn is_a_set(offsets in proptest::collection::vec(1_u64..40, 0..60)) {
            let (mut read, mut set) = (Acknowledged::default(), BTreeSet::new());
            for offset in offsets {
                read.insert(offset);
                set.insert(offset);
                let decoded = Acknowledged::decode(&read.encode());
                prop_assert_eq!(decoded.as_ref(), Some(&read));
                prop_assert_eq!(read.highest(), *set.last().unwrap());
                let dense = (1..).take_while(|offset| set.contains(offset)).last().unwrap_or(0);
                prop_assert_eq!(read.up_to(), dense);
                for offset in 0..41 {
                    prop_assert_eq!(read.contains(offset), offset == 0 || set.contains(&offset));
                    let after = set.range(offset + 1..).count() as u64;
                    prop_assert_eq!(read.count_after(offset), after);
                }
            }
        }
    }
}
