//! The ports `EventFeed`, `FeedMonitor` and `Notices`. The log is read by offset, so a consumer is a number:
//! what comes after what the views hold and after what it was given. One consumer works at a time; a new one
//! takes over from the one before.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use fjall::Keyspace;
use shared::event::Event;
use shared::ids::{Conversation, Position, Seq};
use shared::limits::{
    BATCH_EVENTS_BYTES_MAX, FEED_WAIT_MAX, PROJECTED_PER_BATCH_MAX, PROJECTED_WHEN_BEHIND_MAX,
    PROJECTED_WHEN_BEHIND_PART,
};
use shared::ports::{
    Applied, ConsumerStatus, Delivery, EventFeed, FeedMonitor, FeedStatus, Notices, PartitionStatus,
    StoreError,
};
use tokio::sync::{broadcast, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::acknowledged::Acknowledged;
use super::entry::Entry;
use super::rows::Rows;
use super::{Embedded, STORE, damaged, encoding, keys, read_error};

/// The consumer of the views' generation.
pub struct Feed {
    store: Embedded,
    head: watch::Receiver<u64>,
    turn: u64,
    /// The next offset to be given.
    next: u64,
    /// Of one that is far behind, the next read: it goes on while the batch before it is applied.
    ahead: Option<JoinHandle<Result<Read, StoreError>>>,
}

/// A batch, and the offset behind it.
type Read = (Vec<Delivery>, u64);

impl Feed {
    /// Starts behind what the views hold.
    pub(super) fn new(store: Embedded, consumer: &str) -> Self {
        let (turn, up_to) = store.progress().take_over(consumer);
        Self { head: store.log_end(), store, turn, next: up_to + 1, ahead: None }
    }

    /// Dropped while it waits, it has lost nothing: what is read ahead stays there.
    async fn read(&mut self, head: u64, events_max: usize) -> Result<Vec<Delivery>, StoreError> {
        let read = match &mut self.ahead {
            Some(ahead) => {
                let read = ahead.await;
                self.ahead = None;
                self.store.progress().standing().check(self.turn)?;
                read.unwrap_or_else(|error| Err(StoreError::unknown(STORE, error)))
            }
            None => self.store.read_feed(self.turn, self.next..=head, events_max),
        };
        let (batch, next) = read?;
        self.next = next;
        if batch.len() > PROJECTED_PER_BATCH_MAX && next <= head {
            let (store, turn) = (self.store.clone(), self.turn);
            let read = move || store.read_feed(turn, next..=head, events_max);
            self.ahead = Some(tokio::task::spawn_blocking(read));
        }
        Ok(batch)
    }
}

#[async_trait]
impl EventFeed for Feed {
    async fn next_batch(&mut self, events_max: usize) -> Result<Vec<Delivery>, StoreError> {
        loop {
            let next = self.next;
            let head = timeout(FEED_WAIT_MAX, self.head.wait_for(|head| *head >= next)).await;
            let Ok(head) = head.map(|head| head.map(|head| *head)) else {
                self.store.progress().standing().check(self.turn)?;
                self.store.write_views().await?;
                return Ok(Vec::new());
            };
            let head = head.map_err(|_| StoreError::unavailable(STORE, "the writer has stopped"))?;
            let batch = self.read(head, events_max).await?;
            if !batch.is_empty() {
                return Ok(batch);
            }
        }
    }

    async fn ack(&mut self, batch: &[Delivery]) -> Result<(), StoreError> {
        let offsets: Vec<_> = batch.iter().map(|delivery| delivery.position.counter).collect();
        // As a rule they do: that was noted when their changes were applied.
        if !self.store.progress().holds(&offsets) {
            let offsets = offsets.clone();
            self.store.blocking(move |store| store.commit_views(|_, _| Ok(()), &offsets)).await?;
        }
        self.store.progress().take_back(self.turn, &offsets);
        let notices = self.store.notices();
        // Who subscribes from here on reads views that hold the batch.
        if notices.receiver_count() > 0 {
            heads(batch).into_iter().for_each(|notice| drop(notices.send(notice)));
        }
        Ok(())
    }
}

impl Embedded {
    /// Those offsets that the views do not hold yet, at most `events_max`. Blocks, the first time whoever asks for it: a
    /// batch takes about a fifth of a millisecond, one of a feed that is far behind some of them.
    fn read_feed(
        &self,
        turn: u64,
        offsets: RangeInclusive<u64>,
        events_max: usize,
    ) -> Result<Read, StoreError> {
        let end = offsets.end() + 1;
        let offsets = self.progress().give(turn, offsets, events_max)?;
        let Some((first, last)) = offsets.first().zip(offsets.last()) else {
            return Ok((Vec::new(), end));
        };
        let mut rows = self.directory().log.range(first.to_be_bytes()..=last.to_be_bytes());
        let (mut batch, mut bytes_read, mut next) = (Vec::with_capacity(offsets.len()), 0, *first);
        for offset in *first..=*last {
            let gone = || damaged(format!("log entry {offset} cannot be read"));
            let (key, bytes) = rows.next().ok_or_else(gone)?.into_inner().map_err(read_error)?;
            let entry = Entry::decode(&bytes).filter(|_| encoding::number(&key) == Some(offset));
            let delivery = entry.ok_or_else(gone)?.deliver(offset, &bytes);
            if offsets.binary_search(&offset).is_ok() {
                batch.push(delivery);
            }
            (bytes_read, next) = (bytes_read + bytes.len(), offset + 1);
            if bytes_read >= BATCH_EVENTS_BYTES_MAX {
                break;
            }
        }
        // The rest of what was given is read, and given, the next time.
        Ok((batch, next))
    }
}

/// The highest number of each conversation in the batch.
fn heads(batch: &[Delivery]) -> Vec<Applied> {
    let mut heads = BTreeMap::<Conversation, Seq>::new();
    for delivery in batch {
        let moved = match &delivery.content {
            Ok(recorded) => match &recorded.event {
                Event::MessageSent(sent) => Some((sent.conversation(), recorded.seq)),
                Event::UserRegistered(_) | Event::ConversationRead(_) => None,
            },
            // Its marker moves the view as well.
            Err(unreadable) => unreadable.place.clone(),
        };
        if let Some((conversation, seq)) = moved {
            let head = heads.entry(conversation).or_default();
            *head = seq.max(*head);
        }
    }
    heads.into_iter().map(|(conversation, seq)| Applied { conversation, seq }).collect()
}

/// How far the views are, and who works on them.
pub(super) struct Progress(Mutex<Standing>);

struct Standing {
    acknowledged: Acknowledged,
    /// By consumer.
    applied: BTreeMap<String, u64>,
    consumer: Option<String>,
    /// Counts the consumers, so that one that was taken over from is told.
    turn: u64,
    /// The highest offset that was given to the consumer; at first what it started behind.
    given_up_to: u64,
    /// Given and not acknowledged.
    given: BTreeSet<u64>,
}

impl Standing {
    /// An error when it is the turn of a later consumer.
    fn check(&self, turn: u64) -> Result<(), StoreError> {
        if self.turn == turn {
            return Ok(());
        }
        let what = "another consumer of the feed has taken over".to_owned();
        Err(StoreError::Unfit { store: STORE, what })
    }
}

impl Progress {
    pub(super) fn load(views: &Keyspace) -> Result<Self, StoreError> {
        let acknowledged = Acknowledged::load(views)?;
        let mut applied = BTreeMap::new();
        for row in views.prefix(keys::APPLIED) {
            let (key, count) = row.into_inner().map_err(read_error)?;
            let name = std::str::from_utf8(&key[keys::APPLIED.len()..]).ok().map(str::to_owned);
            let row = name.zip(encoding::number(&count));
            applied.extend([row.ok_or_else(|| damaged("a consumer's count cannot be read".to_owned()))?]);
        }
        let given_up_to = acknowledged.up_to();
        let given = BTreeSet::new();
        Ok(Self(Mutex::new(Standing { acknowledged, applied, consumer: None, turn: 0, given_up_to, given })))
    }

    /// Never held for longer than it takes to change what is in memory.
    fn standing(&self) -> MutexGuard<'_, Standing> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The turn of a new consumer, and what it starts behind.
    fn take_over(&self, consumer: &str) -> (u64, u64) {
        let mut standing = self.standing();
        standing.turn += 1;
        standing.consumer = Some(consumer.to_owned());
        standing.given_up_to = standing.acknowledged.up_to();
        standing.given.clear();
        standing.applied.entry(consumer.to_owned()).or_default();
        (standing.turn, standing.given_up_to)
    }

    fn give(
        &self,
        turn: u64,
        offsets: RangeInclusive<u64>,
        events_max: usize,
    ) -> Result<Vec<u64>, StoreError> {
        let mut standing = self.standing();
        standing.check(turn)?;
        let waiting = (offsets.end() + 1).saturating_sub(*offsets.start());
        let part = usize::try_from(waiting).unwrap_or(usize::MAX) / PROJECTED_WHEN_BEHIND_PART;
        let at_once = part.clamp(PROJECTED_PER_BATCH_MAX, PROJECTED_WHEN_BEHIND_MAX);
        let new = offsets.filter(|offset| !standing.acknowledged.contains(*offset));
        let given: Vec<_> = new.take(events_max.clamp(1, at_once)).collect();
        standing.given_up_to = standing.given_up_to.max(given.last().copied().unwrap_or(0));
        standing.given.extend(&given);
        Ok(given)
    }

    /// The views hold these. The caller is the only writer of the views.
    pub(super) fn insert(&self, offsets: &[u64]) {
        let mut standing = self.standing();
        offsets.iter().for_each(|offset| standing.acknowledged.insert(*offset));
    }

    /// Puts the cursor, and the counts of consumers as they are once that is acknowledged.
    pub(super) fn put(&self, rows: &mut Rows<'_>) {
        let standing = self.standing();
        let Standing { acknowledged, applied, consumer, given, .. } = &*standing;
        rows.put(keys::ACKNOWLEDGED.to_vec(), acknowledged.encode());
        let held = given.iter().filter(|offset| acknowledged.contains(**offset)).count() as u64;
        for (name, applied) in applied {
            let held = if consumer.as_ref() == Some(name) { held } else { 0 };
            rows.put(keys::applied(name), (applied + held).to_be_bytes().to_vec());
        }
    }

    fn holds(&self, offsets: &[u64]) -> bool {
        let standing = self.standing();
        offsets.iter().all(|offset| standing.acknowledged.contains(*offset))
    }

    /// Counts those that waited for this acknowledgement.
    fn take_back(&self, turn: u64, offsets: &[u64]) {
        let mut standing = self.standing();
        if standing.turn != turn {
            return;
        }
        let count = offsets.iter().filter(|offset| standing.given.remove(offset)).count() as u64;
        if let Some(consumer) = standing.consumer.clone() {
            *standing.applied.entry(consumer).or_default() += count;
        }
    }
}

#[async_trait]
impl FeedMonitor for Embedded {
    async fn status(&self) -> Result<FeedStatus, StoreError> {
        let head = *self.log_end().borrow();
        let (mut status, oldest) = self.progress().standing().status(head);
        if oldest <= head {
            let bytes = self.directory().log.get(oldest.to_be_bytes()).map_err(read_error)?;
            let entry = bytes.as_deref().and_then(Entry::decode);
            let entry = entry.ok_or_else(|| damaged(format!("log entry {oldest} cannot be read")))?;
            status.partitions[0].behind_ms = self.now().0.saturating_sub(entry.ms).max(1);
        }
        Ok(status)
    }

    async fn first_unacknowledged(&self) -> Result<Vec<Position>, StoreError> {
        let head = *self.log_end().borrow();
        let first = self.progress().standing().acknowledged.up_to() + 1;
        if first > head { Ok(Vec::new()) } else { Ok(vec![self.position_of(first)?]) }
    }
}

impl Standing {
    /// But for the age of the oldest event that is not acknowledged, whose offset is given: beyond `head` there is
    /// none.
    fn status(&self, head: u64) -> (FeedStatus, u64) {
        let pending = self.given.len() as u64;
        let waiting = head.saturating_sub(self.given_up_to);
        let undelivered = waiting.saturating_sub(self.acknowledged.count_after(self.given_up_to));
        let lag = pending + undelivered;
        let partition = PartitionStatus { partition: 0, head, pending, lag, behind_ms: 0, loss: None };
        let consumers = self.applied.iter().map(|(name, applied)| ConsumerStatus {
            name: name.clone(),
            applied: *applied,
            pending: if self.consumer.as_ref() == Some(name) { pending } else { 0 },
            silent_ms: (self.consumer.as_ref() == Some(name)).then_some(0),
        });
        let status = FeedStatus { partitions: vec![partition], consumers: consumers.collect() };
        (status, self.acknowledged.up_to() + 1)
    }
}

#[async_trait]
impl Notices for Embedded {
    fn subscribe(&self) -> broadcast::Receiver<Applied> {
        self.notices().subscribe()
    }
}
