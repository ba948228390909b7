//! Sessions seen a moment ago are believed without asking the store again: a request costs no round trip for its
//! token. The price is that a session that ended elsewhere lives on here for [`SESSION_BELIEVED_MAX`].

use std::sync::Arc;

use async_trait::async_trait;
use quick_cache::sync::Cache;
use tokio::time::Instant;

use crate::ids::Username;
use crate::limits::{SESSION_BELIEVED_MAX, SESSIONS_BELIEVED_MAX};
use crate::ports::{SessionKey, Sessions, StoreError};

/// Any [`Sessions`], asked at most once per session and [`SESSION_BELIEVED_MAX`]. What ends through
/// [`RecentSessions::forget`] ends here at once. Sessions that were not found are not remembered.
pub struct RecentSessions {
    store: Arc<dyn Sessions>,
    seen: Cache<SessionKey, Seen>,
}

#[derive(Clone)]
struct Seen {
    user: Username,
    at: Instant,
}

impl RecentSessions {
    #[must_use]
    pub fn new(store: Arc<dyn Sessions>) -> Self {
        Self { store, seen: Cache::new(SESSIONS_BELIEVED_MAX) }
    }

    /// A session that was ended by this process.
    pub fn forget(&self, key: &SessionKey) {
        self.seen.remove(key);
    }

    /// All sessions of a user, ended by this process.
    pub fn forget_all(&self, user: &Username) {
        self.seen.retain(|_, seen| seen.user != *user);
    }
}

#[async_trait]
impl Sessions for RecentSessions {
    async fn find(&self, key: &SessionKey) -> Result<Option<Username>, StoreError> {
        if let Some(seen) = self.seen.get(key).filter(|seen| seen.at.elapsed() < SESSION_BELIEVED_MAX) {
            return Ok(Some(seen.user));
        }
        // Before the question: an answer is as old as its question.
        let at = Instant::now();
        let found = self.store.find(key).await?;
        match &found {
            Some(user) => self.seen.insert(*key, Seen { user: user.clone(), at }),
            None => drop(self.seen.remove(key)),
        }
        Ok(found)
    }
}
