//! Gives a log back what it has lost and views or archive still have. Nothing is put in the place of anything: what was lost is
//! appended anew, with its own ids and the next numbers, behind what the log has by now. So the views that have seen it
//! at its old numbers cannot go on in these partitions: the log begins a new epoch, and a new generation is built from
//! it. It reads all of the log's entries and all rows of these partitions.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::Arc;

use serde::Serialize;
use shared::event::{ConversationRead, Event, MessageSent, UserRegistered};
use shared::ids::{Conversation, EventId, Position, Seq, Subject, Username};
use shared::limits::{ARCHIVE_BLOCK_ENTRIES, DIFFERENCES_LISTED_MAX, REPAIRED_EVENTS_MAX};
use shared::message::Message;
use shared::ports::{
    Append, AppendError, Appended, Archive, Delivery, Epoch, EventLog, FeedMonitor, HotLog, HotPartition,
    LogEpoch, LogPlace, LogScan, Loss, PartitionStatus, Refusal, ScannedRow, ScannedTable, SeenLog,
    StoreError, ViewScan,
};
use shared::view::{InboxRow, TimelineEntry, UserRow};
use shared::{Clock, Timestamp};

use crate::archiving::losses;
use crate::verify::read;

/// In the place of a password hash: nobody's password, and the name is nobody else's.
const NO_PASSWORD: &str = "!";

/// The log, and one generation that has seen what it lost.
pub struct Repair {
    pub generation: u32,
    pub log: Arc<dyn LogScan>,
    pub hot: Arc<dyn HotLog>,
    pub archive: Arc<dyn Archive>,
    pub appends: Arc<dyn EventLog>,
    pub epoch: Arc<dyn LogEpoch>,
    pub monitor: Arc<dyn FeedMonitor>,
    pub views: Arc<dyn ViewScan>,
    /// Of this generation.
    pub seen: Arc<dyn SeenLog>,
    /// Of every other one that has views.
    pub others: Vec<Arc<dyn SeenLog>>,
    pub clock: Clock,
}

#[derive(Debug, thiserror::Error)]
pub enum RepairError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("{0}: nothing can be appended to it, it has to be put back first")]
    Gone(String),
    #[error("the log lacks more than {REPAIRED_EVENTS_MAX} events, which is more than views can give back")]
    TooMuch,
    #[error("the name of a lost user was registered just now; repeat it")]
    Registered,
}

/// What views or archive have and the log has not.
#[derive(Debug, Default, Serialize)]
pub struct Lost {
    pub generation: u32,
    /// The partitions that it is lost from.
    pub partitions: BTreeMap<u16, Loss>,
    pub users: Vec<Username>,
    /// Those of them whose password is not in the archive: it is in no view, and only their names can be kept.
    pub without_password: Vec<Username>,
    /// Whose names were registered anew after the loss, by themselves or by somebody else: nobody can tell, so what
    /// they wrote, were sent and have read is not given to whoever has the name now.
    pub registered_again: BTreeSet<Username>,
    /// By conversation and number, as they were.
    pub messages: Vec<LostMessage>,
    pub read_marks: Vec<LostMark>,
    /// Numbers of events that could not be read: views have nothing of them.
    pub parked: Vec<(String, Seq)>,
    /// `None`: nothing was done yet.
    pub repaired: Option<Repaired>,
}

#[derive(Debug, Serialize)]
pub struct LostMessage {
    conversation: String,
    seq: Seq,
    id: EventId,
    #[serde(skip)]
    message: Message,
}

#[derive(Debug, Serialize)]
pub struct LostMark {
    reader: Username,
    peer: Username,
    seq: Seq,
}

/// What was done.
#[derive(Debug, Serialize)]
pub struct Repaired {
    /// Of the log from now on.
    pub epoch: Epoch,
    /// That were appended.
    pub events: u64,
}

impl Repair {
    /// Changes nothing.
    pub async fn look(&self) -> Result<Lost, RepairError> {
        Ok(self.look_around().await?.0)
    }

