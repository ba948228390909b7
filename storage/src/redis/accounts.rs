//! Users, sessions and heads, beside the log. Users and heads are written by the append script and only read
//! here; sessions live here. Each hot path is one round trip of plain commands.
//!
//! A session is a string that ends by itself. The index of a user's sessions serves the bound on their number
//! and "log out everywhere"; it is written before the session, so that no session is ever missing from it.
//! Time is Redis' own.

use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;
use shared::Seq;
use shared::ids::{Conversation, Subject, Username};
use shared::limits::{SESSION_LIFETIME, SESSION_RENEWAL_AFTER, SESSIONS_PER_USER_MAX};
use shared::ports::{self, Chain, SessionKey, StoreError};
use tokio::sync::watch;

use super::STORE;
use super::keys::{self, Keys};
use super::link::Link;
use super::server::Server;

const LIFETIME_MS: i64 = SESSION_LIFETIME.as_millis() as i64;
/// A session with less life left than this is renewed.
const RENEWAL_BELOW_MS: i64 = LIFETIME_MS - SESSION_RENEWAL_AFTER.as_millis() as i64;

/// KEYS: index. ARGV: digest, lifetime in ms, how many at most. Answers the digests that have to go. Scores are
/// µs, and rise even when the clock is set back: the newest is never taken for the oldest.
const REGISTER_SESSION: &str = "#!lua
local index, digest, lifetime, most = KEYS[1], ARGV[1], ARGV[2], ARGV[3]
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local newest = redis.call('ZREVRANGE', index, 0, 0, 'WITHSCORES')[2]
if newest and tonumber(newest) >= now then now = newest + 1 end
redis.call('ZREMRANGEBYSCORE', index, '-inf', string.format('%.0f', now - lifetime * 1000))
redis.call('ZADD', index, string.format('%.0f', now), digest)
redis.call('PEXPIRE', index, lifetime)
local over = redis.call('ZCARD', index) - most
if over <= 0 then return {} end
return redis.call('ZRANGE', index, 0, over - 1)
";

/// KEYS: users. ARGV: name, the hash that stands there, the one that is to.
const REPLACE_HASH: &str = "#!lua
if redis.call('HGET', KEYS[1], ARGV[1]) ~= ARGV[2] then return 0 end
return redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
";

/// KEYS: index. ARGV: digest, lifetime in ms. Leaves out what was closed in the meantime.
const RENEW_IN_INDEX: &str = "#!lua
local time = redis.call('TIME')
redis.call('ZADD', KEYS[1], 'XX', string.format('%.0f', time[1] * 1000000 + time[2]), ARGV[1])
return redis.call('PEXPIRE', KEYS[1], ARGV[2])
";

/// On the shared connection.
#[derive(Clone)]
pub struct Accounts {
    pub(super) server: Arc<Server>,
    pub(super) link: Link,
    /// Partitions.
    pub(super) lost: watch::Receiver<BTreeSet<u16>>,
}

impl Accounts {
    /// Does not say how far conversations in these partitions are, as if the log were away: views have seen more of
    /// them, and maybe something else.
    #[must_use]
    pub fn silent_about(self, lost: watch::Receiver<BTreeSet<u16>>) -> Self {
        Self { lost, ..self }
    }
}

#[async_trait]
impl ports::Accounts for Accounts {
    async fn password_hash(&self, user: &Username) -> Result<Option<String>, StoreError> {
        let mut read = redis::pipe();
        read.cmd("HGET").arg(self.users(user)).arg(user.as_str());
        let (hash,) = self.link.read(&read).await?;
        Ok(hash)
    }

    async fn exists(&self, user: &Username) -> Result<bool, StoreError> {
        let mut read = redis::pipe();
        read.cmd("HEXISTS").arg(self.users(user)).arg(user.as_str());
        let (exists,) = self.link.read(&read).await?;
        Ok(exists)
    }

    async fn replace_password_hash(&self, user: &Username, old: &str, new: &str) -> Result<(), StoreError> {
        let mut replace = redis::pipe();
        replace.cmd("EVAL").arg(REPLACE_HASH).arg(1).arg(self.users(user));
        replace.arg(user.as_str()).arg(old).arg(new).ignore();
        self.link.write(&replace).await
    }

    async fn open_session(&self, user: &Username, key: &SessionKey) -> Result<(), StoreError> {
        let mut open = redis::pipe();
        open.cmd("EVAL").arg(REGISTER_SESSION).arg(1).arg(self.keys().sessions(user));
        open.arg(keys::digest(key)).arg(LIFETIME_MS).arg(SESSIONS_PER_USER_MAX);
        open.cmd("SET").arg(self.keys().session(key)).arg(user.as_str()).arg("PX").arg(LIFETIME_MS).ignore();
        let (too_many,): (Vec<String>,) = self.link.write(&open).await?;
        self.end(user, &too_many).await
    }

