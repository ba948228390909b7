//! Reads and writes of one keyspace as if the writes were there already: what a group of commands or a batch
//! of changes works on, until all of it goes into one commit.

use std::collections::BTreeMap;

use fjall::{Keyspace, OwnedWriteBatch, Slice};
use shared::ports::StoreError;

use super::read_error;

pub(super) struct Rows<'a> {
    keyspace: &'a Keyspace,
    staged: Staged,
}

/// Rows that are not written yet.
#[derive(Default)]
pub(super) struct Staged {
    /// `None`: removed.
    rows: BTreeMap<Vec<u8>, Option<Slice>>,
    /// Of keys and values.
    bytes: usize,
}

impl Staged {
    fn stage(&mut self, key: Vec<u8>, value: Option<Slice>) {
        let key_bytes = key.len();
        let bytes = |value: &Option<Slice>| key_bytes + value.as_ref().map_or(0, |value| value.len());
        self.bytes += bytes(&value);
        self.bytes -= self.rows.insert(key, value).as_ref().map_or(0, bytes);
    }
}

impl<'a> Rows<'a> {
    pub(super) fn of(keyspace: &'a Keyspace) -> Self {
        Self::behind(keyspace, Staged::default())
    }

    /// With those that others have staged.
    pub(super) fn behind(keyspace: &'a Keyspace, staged: Staged) -> Self {
        Self { keyspace, staged }
    }

    pub(super) fn get(&self, key: &[u8]) -> Result<Option<Slice>, StoreError> {
        match self.staged.rows.get(key) {
            Some(staged) => Ok(staged.clone()),
            None => self.keyspace.get(key).map_err(read_error),
        }
    }

    pub(super) fn put(&mut self, key: Vec<u8>, value: Vec<u8>) {
        self.staged.stage(key, Some(value.into()));
    }

    pub(super) fn remove(&mut self, key: Vec<u8>) {
        self.staged.stage(key, None);
    }

    pub(super) fn len(&self) -> usize {
        self.staged.rows.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.staged.bytes
    }

    pub(super) fn into_staged(self) -> Staged {
        self.staged
    }

    pub(super) fn stage(self, batch: &mut OwnedWriteBatch) {
        for (key, value) in self.staged.rows {
            match value {
                Some(value) => batch.insert(self.keyspace, key, value),
                None => batch.remove(self.keyspace, key),
            }
        }
    }
}
