//! Users and conversations that are there before anything is measured. They are put beside the log directly: a
//! million registrations at 25 ms of hashing each would take longer than everything else. What the services see
//! is the same; the log itself has no events of them, and nothing measured here reads it.

use std::path::Path;

use anyhow::{Context, Result};
use redis::Pipeline;
use shared::event::{Event, UserRegistered};
use shared::ids::{Conversation, Subject};
use shared::limits::{IDEMPOTENCY_WINDOW, PARTITIONS_DEFAULT};
use shared::ports::{Append, EventLog};
use shared::{Clock, Username};
use storage::embedded::{Embedded, Options};

use crate::sends::{Population, name};

/// Of [`crate::sends::PASSWORD`], made with the parameters of command-api: one hash serves all, as hashing a
/// thousand would take half a minute.
const PASSWORD_HASH: &str =
    "$argon2id$v=19$m=19456,t=2,p=1$eiTnPIaz67jV9tuvDXmQaA$2tkSy3v4nhrCAws+YlzGek2nqd3vGnyVTEsh0an8rCE";
/// Fields set by one command, and commands sent at once.
const FIELDS_PER_COMMAND: usize = 500;
const COMMANDS_PER_CALL: usize = 32;

/// Through the port, before a service opens the directory.
pub(crate) async fn fill_directory(dir: &Path, population: Population) -> Result<()> {
    let options = Options { dir: dir.to_owned(), idempotency_window: IDEMPOTENCY_WINDOW };
    let clock = Clock::system();
    let store = Embedded::open(&options, clock.clone()).context("making the directory")?;
    for user in 0..population.users {
        let event = UserRegistered { username: username(user), password_hash: PASSWORD_HASH.to_owned() };
        let append =
            Append { id: clock.new_id(), event: Event::UserRegistered(event), once: None, trace: None };
        store.append(append).await.context("registering a user")?;
    }
    Ok(())
}

/// The keys are those of `storage/src/redis/keys.rs`: per partition a hash of users (name → password hash) and a
/// hash of heads (subject → last `seq`). Should they ever differ, logins and sends are refused, which is noticed
/// before anything is measured.
pub(crate) fn fill_redis(url: &str, key_prefix: &str, population: Population) -> Result<()> {
    let mut keys = Keys::connect(url, key_prefix)?;
    for user in 0..population.users {
        let name = username(user);
        let subject = Subject::User(name.clone());
        keys.set(&subject, "users", name.as_str(), PASSWORD_HASH)?;
        keys.set(&subject, "heads", &subject.to_string(), "1")?;
    }
    for (sender, peer) in population.pairs().filter(|_| population.messages > 0) {
        let pair = Conversation::between(&username(sender), &username(peer));
        let subject = Subject::Conversation(pair.context("a peer is somebody else")?);
        keys.set(&subject, "heads", &subject.to_string(), &population.messages.to_string())?;
    }
    keys.flush()
}

/// Puts the last `seq` of conversations beside the log.
pub(crate) fn set_heads(url: &str, key_prefix: &str, heads: &[(Conversation, u64)]) -> Result<()> {
    let mut keys = Keys::connect(url, key_prefix)?;
    for (conversation, head) in heads {
        let subject = Subject::Conversation(conversation.clone());
        keys.set(&subject, "heads", &subject.to_string(), &head.to_string())?;
    }
    keys.flush()
}

pub(crate) fn username(user: u64) -> Username {
    Username::new(&name(user)).expect("a letter and digits are a name")
}

/// Fields on their way to Redis, by hash.
struct Keys {
    connection: redis::Connection,
    prefix: String,
    waiting: std::collections::BTreeMap<String, Vec<(String, String)>>,
    pipeline: Pipeline,
}

impl Keys {
    fn connect(url: &str, key_prefix: &str) -> Result<Self> {
        let connection = redis::Client::open(url)?.get_connection().context("connecting to Redis")?;
        let (prefix, waiting) = (key_prefix.to_owned(), std::collections::BTreeMap::new());
        Ok(Self { connection, prefix, waiting, pipeline: redis::pipe() })
    }

    fn set(&mut self, subject: &Subject, hash: &str, field: &str, value: &str) -> Result<()> {
        let key = format!("{}{{{}}}:{hash}", self.prefix, subject.partition(PARTITIONS_DEFAULT));
        let fields = self.waiting.entry(key.clone()).or_default();
        fields.push((field.to_owned(), value.to_owned()));
        if fields.len() >= FIELDS_PER_COMMAND {
            let fields = std::mem::take(fields);
            self.pipeline.hset_multiple(key, &fields).ignore();
            if self.pipeline.len() >= COMMANDS_PER_CALL {
                self.send()?;
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        for (key, fields) in std::mem::take(&mut self.waiting) {
            if !fields.is_empty() {
                self.pipeline.hset_multiple(key, &fields).ignore();
            }
        }
        self.send()
    }

    fn send(&mut self) -> Result<()> {
        self.pipeline.exec(&mut self.connection).context("preparing the state in Redis")?;
        self.pipeline.clear();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_filled_directory_holds_its_users() {
        use shared::ports::Accounts;
        let dir = tempfile::tempdir().unwrap();
        let population = Population { users: 60, conversations: 50, messages: 0 };
        fill_directory(dir.path(), population).await.unwrap();
        let options = Options { dir: dir.path().to_owned(), idempotency_window: IDEMPOTENCY_WINDOW };
        let store = Embedded::open(&options, Clock::system()).unwrap();
        assert!(store.exists(&username(59)).await.unwrap());
        assert!(!store.exists(&username(60)).await.unwrap());
    }
}