    /// What is lost, and of the users in it what the archive knows.
    async fn look_around(&self) -> Result<(Lost, Hashes), RepairError> {
        let status = self.monitor.status().await?.partitions;
        let all = count(&status);
        let mut partitions = losses(&*self.hot, &*self.archive).await?;
        let seen = status.into_iter().filter_map(|one| Some((one.partition, one.loss?)));
        partitions.extend(seen.filter(|(_, loss)| !loss.is_repaired()));
        let mut lost = Lost { generation: self.generation, partitions, ..Lost::default() };
        if lost.partitions.is_empty() {
            return Ok((lost, Hashes::new()));
        }
        let held = self.held(&lost).await?;
        let mut found = Found { held, all, lost: &mut lost, count: 0 };
        let tables = [ScannedTable::Timeline, ScannedTable::Inbox, ScannedTable::Users];
        read::tables(&*self.views, &tables, |rows, _, _| rows.into_iter().for_each(|row| found.add(row)))
            .await?;
        let hashes = self.archived(&mut found).await?;
        let Found { held, count, .. } = found;
        if count > REPAIRED_EVENTS_MAX {
            return Err(RepairError::TooMuch);
        }
        lost.sort();
        // A salt is in the hash: with an equal one it is the same registration, given back by a repair before.
        let is_given_back = |user: &Username| {
            let both = held.users.get(user).zip(hashes.get(user));
            both.is_some_and(|((_, known), hash)| *known == digest(hash))
        };
        lost.registered_again.retain(|user| !is_given_back(user));
        lost.without_password =
            lost.users.iter().filter(|user| !hashes.contains_key(user)).cloned().collect();
        Ok((lost, hashes))
    }

    /// What the archive has beyond that, and what it knows of users that are lost or were registered again. What is
    /// trimmed was not lost.
    async fn archived(&self, found: &mut Found<'_>) -> Result<Hashes, StoreError> {
        let mut hashes = Hashes::new();
        let mut standing = self.hot.standing().await?;
        standing.retain(|one| found.lost.partitions.contains_key(&one.partition));
        for HotPartition { partition, blocks_trimmed, .. } in standing {
            let entries = self.archive.reach(partition).await?.entries;
            for number in blocks_trimmed..entries.div_ceil(ARCHIVE_BLOCK_ENTRIES) {
                let block = match read::retrying(|| self.archive.block(partition, number)).await {
                    Ok(block) => block,
                    // What cannot be read there is as good as not there.
                    Err(error) => {
                        let error = &error as &dyn std::error::Error;
                        tracing::warn!(partition, number, error, "a block of the archive cannot be read");
                        break;
                    }
                };
                for entry in block.into_iter().flat_map(|block| block.entries) {
                    let delivery = self.hot.read(entry);
                    if let Some(UserRegistered { username, password_hash }) = found.archived(&delivery) {
                        hashes.insert(username, password_hash);
                    }
                }
            }
        }
        Ok(hashes)
    }

    /// Interrupted, it can be repeated: what was appended is not lost any more.
    pub async fn apply(&self) -> Result<Lost, RepairError> {
        let (mut lost, hashes) = self.look_around().await?;
        if let Some((partition, loss)) = lost.partitions.iter().find(|(_, loss)| **loss == Loss::Gone) {
            return Err(RepairError::Gone(loss.text(*partition)));
        }
        if lost.partitions.is_empty() {
            return Ok(lost);
        }
        let mut events = 0;
        for append in self.appends_of(&lost, &hashes) {
            match self.appends.append(append).await {
                Ok(Appended::New(_) | Appended::Replayed(_)) => events += 1,
                Ok(Appended::Unchanged) => {}
                // Since the look, and before any message with this name: the next look tells the two apart.
                Err(AppendError::Refused(Refusal::UsernameTaken)) => return Err(RepairError::Registered),
                Err(AppendError::Refused(refusal)) => {
                    let what = refusal.to_string();
                    return Err(StoreError::Damaged { store: "the log", what }.into());
                }
                Err(AppendError::Store(error)) => return Err(error.into()),
            }
        }
        let epoch = self.begin_epoch(&lost).await?;
        lost.repaired = Some(Repaired { epoch, events });
        Ok(lost)
    }

    /// What the log has in the partitions that have lost something.
    async fn held(&self, lost: &Lost) -> Result<Held, StoreError> {
        let mut spans = self.log.extent().await?;
        spans.retain(|span| lost.partitions.contains_key(&span.first.partition));
        let mut held = Held::default();
        read::log(&*self.log, spans, |page| page.iter().for_each(|delivery| held.add(delivery))).await?;
        Ok(held)
    }

