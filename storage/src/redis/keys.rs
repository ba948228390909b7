//! The name of every key. They are made from typed ids only, and all keys of a partition share a hash tag
//! (`{3}:events`), so that one script may touch them all, on a cluster too. Nothing else here: no commands.

use std::fmt::Write;

use shared::Username;
use shared::event::MessageSent;
use shared::ids::{EventId, Subject};
use shared::ports::{OnceKey, SessionKey};
use shared::rate::{Counted, LoginKey};

/// Fields of the hash [`Keys::log`].
pub(super) const LOG_PARTITIONS: &str = "partitions";
pub(super) const LOG_EPOCH: &str = "epoch";
pub(super) const LOG_VERSION: &str = "version";

/// Field of [`Keys::heads`]: no subject is called so.
pub(super) const LAST_OFFSET: &str = "#";

/// Fields of the hash [`Keys::trimmed`], as `trim.lua` writes them.
pub(super) const TRIMMED_BLOCKS: &str = "blocks";
pub(super) const TRIMMED_FIRST: &str = "first";
pub(super) const TRIMMED_LAST: &str = "last";

/// Fields of an entry of [`Keys::events`], always in this order: Redis stores the names once per block of
/// entries as long as they do not change. Two of them, as each one costs Redis time with every append.
pub(super) mod field {
    /// Words with a space between: schema version, type, subject, id, trace (`-` for none), seq, offset, checksum.
    pub(crate) const HEADER: &str = "e";
    /// JSON.
    pub(crate) const PAYLOAD: &str = "p";
}

/// Names the keys of one log.
#[derive(Debug)]
pub(super) struct Keys {
    prefix: String,
    pub(super) partitions: u16,
}

impl Keys {
    pub(super) fn new(prefix: String, partitions: u16) -> Self {
        Self { prefix, partitions }
    }

    pub(super) fn partition_of(&self, subject: &Subject) -> u16 {
        subject.partition(self.partitions)
    }

    /// For what is of no subject: the same one for the same name.
    pub(super) fn some_partition(&self, name: &str) -> u16 {
        let partition = crc32fast::hash(name.as_bytes()) % u32::from(self.partitions);
        u16::try_from(partition).expect("below the number of partitions")
    }

    /// Hash: what the log is, made once.
    pub(super) fn log(&self) -> String {
        self.named(0, "log")
    }

    /// String: written before each wait for replicas, never read.
    pub(super) fn replicated(&self) -> String {
        self.named(0, "replicated")
    }

    /// Stream: the events of a partition.
    pub(super) fn events(&self, partition: u16) -> String {
        self.named(partition, "events")
    }

    /// Hash: subject → its last `seq`, and `#` (no subject is called so) → the last offset of the partition.
    pub(super) fn heads(&self, partition: u16) -> String {
        self.named(partition, "heads")
    }

    /// Hash: name → password hash.
    pub(super) fn users(&self, partition: u16) -> String {
        self.named(partition, "users")
    }

    /// Hash: `reader:peer` → the highest mark.
    pub(super) fn marks(&self, partition: u16) -> String {
        self.named(partition, "marks")
    }

    /// String with an end: the receipt of a send that is made once.
    pub(super) fn once(&self, partition: u16, message: &MessageSent, key: &OnceKey, id: EventId) -> String {
        let mut name = self.named(partition, "once:");
        let MessageSent { sender, recipient, .. } = message;
        let written = match key {
            OnceKey::Header(text) => write!(name, "{sender}:{recipient}:h:{text}"),
            OnceKey::Id => write!(name, "{sender}:{recipient}:i:{id}"),
        };
        written.expect("a string takes what it is given");
        name
    }

    /// String with an end: whose session it is. Spread by the digest: a session is found without its user.
    pub(super) fn session(&self, key: &SessionKey) -> String {
        self.by_digest(&key.0, "session:")
    }

    /// Sorted set: digest → when the session was opened or renewed, in µs of Redis' clock.
    pub(super) fn sessions(&self, user: &Username) -> String {
        let partition = self.partition_of(&Subject::User(user.clone()));
        let mut name = self.named(partition, "sessions:");
        name.push_str(user.as_str());
        name
    }

    /// String with an end: when the subject has all its permits again, in µs of Redis' clock.
    pub(super) fn rate(&self, counted: &Counted) -> String {
        let subject = counted.to_string();
        let mut name = self.named(self.some_partition(&subject), "rate:");
        name.push_str(&subject);
        name
    }

    /// String with an end: failures, and until when the next login waits, in ms of Redis' clock.
    pub(super) fn failed_logins(&self, login: &LoginKey) -> String {
        self.by_digest(&login.0, "failed:")
    }

