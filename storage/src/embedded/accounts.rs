//! The ports `Accounts` and `Sessions`. Sessions change on the writer thread, with an fsync as for events: a
//! login or logout that was answered survives a power cut, too. Both are rare, and cost no fsync of their own
//! while events are appended. Users are registered by the log.

use async_trait::async_trait;
use fjall::Keyspace;
use shared::clock::Timestamp;
use shared::ids::Username;
use shared::limits::{SESSION_LIFETIME, SESSION_RENEWAL_AFTER, SESSIONS_PER_USER_MAX};
use shared::ports::{Accounts, SessionKey, Sessions, StoreError};

use super::encoding::{Decoder, Encoder};
use super::writer::{AccountCommand, Command, Group};
use super::{Embedded, damaged, keys, read_error};

#[async_trait]
impl Accounts for Embedded {
    async fn password_hash(&self, user: &Username) -> Result<Option<String>, StoreError> {
        let Some(hash) = self.directory().state.get(keys::user(user)).map_err(read_error)? else {
            return Ok(None);
        };
        let hash = String::from_utf8(hash.to_vec());
        hash.map(Some).map_err(|_| damaged(format!("the password hash of {user} cannot be read")))
    }

    async fn exists(&self, user: &Username) -> Result<bool, StoreError> {
        self.directory().state.contains_key(keys::user(user)).map_err(read_error)
    }

    async fn replace_password_hash(&self, user: &Username, old: &str, new: &str) -> Result<(), StoreError> {
        let (old, new) = (old.to_owned(), new.to_owned());
        self.change(AccountCommand::ReplaceHash { user: user.clone(), old, new }).await
    }

    async fn open_session(&self, user: &Username, key: &SessionKey) -> Result<(), StoreError> {
        self.change(AccountCommand::Open(user.clone(), *key)).await
    }

    async fn close_session(&self, key: &SessionKey) -> Result<(), StoreError> {
        self.change(AccountCommand::Close(*key)).await
    }

    async fn close_all_sessions(&self, user: &Username) -> Result<(), StoreError> {
        self.change(AccountCommand::CloseAll(user.clone())).await
    }
}

#[async_trait]
impl Sessions for Embedded {
    async fn find(&self, key: &SessionKey) -> Result<Option<Username>, StoreError> {
        let now = self.now();
        let row = self.directory().state.get(keys::session(key)).map_err(read_error)?;
        let Some(session) = row.map(|row| Session::decode(&row)).transpose()?.filter(|s| now < s.expires)
        else {
            return Ok(None);
        };
        if session.is_due(now) {
            // It is valid now. If it cannot be renewed, the next use tries again.
            let _ = self.change(AccountCommand::Renew(*key)).await;
        }
        Ok(Some(session.user))
    }
}

impl Embedded {
    async fn change(&self, command: AccountCommand) -> Result<(), StoreError> {
        self.ask(|answer| Command::Account(command, answer)).await?
    }
}

pub(super) fn decide(group: &mut Group<'_>, command: AccountCommand) -> Result<(), StoreError> {
    match command {
        AccountCommand::ReplaceHash { user, old, new } => {
            let key = keys::user(&user);
            if group.rows.get(&key)?.is_some_and(|stored| *stored == *old.as_bytes()) {
                group.rows.put(key, new.into_bytes());
            }
            Ok(())
        }
        AccountCommand::Open(user, key) => open(group, user, key),
        AccountCommand::Renew(key) => match find(group, &key)? {
            Some(session) if session.is_due(group.now) => {
                Session::lasting(group.now, session.user).put(group, &key);
                Ok(())
            }
            Some(_) | None => Ok(()),
        },
        AccountCommand::Close(key) => match find(group, &key)? {
            Some(session) => {
                let mut list = List::of(group, &session.user)?;
                list.keys.retain(|listed| *listed != key.0);
                list.put(group);
                group.rows.remove(keys::session(&key));
                Ok(())
            }
            None => Ok(()),
        },
        AccountCommand::CloseAll(user) => {
            let mut list = List::of(group, &user)?;
            for key in list.keys.drain(..) {
                group.rows.remove(keys::session(&SessionKey(key)));
            }
            list.put(group);
            Ok(())
        }
    }
}