    /// Users before those who write to them, and messages in their old order.
    fn appends_of(&self, lost: &Lost, hashes: &Hashes) -> Vec<Append> {
        let append = |id, event| Append { id, event, once: None, trace: None };
        let users = lost.users.iter().map(|user| {
            let password_hash = hashes.get(user).map_or(NO_PASSWORD, String::as_str).to_owned();
            let username = user.clone();
            append(self.clock.new_id(), Event::UserRegistered(UserRegistered { username, password_hash }))
        });
        let is_given = |one: &&LostMessage| !lost.is_withheld([&one.message.sender, &one.message.recipient]);
        let messages = lost.messages.iter().filter(is_given).map(|lost_one| {
            let Message { id, sender, recipient, content, .. } = lost_one.message.clone();
            append(id, Event::MessageSent(MessageSent { sender, recipient, content }))
        });
        let is_given = |one: &&LostMark| !lost.is_withheld([&one.reader, &one.peer]);
        let marks = lost.read_marks.iter().filter(is_given).map(|LostMark { reader, peer, seq }| {
            let (reader, peer) = (reader.clone(), peer.clone());
            append(self.clock.new_id(), Event::ConversationRead(ConversationRead { reader, peer, seq: *seq }))
        });
        users.chain(messages).chain(marks).collect()
    }

    /// In the partitions that have lost nothing the views go on.
    async fn begin_epoch(&self, lost: &Lost) -> Result<Epoch, StoreError> {
        let current = self.epoch.epoch().await?;
        let seen = self.seen.seen().await?.into_iter().filter_map(|seen| seen.epoch);
        let newest = seen.max_by_key(|epoch| epoch.repairs).unwrap_or_else(|| current.clone());
        // The log that the views know, whatever stands in its place now.
        let epoch = Epoch { repairs: newest.repairs.max(current.repairs) + 1, ..newest };
        let all = count(&self.monitor.status().await?.partitions);
        let is_whole = |one: &u16| match lost.partitions.get(one) {
            // Views have seen nothing of it.
            None | Some(Loss::Archived { .. }) => true,
            Some(Loss::Gone | Loss::Back { .. } | Loss::Other { .. }) => false,
        };
        let whole: Vec<u16> = (0..all).filter(is_whole).collect();
        self.epoch.begin(&epoch).await?;
        for seen in self.others.iter().chain([&self.seen]) {
            seen.follow(&whole, &epoch).await?;
        }
        Ok(epoch)
    }
}

fn count(partitions: &[PartitionStatus]) -> u16 {
    u16::try_from(partitions.len()).unwrap_or(u16::MAX)
}

/// Of users, what their passwords are stored as.
type Hashes = BTreeMap<Username, String>;

/// Of a user whom the log has not.
const NO_DIGEST: u64 = 0;

fn digest(hash: &str) -> u64 {
    xxhash_rust::xxh3::xxh3_64(hash.as_bytes())
}

/// What the log has.
#[derive(Default)]
struct Held {
    /// Of each partition, from when on it holds everything: what is older was trimmed, not lost.
    begins: BTreeMap<u16, Timestamp>,
    messages: BTreeSet<(EventId, Username)>,
    /// Where something cannot be read.
    unreadable: BTreeSet<Position>,
    /// When each was registered (`None`: by a repair, without a password), and the digest of the password's hash.
    users: BTreeMap<Username, (Option<Timestamp>, u64)>,
    marks: BTreeMap<(Username, Username), Seq>,
}