    /// Hash: consumer → events that it acknowledged.
    pub(super) fn applied(&self, partition: u16, group: &str) -> String {
        let mut name = self.named(partition, "applied:");
        name.push_str(group);
        name
    }

    /// Hash: number of a span of time → first and last id acknowledged in it.
    pub(super) fn trail(&self, partition: u16, group: &str) -> String {
        let mut name = self.named(partition, "trail:");
        name.push_str(group);
        name
    }

    /// Hash: `blocks` of the archive that the stream has no more, `first` and `last` id of what was trimmed.
    pub(super) fn trimmed(&self, partition: u16) -> String {
        self.named(partition, "trimmed")
    }

    /// Hash: `blocks` of the archive that the group has to read, the `next` to be given out, how many are `done`, and
    /// `lease:N` → until when block N is somebody's, in ms of Redis' clock.
    pub(super) fn backlog(&self, partition: u16, group: &str) -> String {
        let mut name = self.named(partition, "backlog:");
        name.push_str(group);
        name
    }

    /// Hash: number of a span of time → blocks of the archive that the group was done with in it.
    pub(super) fn replayed(&self, partition: u16, group: &str) -> String {
        let mut name = self.named(partition, "replayed:");
        name.push_str(group);
        name
    }

    /// String: the last turn that a consumer of the group was given.
    pub(super) fn turn(&self, group: &str) -> String {
        self.named(0, &format!("turn:{group}"))
    }

    /// Hash: consumer → its turn.
    pub(super) fn turns(&self, group: &str) -> String {
        self.named(0, &format!("turns:{group}"))
    }

    /// Channel: what the views hold now.
    pub(super) fn notices(&self) -> String {
        format!("{}applied", self.prefix)
    }

    fn by_digest(&self, digest: &[u8; 32], name: &str) -> String {
        let partition = u16::from_be_bytes([digest[0], digest[1]]) % self.partitions;
        let mut name = self.named(partition, name);
        name.push_str(&hexadecimal(digest));
        name
    }

    fn named(&self, partition: u16, name: &str) -> String {
        format!("{}{{{partition}}}:{name}", self.prefix)
    }
}

/// Lower-case hexadecimal: the member of [`Keys::sessions`] and the end of [`Keys::session`].
pub(super) fn digest(key: &SessionKey) -> String {
    hexadecimal(&key.0)
}

fn hexadecimal(digest: &[u8; 32]) -> String {
    digest.iter().fold(String::with_capacity(64), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a string takes what it is given");
        text
    })
}

/// The reverse of [`digest`].
pub(super) fn session_key(digest: &str) -> Option<SessionKey> {
    let mut key = SessionKey([0; 32]);
    if digest.len() != 64 || !digest.is_ascii() {
        return None;
    }
    for (at, byte) in key.0.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&digest[2 * at..2 * at + 2], 16).ok()?;
    }
    Some(key)
}

#[cfg(test)]
mod tests {
    use shared::network::Network;

    use super::*;

    #[test]
    fn names() {
        let keys = Keys::new(String::new(), 16);
        let message = MessageSent {
            sender: "anna".parse().unwrap(),
            recipient: "ben".parse().unwrap(),
            content: String::new(),
        };
        let id: EventId = "01JD0000000000000000000000".parse().unwrap();
        assert_eq!(keys.events(3), "{3}:events");
        assert_eq!(keys.once(3, &message, &OnceKey::Header("a:b".into()), id), "{3}:once:anna:ben:h:a:b");
        assert_eq!(
            keys.once(3, &message, &OnceKey::Id, id),
            "{3}:once:anna:ben:i:01JD0000000000000000000000"
        );
        let mut key = SessionKey([0xab; 32]);
        key.0[1] = 0x01;
        assert!(keys.session(&key).starts_with("{1}:session:ab01abab"), "{}", keys.session(&key));
        assert_eq!(keys.session(&key).len(), "{1}:session:".len() + 64);
        assert_eq!(session_key(&digest(&key)), Some(key));
        assert_eq!((session_key("ab"), session_key(&"é".repeat(32))), (None, None));
        let failed = keys.failed_logins(&LoginKey(key.0));
        assert_eq!(failed.replace("failed", "session"), keys.session(&key));
        let client = Network::of_client("2001:db8::1".parse().unwrap());
        assert_eq!(keys.rate(&Counted::Logins(client)), "{13}:rate:login:2001:db8::/64");
        assert_eq!(keys.rate(&Counted::Sends("anna".parse().unwrap())), "{9}:rate:send:anna");
        assert_eq!(Keys::new("t1:".into(), 16).applied(2, "g1"), "t1:{2}:applied:g1");
    }
}
