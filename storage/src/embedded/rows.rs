//! Reads and writes of one keyspace as if the writes were there already: what a group of commands or a batch
//! of changes works on, until it goes into one commit.

use std::collections::BTreeMap;

use fjall::{Keyspace, OwnedWriteBatch, Slice};
use shared::ports::StoreError;

use super::read_error;
use super::unwritten::Unwritten;

pub(super) struct Rows<'a> {
    keyspace: &'a Keyspace,
    /// Those of the keyspace that are newer than what stands there.
    unwritten: Option<&'a Unwritten>,
    /// `None`: removed.
    staged: BTreeMap<Vec<u8>, Option<Slice>>,
}

impl<'a> Rows<'a> {
    pub(super) fn of(keyspace: &'a Keyspace) -> Self {
        Self { keyspace, unwritten: None, staged: BTreeMap::new() }
    }

    pub(super) fn under(keyspace: &'a Keyspace, unwritten: &'a Unwritten) -> Self {
        Self { unwritten: Some(unwritten), ..Self::of(keyspace) }
    }

    pub(super) fn get(&self, key: &[u8]) -> Result<Option<Slice>, StoreError> {
        if let Some(staged) = self.staged.get(key) {
            return Ok(staged.clone());
        }
        match self.unwritten.and_then(|unwritten| unwritten.get(key)) {
            Some(value) => Ok(Some(value)),
            None => self.keyspace.get(key).map_err(read_error),
        }
    }

    pub(super) fn put(&mut self, key: Vec<u8>, value: impl Into<Slice>) {
        self.staged.insert(key, Some(value.into()));
    }

    pub(super) fn remove(&mut self, key: Vec<u8>) {
        self.staged.insert(key, None);
    }

    pub(super) fn len(&self) -> usize {
        self.staged.len()
    }

    /// Of what was put, the rows with this kind of key: they are no longer among what is staged.
    pub(super) fn take(&mut self, kind: u8) -> impl Iterator<Item = (Vec<u8>, Slice)> + use<> {
        let mut taken = self.staged.split_off([kind].as_slice());
        self.staged.append(&mut taken.split_off([kind + 1].as_slice()));
        taken.into_iter().filter_map(|(key, value)| value.map(|value| (key, value)))
    }

    pub(super) fn stage(self, batch: &mut OwnedWriteBatch) {
        for (key, value) in self.staged {
            match value {
                Some(value) => batch.insert(self.keyspace, key, value),
                None => batch.remove(self.keyspace, key),
            }
        }
    }
}
