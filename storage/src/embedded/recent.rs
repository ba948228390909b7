//! What rows that were written of late say, by key, so that the next write of one needs no read of it.

use std::collections::HashMap;

use shared::limits::RECENT_ROWS_MAX;

pub(super) struct Recent<T>(HashMap<Vec<u8>, T>);

impl<T> Default for Recent<T> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<T> Recent<T> {
    pub(super) fn get(&self, key: &[u8]) -> Option<&T> {
        self.0.get(key)
    }

    pub(super) fn note(&mut self, key: &[u8], said: T) {
        if let Some(noted) = self.0.get_mut(key) {
            *noted = said;
            return;
        }
        if self.0.len() >= RECENT_ROWS_MAX {
            self.0.clear();
        }
        self.0.insert(key.to_vec(), said);
    }
}
