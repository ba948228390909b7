//! Compares what the log has with the rows of the views and with what is archived.

use std::collections::{BTreeMap, BTreeSet};

use shared::Timestamp;
use shared::event::{Event, RecordedEvent, UserRegistered};
use shared::ids::{Conversation, EventId, Position, Seq, Subject, Username};
use shared::limits::{REPAIRED_BYTES_MAX, REPAIRED_EVENTS_MAX};
use shared::message::Message;
use shared::ports::{Delivery, LogPlace, ScannedRow};
use shared::view::{InboxRow, TimelineEntry, UserRow};

use super::NO_PASSWORD;
use super::lost::{Lost, LostMark, LostMessage};

/// What the log has, in one of several passes: each is about other users and messages.
#[derive(Default)]
pub(super) struct Held {
    nth: u64,
    passes: u64,
    /// Of each partition, from when on it holds everything: what is older was trimmed, not lost.
    begins: BTreeMap<u16, Timestamp>,
    messages: BTreeSet<(EventId, Username)>,
    /// Where something cannot be read.
    unreadable: BTreeSet<Position>,
    /// When each was registered (`None`: by a repair, without a password), and the digest of the password's hash.
    pub(super) users: BTreeMap<Username, (Option<Timestamp>, u64)>,
    marks: BTreeMap<(Username, Username), Seq>,
}

impl Held {
    pub(super) fn begin(nth: u64, passes: u64) -> Self {
        Self { nth, passes, ..Self::default() }
    }

    /// Whether it is what this pass is about.
    fn is_about(&self, key: &[u8]) -> bool {
        xxhash_rust::xxh3::xxh3_64(key) % self.passes == self.nth
    }

    pub(super) fn add(&mut self, delivery: &Delivery) {
        let is_first = LogPlace::of(delivery).is_some_and(|place| place.offset == 1);
        let begins = if is_first { Timestamp(0) } else { Timestamp(delivery.position.ms) };
        self.begins.entry(delivery.position.partition).or_insert(begins);
        let Ok(recorded) = &delivery.content else {
            if self.is_about(&delivery.position.ms.to_le_bytes()) {
                self.unreadable.insert(delivery.position);
            }
            return;
        };
        if !self.is_about(&key(recorded)) {
            return;
        }
        match &recorded.event {
            Event::MessageSent(sent) => drop(self.messages.insert((recorded.id, sent.sender.clone()))),
            Event::UserRegistered(registered) => {
                let at = (registered.password_hash != NO_PASSWORD).then_some(recorded.at);
                let registration = (at, digest(&registered.password_hash));
                self.users.entry(registered.username.clone()).or_insert(registration);
            }
            Event::ConversationRead(read) => {
                let mark = self.marks.entry((read.reader.clone(), read.peer.clone())).or_default();
                *mark = read.seq.max(*mark);
            }
        }
    }

    fn has_forgotten(&self, partition: u16, at: Timestamp) -> bool {
        self.begins.get(&partition).is_some_and(|begin| at < *begin)
    }
}

/// Goes over the rows, and then over what is archived.
pub(super) struct Found<'a> {
    /// By the log, or found to be lost: everything is lost once.
    pub(super) held: Held,
    /// That the log has.
    pub(super) partitions: u16,
    pub(super) lost: &'a mut Lost,
    pub(super) extent: Extent,
}

/// How much is lost, as far as it was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Extent {
    events: usize,
    /// Of what was written in them.
    bytes: usize,
}

impl Extent {
    pub(super) fn is_too_much(self) -> bool {
        self.events > REPAIRED_EVENTS_MAX || self.bytes > REPAIRED_BYTES_MAX
    }
}