    async fn close_session(&self, key: &SessionKey) -> Result<(), StoreError> {
        let mut close = redis::pipe();
        close.cmd("GETDEL").arg(self.keys().session(key));
        let (user,): (Option<String>,) = self.link.write(&close).await?;
        if let Some(user) = user {
            let mut forget = redis::pipe();
            forget
                .cmd("ZREM")
                .arg(self.keys().sessions(&stored_name(&user)?))
                .arg(keys::digest(key))
                .ignore();
            // The session is gone either way; what stays in the index is dropped when it is old.
            if let Err(error) = self.link.write::<()>(&forget).await {
                tracing::warn!(error = %Chain(&error), %user, "an ended session stays in the index for a while");
            }
        }
        Ok(())
    }

    async fn close_all_sessions(&self, user: &Username) -> Result<(), StoreError> {
        let mut read = redis::pipe();
        read.cmd("ZRANGE").arg(self.keys().sessions(user)).arg(0).arg(-1);
        let (open,): (Vec<String>,) = self.link.read(&read).await?;
        self.end(user, &open).await
    }
}

#[async_trait]
impl ports::Sessions for Accounts {
    async fn find(&self, key: &SessionKey) -> Result<Option<Username>, StoreError> {
        let session = self.keys().session(key);
        let mut read = redis::pipe();
        read.cmd("GET").arg(&session).cmd("PTTL").arg(&session);
        // Behind it: a log that takes the place of another one has named itself before anybody logs in.
        self.server.ask_epoch(&mut read);
        let (user, left, epoch): (Option<String>, i64, Option<String>) = self.link.read(&read).await?;
        self.server.right.check_again(epoch).inspect_err(|_| self.link.doubt())?;
        let Some(user) = user else { return Ok(None) };
        let user = stored_name(&user)?;
        if (0..RENEWAL_BELOW_MS).contains(&left) {
            // The session is good either way; the next use tries again.
            if let Err(error) = self.renew(&user, key).await {
                tracing::warn!(error = %Chain(&error), %user, "a session was not renewed");
            }
        }
        Ok(Some(user))
    }
}

#[async_trait]
impl ports::Heads for Accounts {
    async fn head(&self, conversation: &Conversation) -> Result<Seq, StoreError> {
        let subject = Subject::Conversation(conversation.clone());
        let partition = self.whole_partition_of(&subject)?;
        let mut read = redis::pipe();
        read.cmd("HGET").arg(self.keys().heads(partition)).arg(subject.to_string());
        let (head,): (Option<Seq>,) = self.link.read(&read).await?;
        Ok(head.unwrap_or(0))
    }

    fn answers(&self, conversation: &Conversation) -> Result<(), StoreError> {
        self.whole_partition_of(&Subject::Conversation(conversation.clone()))?;
        self.link.check()
    }
}

impl Accounts {
    /// As far as is known it has lost nothing of what the views have.
    fn whole_partition_of(&self, subject: &Subject) -> Result<u16, StoreError> {
        self.server.right.check_views()?;
        let partition = self.keys().partition_of(subject);
        if self.lost.borrow().contains(&partition) {
            return Err(StoreError::unavailable(STORE, "the partition has lost events"));
        }
        Ok(partition)
    }

    fn keys(&self) -> &Keys {
        &self.server.keys
    }

    fn users(&self, user: &Username) -> String {
        self.keys().users(self.keys().partition_of(&Subject::User(user.clone())))
    }

    /// The index first: an entry that it drops as too old must have no session any more.
    async fn renew(&self, user: &Username, key: &SessionKey) -> Result<(), StoreError> {
        let mut index = redis::pipe();
        index.cmd("EVAL").arg(RENEW_IN_INDEX).arg(1).arg(self.keys().sessions(user));
        index.arg(keys::digest(key)).arg(LIFETIME_MS).ignore();
        self.link.write::<()>(&index).await?;
        let mut session = redis::pipe();
        session.cmd("PEXPIRE").arg(self.keys().session(key)).arg(LIFETIME_MS).ignore();
        self.link.write(&session).await
    }

    /// The sessions first: should this be cut short, the index still knows them.
    async fn end(&self, user: &Username, digests: &[String]) -> Result<(), StoreError> {
        if digests.is_empty() {
            return Ok(());
        }
        let mut end = redis::pipe();
        for digest in digests {
            let key = keys::session_key(digest).ok_or_else(|| damaged("a session's digest", digest))?;
            end.cmd("DEL").arg(self.keys().session(&key)).ignore();
        }
        end.cmd("ZREM").arg(self.keys().sessions(user)).arg(digests).ignore();
        self.link.write(&end).await
    }
}

fn stored_name(text: &str) -> Result<Username, StoreError> {
    text.parse().map_err(|_| damaged("a user's name", text))
}

fn damaged(what: &str, text: &str) -> StoreError {
    StoreError::Damaged { store: STORE, what: format!("{text:?} is stored where {what} belongs") }
}
