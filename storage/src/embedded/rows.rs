//! Reads and writes of one keyspace as if the writes were there already: what a group of commands or a batch
//! of changes works on, until all of it goes into one commit.

use std::collections::BTreeMap;

use fjall::{Keyspace, OwnedWriteBatch, Slice};
use shared::ports::StoreError;

use super::read_error;

pub(super) struct Rows<'a> {
    keyspace: &'a Keyspace,
    /// `None`: removed.
    staged: BTreeMap<Vec<u8>, Option<Slice>>,
}

impl<'a> Rows<'a> {
    pub(super) fn of(keyspace: &'a Keyspace) -> Self {
        Self { keyspace, staged: BTreeMap::new() }
    }

    pub(super) fn get(&self, key: &[u8]) -> Result<Option<Slice>, StoreError> {
        match self.staged.get(key) {
            Some(staged) => Ok(staged.clone()),
            None => self.keyspace.get(key).map_err(read_error),
        }
    }

    pub(super) fn put(&mut self, key: Vec<u8>, value: Vec<u8>) {
        self.staged.insert(key, Some(value.into()));
    }

    pub(super) fn remove(&mut self, key: Vec<u8>) {
        self.staged.insert(key, None);
    }

    pub(super) fn len(&self) -> usize {
        self.staged.len()
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