impl Found<'_> {
    pub(super) fn add(&mut self, row: ScannedRow) {
        match row {
            ScannedRow::Timeline { conversation, entry } => self.entry(conversation, entry),
            ScannedRow::Inbox { owner, row: InboxRow { peer, read_mark, .. }, parked_seq: _ } => {
                self.mark(owner, peer, read_mark);
            }
            ScannedRow::User(UserRow { username, registered_at }) => self.user(&username, registered_at),
            ScannedRow::Parked { .. } | ScannedRow::Broken(_) => {}
        }
    }

    /// Returns the registration of a user who is lost or was registered again.
    pub(super) fn archived(&mut self, delivery: &Delivery) -> Option<UserRegistered> {
        let recorded = match &delivery.content {
            Ok(recorded) => recorded,
            Err(unreadable) => {
                let is_held = !self.held.is_about(&delivery.position.ms.to_le_bytes())
                    || self.held.unreadable.contains(&delivery.position);
                let lost = unreadable.place.as_ref().filter(|_| !is_held);
                self.lost.parked.extend(lost.map(|(conversation, seq)| (conversation.to_string(), *seq)));
                return None;
            }
        };
        match &recorded.event {
            Event::MessageSent(sent) => self.message(Message::new(recorded, sent)),
            Event::ConversationRead(read) => self.mark(read.reader.clone(), read.peer.clone(), read.seq),
            Event::UserRegistered(user) => {
                self.user(&user.username, recorded.at);
                return self.is_missed(&user.username).then(|| user.clone());
            }
        }
        None
    }

    /// Whether one more of this partition can be noted, with so much written in it.
    fn is_of(&mut self, partition: u16, bytes: usize) -> bool {
        if !self.lost.partitions.contains_key(&partition) {
            return false;
        }
        self.extent.events += 1;
        self.extent.bytes += bytes;
        !self.extent.is_too_much()
    }

    fn entry(&mut self, conversation: Conversation, entry: TimelineEntry) {
        match entry {
            TimelineEntry::Message(message) => self.message(message),
            TimelineEntry::Parked { seq } => {
                let partition = Subject::Conversation(conversation.clone()).partition(self.partitions);
                if self.lost.partitions.contains_key(&partition) {
                    self.lost.parked.push((conversation.to_string(), seq));
                }
            }
        }
    }

    fn message(&mut self, message: Message) {
        let conversation = message.conversation();
        let partition = Subject::Conversation(conversation.clone()).partition(self.partitions);
        let key = (message.id, message.sender.clone());
        if !self.held.is_about(&message.id.0.to_bytes())
            || self.held.messages.contains(&key)
            || self.held.has_forgotten(partition, message.timestamp)
            || !self.is_of(partition, message.content.len())
        {
            return;
        }
        self.held.messages.insert(key);
        let (conversation, seq, id) = (conversation.to_string(), message.seq, message.id);
        self.lost.messages.push(LostMessage { conversation, seq, id, message });
    }

    fn user(&mut self, username: &Username, registered_at: Timestamp) {
        if !self.held.is_about(username.as_str().as_bytes()) {
            return;
        }
        let partition = Subject::User(username.clone()).partition(self.partitions);
        match self.held.users.get(username).copied() {
            Some((at, _)) if at.is_none_or(|at| at == registered_at) => {}
            Some(_) => drop(self.lost.registered_again.insert(username.clone())),
            None if self.held.has_forgotten(partition, registered_at) => {}
            None if self.is_of(partition, 0) => {
                self.held.users.insert(username.clone(), (Some(registered_at), NO_DIGEST));
                self.lost.users.push(username.clone());
            }
            None => {}
        }
    }

    fn is_missed(&self, user: &Username) -> bool {
        let is_lost = self.held.users.get(user).is_some_and(|(_, digest)| *digest == NO_DIGEST);
        is_lost || self.lost.registered_again.contains(user)
    }

    fn mark(&mut self, reader: Username, peer: Username, seq: Seq) {
        if !self.held.is_about(reader.as_str().as_bytes()) {
            return;
        }
        let partition = Subject::User(reader.clone()).partition(self.partitions);
        let key = (reader, peer);
        let held = self.held.marks.get(&key).copied().unwrap_or(0);
        if seq > held && self.is_of(partition, 0) {
            self.held.marks.insert(key.clone(), seq);
            let (reader, peer) = key;
            self.lost.read_marks.push(LostMark { reader, peer, seq });
        }
    }
}

/// What decides in which pass an event is compared.
fn key(recorded: &RecordedEvent) -> Vec<u8> {
    match &recorded.event {
        Event::MessageSent(_) => recorded.id.0.to_bytes().to_vec(),
        Event::UserRegistered(user) => user.username.as_str().into(),
        Event::ConversationRead(read) => read.reader.as_str().into(),
    }
}

/// Of a user whom the log has not.
const NO_DIGEST: u64 = 0;

pub(super) fn digest(hash: &str) -> u64 {
    xxhash_rust::xxh3::xxh3_64(hash.as_bytes())
}

#[cfg(test)]
mod tests {
    use shared::ports::Loss;

    use super::*;
    use crate::deliveries::{read, registered, sent};

    /// What is lost of a log that has every other one of these.
    fn lost(passes: u64) -> Lost {
        let loss = Loss::Back { ends: 1, seen: 2 };
        let mut lost = Lost { partitions: [(0, loss)].into(), ..Lost::default() };
        let mut extent = Extent::default();
        for nth in 0..passes {
            let mut held = Held::begin(nth, passes);
            let all = (0..90).map(|n| match n % 3 {
                0 => registered(&format!("user{n}"), n + 1),
                1 => sent("samer", &format!("user{n}"), 1, n + 1),
                _ => read(&format!("user{n}"), "samer", 1, n + 1),
            });
            let (there, gone): (Vec<_>, Vec<_>) = all.partition(|one| one.position.ms % 2 == 1);
            there.iter().for_each(|one| held.add(one));
            let mut found = Found { held, partitions: 1, lost: &mut lost, extent };
            for one in there.iter().chain(&gone).chain(&gone) {
                found.archived(one);
            }
            extent = found.extent;
        }
        assert_eq!(extent.events, 45);
        lost.sort();
        lost
    }

    #[test]
    fn so_much_is_given_back_and_no_more() {
        let extent = |events, bytes| Extent { events, bytes };
        assert!(!extent(REPAIRED_EVENTS_MAX, REPAIRED_BYTES_MAX).is_too_much());
        assert!(extent(REPAIRED_EVENTS_MAX + 1, 0).is_too_much());
        assert!(extent(1, REPAIRED_BYTES_MAX + 1).is_too_much());
        let loss = Loss::Back { ends: 1, seen: 2 };
        let mut lost = Lost { partitions: [(0, loss)].into(), ..Lost::default() };
        let almost = extent(1, REPAIRED_BYTES_MAX - 1);
        let mut found = Found { held: Held::begin(0, 1), partitions: 1, lost: &mut lost, extent: almost };
        found.archived(&sent("samer", "lena", 1, 1));
        assert!(found.extent.is_too_much());
        assert_eq!(lost.messages.len(), 0, "it is not held");
    }

    #[test]
    fn whatever_the_log_has_not_is_found_once_in_however_many_passes() {
        let told = lost(1).lines();
        for passes in 1..5 {
            let lost = lost(passes);
            assert_eq!((lost.users.len(), lost.messages.len(), lost.read_marks.len()), (15, 15, 15));
            assert_eq!(lost.lines(), told, "{passes} passes");
        }
    }
}
