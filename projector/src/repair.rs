//! Gives a log back what it has lost and views or archive still have. Nothing is put in the place of anything: what was
//! lost is appended anew, with its own ids and the next numbers, behind what the log has by now. So the views that have
//! seen it at its old numbers cannot go on in these partitions: the log begins a new epoch, and a new generation is
//! built from it. It reads all of the log's entries and all rows of these partitions.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use shared::Clock;
use shared::event::{ConversationRead, Event, MessageSent, UserRegistered};
use shared::ids::{Position, Username};
use shared::limits::{ARCHIVE_BLOCK_ENTRIES, REPAIR_HELD_MAX, REPAIRED_BYTES_MAX, REPAIRED_EVENTS_MAX};
use shared::message::Message;
use shared::ports::{
    Append, AppendError, Appended, Archive, Epoch, EventLog, FeedMonitor, HotLog, HotPartition, LogEpoch,
    LogPlace, LogScan, Loss, Once, OnceKey, Refusal, ScannedTable, Span, StoreError, ViewScan,
};

use crate::archiving::blocks::readable_block;
use crate::archiving::losses;
use crate::reading;
use crate::seen::SeenLogs;

mod found;
mod lost;

pub use lost::{Lost, Repaired};

use found::{Extent, Found, Held, digest};
use lost::{LostMark, LostMessage};

/// In the place of a password hash: nobody's password, and the name is nobody else's.
const NO_PASSWORD: &str = "!";

/// The log, and the serving generation, which has seen what it lost.
pub struct Repair {
    pub generation: u32,
    pub log: Arc<dyn LogScan>,
    pub hot: Arc<dyn HotLog>,
    pub archive: Arc<dyn Archive>,
    pub appends: Arc<dyn EventLog>,
    pub epoch: Arc<dyn LogEpoch>,
    pub monitor: Arc<dyn FeedMonitor>,
    pub views: Arc<dyn ViewScan>,
    pub seen: SeenLogs,
    pub clock: Clock,
}

#[derive(Debug, thiserror::Error)]
pub enum RepairError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("{0}: nothing can be appended to it, it has to be put back first")]
    Gone(String),
    #[error(
        "the log lacks more than {REPAIRED_EVENTS_MAX} events, or {REPAIRED_BYTES_MAX} bytes of messages, which is more \
         than views can give back"
    )]
    TooMuch,
    #[error("the name of a lost user was registered just now; repeat it")]
    Registered,
}

impl Repair {
    /// Changes nothing.
    pub async fn look(&self) -> Result<Lost, RepairError> {
        Ok(self.look_around().await?.0)
    }

    /// What is lost, and of the users in it what the archive knows.
    async fn look_around(&self) -> Result<(Lost, Hashes), RepairError> {
        let status = self.monitor.status().await?.partitions;
        let mut partitions = losses(&*self.hot, &*self.archive).await?;
        let seen = status.iter().filter_map(|one| Some((one.partition, one.loss.clone()?)));
        partitions.extend(seen.filter(|(_, loss)| !loss.is_repaired()));
        let mut lost = Lost { generation: self.generation, partitions, ..Lost::default() };
        if lost.partitions.is_empty() {
            return Ok((lost, Hashes::new()));
        }
        let of_lost = status.iter().filter(|one| lost.partitions.contains_key(&one.partition));
        let passes = of_lost.map(|one| one.head).sum::<u64>().div_ceil(REPAIR_HELD_MAX).max(1);
        let partitions = u16::try_from(status.len()).unwrap_or(u16::MAX);
        let (mut extent, mut hashes) = (Extent::default(), Hashes::new());
        for nth in 0..passes {
            let held = self.held(&lost, Held::begin(nth, passes)).await?;
            let found = Found { held, partitions, lost: &mut lost, extent };
            extent = self.compare(found, &mut hashes).await?;
        }
        lost.sort();
        lost.without_password =
            lost.users.iter().filter(|user| !hashes.contains_key(user)).cloned().collect();
        Ok((lost, hashes))
    }

    /// One pass. Returns how much was found to be lost so far.
    async fn compare(&self, mut found: Found<'_>, hashes: &mut Hashes) -> Result<Extent, RepairError> {
        let tables = [ScannedTable::Timeline, ScannedTable::Inbox, ScannedTable::Users];
        reading::tables(&*self.views, &tables, |rows, _, _| rows.into_iter().for_each(|row| found.add(row)))
            .await?;
        hashes.extend(self.archived(&mut found).await?);
        let Found { held, lost, extent, .. } = found;
        if extent.is_too_much() {
            return Err(RepairError::TooMuch);
        }
        // A salt is in the hash: with an equal one it is the same registration, given back by a repair before.
        let is_given_back = |user: &Username| {
            let both = held.users.get(user).zip(hashes.get(user));
            both.is_some_and(|((_, known), hash)| *known == digest(hash))
        };
        lost.registered_again.retain(|user| !is_given_back(user));
        Ok(extent)
    }

