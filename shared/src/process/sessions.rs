//! Sessions seen a moment ago are believed without asking the store again: a request costs no round trip for its
//! token. The price is that a session that ended elsewhere lives on here for [`SESSION_BELIEVED_MAX`]; while the store
//! cannot be asked, for [`SESSION_BELIEVED_WHILE_AWAY_MAX`] where it is told so.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use quick_cache::sync::Cache;
use tokio::time::Instant;

use crate::ids::Username;
use crate::limits::{SESSION_BELIEVED_MAX, SESSION_BELIEVED_WHILE_AWAY_MAX, SESSIONS_BELIEVED_MAX};
use crate::ports::{SessionKey, Sessions, StoreError};

/// Any [`Sessions`], asked at most once per session and [`SESSION_BELIEVED_MAX`]. What ends through
/// [`RecentSessions::forget`] ends here at once. Sessions that were not found are not remembered.
pub struct RecentSessions {
    store: Arc<dyn Sessions>,
    seen: Cache<SessionKey, Seen>,
    /// Instead of an answer that the store cannot give.
    believed_while_away: Duration,
}

#[derive(Clone)]
struct Seen {
    user: Username,
    at: Instant,
}

impl RecentSessions {
    #[must_use]
    pub fn new(store: Arc<dyn Sessions>) -> Self {
        Self { store, seen: Cache::new(SESSIONS_BELIEVED_MAX), believed_while_away: Duration::ZERO }
    }

    /// For reads, which go on without the store.
    #[must_use]
    pub fn outlasting_the_store(self) -> Self {
        Self { believed_while_away: SESSION_BELIEVED_WHILE_AWAY_MAX, ..self }
    }

    /// As [`Sessions::find`], but the store is asked in any case.
    ///
    /// # Errors
    /// The store's.
    pub async fn ask(&self, key: &SessionKey) -> Result<Option<Username>, StoreError> {
        // Before the question: an answer is as old as its question.
        let at = Instant::now();
        let found = self.store.find(key).await?;
        match &found {
            Some(user) => self.seen.insert(*key, Seen { user: user.clone(), at }),
            None => drop(self.seen.remove(key)),
        }
        Ok(found)
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
        let seen = self.seen.get(key);
        let within = |most| move |seen: &Seen| seen.at.elapsed() < most;
        if let Some(seen) = seen.clone().filter(within(SESSION_BELIEVED_MAX)) {
            return Ok(Some(seen.user));
        }
        match self.ask(key).await {
            Err(error) if error.is_retryable() => {
                let seen = seen.filter(within(self.believed_while_away));
                seen.map(|seen| Some(seen.user)).ok_or(error)
            }
            answer => answer,
        }
    }
}