fn open(group: &mut Group<'_>, user: Username, key: SessionKey) -> Result<(), StoreError> {
    let mut list = List::of(group, &user)?;
    list.keys.retain(|listed| *listed != key.0);
    if list.keys.len() >= SESSIONS_PER_USER_MAX {
        // What is over and not pruned yet makes room before the oldest that is not.
        let mut open = Vec::with_capacity(list.keys.len());
        for listed in list.keys {
            if find(group, &SessionKey(listed))?.is_some() {
                open.push(listed);
            }
        }
        let ended = (open.len() + 1).saturating_sub(SESSIONS_PER_USER_MAX);
        for oldest in open.drain(..ended) {
            group.rows.remove(keys::session(&SessionKey(oldest)));
        }
        list.keys = open;
    }
    list.keys.push(key.0);
    list.put(group);
    Session::lasting(group.now, user).put(group, &key);
    Ok(())
}

fn find(group: &Group<'_>, key: &SessionKey) -> Result<Option<Session>, StoreError> {
    let session = group.rows.get(&keys::session(key))?.map(|row| Session::decode(&row)).transpose()?;
    Ok(session.filter(|session| group.now < session.expires))
}

/// Removes rows that are over, of both kinds.
pub(super) fn prune(group: &mut Group<'_>, state: &Keyspace) -> Result<(), StoreError> {
    for expired in group.expiry.take(&mut group.rows, state, group.now)? {
        if let Some((&keys::SESSION, key)) = expired.key.split_first() {
            let mut list = List::of(group, &Session::decode(&expired.row)?.user)?;
            list.keys.retain(|listed| listed != key);
            list.put(group);
        }
        group.rows.remove(expired.key);
    }
    Ok(())
}

const SESSION_VERSION: u8 = 1;

struct Session {
    expires: Timestamp,
    user: Username,
}

impl Session {
    fn lasting(now: Timestamp, user: Username) -> Self {
        Self { expires: now.plus(SESSION_LIFETIME), user }
    }

    fn is_due(&self, now: Timestamp) -> bool {
        self.expires <= now.plus(SESSION_LIFETIME).minus(SESSION_RENEWAL_AFTER)
    }

    fn put(&self, group: &mut Group<'_>, key: &SessionKey) {
        let row = keys::session(key);
        group.expiry.note(&mut group.rows, self.expires, &row);
        let value = Encoder::new(SESSION_VERSION).u64(self.expires.0).bytes(self.user.as_str().as_bytes());
        group.rows.put(row, value.finish());
    }

    fn decode(row: &[u8]) -> Result<Self, StoreError> {
        let decode = || {
            let mut decoder = Decoder::new(SESSION_VERSION, row)?;
            let (expires, user) = (Timestamp(decoder.u64()?), decoder.text()?.parse().ok()?);
            decoder.end()?;
            Some(Self { expires, user })
        };
        decode().ok_or_else(|| damaged("a session cannot be read".to_owned()))
    }
}

/// The sessions of a user, the one opened first at the front.
struct List {
    user: Username,
    keys: Vec<[u8; 32]>,
}

impl List {
    fn of(group: &Group<'_>, user: &Username) -> Result<Self, StoreError> {
        let row = group.rows.get(&keys::sessions(user))?;
        let (keys, rest) = row.as_deref().unwrap_or_default().as_chunks();
        if !rest.is_empty() {
            return Err(damaged(format!("the sessions of {user} cannot be read")));
        }
        Ok(Self { user: user.clone(), keys: keys.to_vec() })
    }

    fn put(self, group: &mut Group<'_>) {
        let row = keys::sessions(&self.user);
        if self.keys.is_empty() {
            group.rows.remove(row);
        } else {
            group.rows.put(row, self.keys.concat());
        }
    }
}