    /// What the archive has beyond that, and what it knows of users that are lost or were registered again. What is
    /// trimmed was not lost. A repair has the archive written anew, so this is the last look at what only it has.
    async fn archived(&self, found: &mut Found<'_>) -> Result<Hashes, StoreError> {
        let mut hashes = Hashes::new();
        let mut standing = self.hot.standing().await?.partitions;
        standing.retain(|one| found.lost.partitions.contains_key(&one.partition));
        for HotPartition { partition, blocks_trimmed, .. } in standing {
            let entries = self.archive.reach(partition).await?.entries;
            for number in blocks_trimmed..entries.div_ceil(ARCHIVE_BLOCK_ENTRIES) {
                let block = reading::retrying(|| readable_block(&*self.archive, partition, number)).await?;
                let Some(block) = block else {
                    found.lost.unreadable_blocks.insert((partition, number));
                    continue;
                };
                for entry in block.entries {
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
            // One that was cut short may have left views standing still.
            lost.resumed = self.follow(&self.epoch.epoch().await?).await?;
            return Ok(lost);
        }
        let mut events = 0;
        for append in self.appends_of(&lost, &hashes) {
            match self.give_back(append).await {
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
        let epoch = self.begin_epoch().await?;
        self.follow(&epoch).await?;
        lost.repaired = Some(Repaired { epoch, events });
        Ok(lost)
    }

    /// A message so that a client who repeats it later makes no second one.
    async fn give_back(&self, append: Append) -> Result<Appended, AppendError> {
        let plain = Append { once: None, ..append.clone() };
        match self.appends.append(append).await {
            // It is so old that nobody can repeat it.
            Err(AppendError::Refused(Refusal::IdOutOfWindow)) => self.appends.append(plain).await,
            // Of a message that is lost the record may have been kept.
            Ok(Appended::Replayed(receipt)) if !self.is_there(receipt.position).await? => {
                self.appends.append(plain).await
            }
            appended => appended,
        }
    }

    async fn is_there(&self, position: Position) -> Result<bool, StoreError> {
        let span = Span { first: position, last: position };
        Ok(!self.log.page(&span, 1).await?.is_empty())
    }

    /// What the log has in the partitions that have lost something.
    async fn held(&self, lost: &Lost, mut held: Held) -> Result<Held, StoreError> {
        let mut spans = self.log.extent().await?;
        spans.retain(|span| lost.partitions.contains_key(&span.first.partition));
        reading::log(&*self.log, spans, |page| page.iter().for_each(|delivery| held.add(delivery))).await?;
        Ok(held)
    }

    /// Users before those who write to them, and messages in their old order.
    fn appends_of(&self, lost: &Lost, hashes: &Hashes) -> impl Iterator<Item = Append> {
        let append = |id, event| Append { id, event, once: None, trace: None };
        let users = lost.users.iter().map(move |user| {
            let password_hash = hashes.get(user).map_or(NO_PASSWORD, String::as_str).to_owned();
            let username = user.clone();
            append(self.clock.new_id(), Event::UserRegistered(UserRegistered { username, password_hash }))
        });
        let is_given =
            move |one: &&LostMessage| !lost.is_withheld([&one.message.sender, &one.message.recipient]);
        let messages = lost.messages.iter().filter(is_given).map(move |lost_one| {
            let Message { id, sender, recipient, content, .. } = lost_one.message.clone();
            let sent = MessageSent { sender, recipient, content };
            let once = Some(Once { key: OnceKey::Id, fingerprint: sent.fingerprint() });
            Append { once, ..append(id, Event::MessageSent(sent)) }
        });
        let is_given = move |one: &&LostMark| !lost.is_withheld([&one.reader, &one.peer]);
        let marks = lost.read_marks.iter().filter(is_given).map(move |LostMark { reader, peer, seq }| {
            let (reader, peer) = (reader.clone(), peer.clone());
            append(self.clock.new_id(), Event::ConversationRead(ConversationRead { reader, peer, seq: *seq }))
        });
        users.chain(messages).chain(marks)
    }

    async fn begin_epoch(&self) -> Result<Epoch, StoreError> {
        let current = self.epoch.epoch().await?;
        let seen = self.seen.serving.seen().await?.into_iter().filter_map(|seen| seen.epoch);
        let newest = seen.max_by_key(|epoch| epoch.repairs).unwrap_or_else(|| current.clone());
        // The log that the views know, whatever stands in its place now.
        let epoch = Epoch { repairs: newest.repairs.max(current.repairs) + 1, ..newest };
        self.epoch.begin(&epoch).await?;
        Ok(epoch)
    }

    /// In the partitions that have lost nothing of what they have seen, the views of all generations go on; but none does
    /// of a generation of which nothing is there any more: the log was emptied, and its users may be others. Returns those
    /// that had not yet. May be repeated.
    async fn follow(&self, epoch: &Epoch) -> Result<BTreeSet<u16>, StoreError> {
        let mut all = BTreeSet::new();
        for seen in self.seen.others.iter().chain([&self.seen.serving]) {
            let (mut whole, mut goes_on, mut has_any) = (Vec::new(), false, false);
            for one in seen.seen().await? {
                let holds = match one.last {
                    Some(last) => self.holds(last).await?,
                    None => true,
                };
                has_any |= one.last.is_some();
                goes_on |= holds && one.last.is_some();
                if holds && one.epoch.is_some_and(|is| is.log == epoch.log && is.repairs < epoch.repairs) {
                    whole.push(one.partition);
                }
            }
            if has_any && !goes_on {
                continue;
            }
            seen.follow(&whole, epoch).await?;
            all.extend(whole);
        }
        Ok(all)
    }

    /// Whether the log has this very entry, at its place: what was lost is at no place any more.
    async fn holds(&self, last: LogPlace) -> Result<bool, StoreError> {
        let span = Span { first: last.position, last: last.position };
        let found = reading::retrying(|| self.log.page(&span, 1)).await?;
        Ok(found.first().and_then(LogPlace::of) == Some(last))
    }
}

/// Of users, what their passwords are stored as.
type Hashes = BTreeMap<Username, String>;
