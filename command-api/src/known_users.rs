//! Names that are known to be registered. Nobody is ever unregistered, so a name seen once is never asked for
//! again; a name that was not found is, every time.

use std::sync::Arc;

use quick_cache::sync::Cache;
use shared::Username;
use shared::limits::KNOWN_USERS_MAX;
use shared::ports::{Accounts, StoreError};

#[derive(Clone)]
pub struct KnownUsers(Arc<Cache<Username, ()>>);

impl Default for KnownUsers {
    fn default() -> Self {
        Self(Arc::new(Cache::new(KNOWN_USERS_MAX)))
    }
}

impl KnownUsers {
    /// # Errors
    /// The store's, when the name has to be asked for.
    pub async fn is_registered(&self, user: &Username, accounts: &dyn Accounts) -> Result<bool, StoreError> {
        if self.0.get(user).is_some() {
            return Ok(true);
        }
        let registered = accounts.exists(user).await?;
        if registered {
            self.0.insert(user.clone(), ());
        }
        Ok(registered)
    }
}