impl Held {
    fn add(&mut self, delivery: &Delivery) {
        let is_first = LogPlace::of(delivery).is_some_and(|place| place.offset == 1);
        let begins = if is_first { Timestamp(0) } else { Timestamp(delivery.position.ms) };
        self.begins.entry(delivery.position.partition).or_insert(begins);
        let Ok(recorded) = &delivery.content else {
            self.unreadable.insert(delivery.position);
            return;
        };
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
struct Found<'a> {
    /// By the log, or found to be lost: everything is lost once.
    held: Held,
    /// Partitions.
    all: u16,
    lost: &'a mut Lost,
    count: usize,
}

impl Found<'_> {
    fn add(&mut self, row: ScannedRow) {
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
    fn archived(&mut self, delivery: &Delivery) -> Option<UserRegistered> {
        let recorded = match &delivery.content {
            Ok(recorded) => recorded,
            Err(unreadable) => {
                let is_held = self.held.unreadable.contains(&delivery.position);
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

    /// Whether more of this partition can be noted.
    fn is_of(&mut self, partition: u16) -> bool {
        let is_lost = self.lost.partitions.contains_key(&partition);
        self.count += usize::from(is_lost);
        is_lost && self.count <= REPAIRED_EVENTS_MAX
    }

    fn entry(&mut self, conversation: Conversation, entry: TimelineEntry) {
        match entry {
            TimelineEntry::Message(message) => self.message(message),
            TimelineEntry::Parked { seq } => {
                let partition = Subject::Conversation(conversation.clone()).partition(self.all);
                if self.lost.partitions.contains_key(&partition) {
                    self.lost.parked.push((conversation.to_string(), seq));
                }
            }
        }
    }

    fn message(&mut self, message: Message) {
        let conversation = message.conversation();
        let partition = Subject::Conversation(conversation.clone()).partition(self.all);
        let key = (message.id, message.sender.clone());
        if self.held.messages.contains(&key)
            || self.held.has_forgotten(partition, message.timestamp)
            || !self.is_of(partition)
        {
            return;
        }
        self.held.messages.insert(key);
        let (conversation, seq, id) = (conversation.to_string(), message.seq, message.id);
        self.lost.messages.push(LostMessage { conversation, seq, id, message });
    }

    fn user(&mut self, username: &Username, registered_at: Timestamp) {
        let partition = Subject::User(username.clone()).partition(self.all);
        match self.held.users.get(username).copied() {
            Some((at, _)) if at.is_none_or(|at| at == registered_at) => {}
            Some(_) => drop(self.lost.registered_again.insert(username.clone())),
            None if self.held.has_forgotten(partition, registered_at) => {}
            None if self.is_of(partition) => {
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
        let partition = Subject::User(reader.clone()).partition(self.all);
        let key = (reader, peer);
        let held = self.held.marks.get(&key).copied().unwrap_or(0);
        if seq > held && self.is_of(partition) {
            self.held.marks.insert(key.clone(), seq);
            let (reader, peer) = key;
            self.lost.read_marks.push(LostMark { reader, peer, seq });
        }
    }
}

impl Lost {
    fn sort(&mut self) {
        self.messages.sort_by_cached_key(|one| (one.conversation.clone(), one.seq));
        self.parked.sort();
        self.parked.dedup();
        self.users.sort();
        // Of several marks the highest is enough.
        let pair = |one: &LostMark| (one.reader.clone(), one.peer.clone());
        self.read_marks.sort_by_cached_key(|one| (pair(one), Reverse(one.seq)));
        self.read_marks.dedup_by_key(|one| pair(one));
    }

    fn is_withheld(&self, names: [&Username; 2]) -> bool {
        names.into_iter().any(|name| self.registered_again.contains(name))
    }

    /// For a person.
    #[must_use]
    pub fn lines(&self) -> String {
        let Self {
            generation,
            partitions,
            users,
            without_password,
            registered_again,
            messages,
            read_marks,
            parked,
            repaired,
        } = self;
        if partitions.is_empty() {
            return format!(
                "the log holds all that generation {generation} has seen and all that is archived"
            );
        }
        let mut lines: Vec<String> =
            partitions.iter().map(|(partition, loss)| loss.text(*partition)).collect();
        listed(&mut lines, "message", messages, |one| format!("{} {} {}", one.conversation, one.seq, one.id));
        listed(&mut lines, "user", users, |user| {
            let without = if without_password.contains(user) { ": the password is nowhere" } else { "" };
            format!("{user}{without}")
        });
        let again: Vec<_> = registered_again.iter().collect();
        listed(&mut lines, "user", &again, |user| {
            format!(
                "{user}: registered again since, maybe by somebody else; messages with this name stay lost"
            )
        });
        listed(&mut lines, "read mark", read_marks, |one| format!("{} {} {}", one.reader, one.peer, one.seq));
        let nothing_of_it = |(conversation, seq): &(String, Seq)| {
            format!("{conversation} {seq}: it could not be read, and views have nothing of it")
        };
        listed(&mut lines, "parked event", parked, nothing_of_it);
        let mut text = lines.join("\n");
        let end = match repaired {
            None => "\nnothing was done: --apply appends what is lost".to_owned(),
            Some(Repaired { epoch, events }) => format!(
                "\n{events} events were appended; the log is {epoch} from now on, and views that have seen what \
                 was lost stand still: `projector rebuild` makes new ones"
            ),
        };
        write!(text, "{end}").expect("a string takes what it is given");
        text
    }
}

fn listed<T>(lines: &mut Vec<String>, name: &str, all: &[T], line: impl Fn(&T) -> String) {
    lines.extend(all.iter().take(DIFFERENCES_LISTED_MAX).map(|one| format!("{name} {}", line(one))));
    if all.len() > DIFFERENCES_LISTED_MAX {
        lines.push(format!("and {} more: --json lists all", all.len() - DIFFERENCES_LISTED_MAX));
    }
}
