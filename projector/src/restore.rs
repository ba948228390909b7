//! Fills a log that has lost everything from the archive: `projector restore`. What comes of it is the same log, put
//! back from a copy that ends where the archive does: with its name and epoch, and every entry, number and user as they
//! were. So whoever knew it goes on, and where views have seen more of it, they say so as they always do (see
//! `repair.rs`).
//!
//! Nothing is said of who has read what: every group is made anew and applies all of it again, which changes nothing
//! in views that have it. What was noted as seen would not do: it is the highest, and something before it may have
//! been under way.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, StreamExt, TryStreamExt};
use serde::Serialize;
use shared::event::Event;
use shared::ids::{Position, Seq, Subject};
use shared::limits::{ARCHIVE_BLOCK_ENTRIES, RESTORED_BLOCKS_AT_ONCE, RESTORED_BLOCKS_HOT};
use shared::ports::{
    Archive, BeingWritten, Block, Delivery, EmptyLog, Epoch, LogNumbers, Reach, Seen, StoreError,
    TrimmedBlocks,
};

use crate::archiving::blocks::{before_last, last_block, not_whole};
use crate::archiving::numbers::{Numbers, damaged};
use crate::reading::retrying;
use crate::seen::SeenLogs;

/// An empty log, and what is left of the one that it was.
pub struct Restore {
    pub log: Box<dyn EmptyLog>,
    pub archive: Arc<dyn Archive>,
    /// The serving generation says which log it was.
    pub seen: SeenLogs,
    /// How long a repeated send is recognised.
    pub window: Duration,
}

#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the views have seen no log: which one it was is not known")]
    NoLog,
    #[error("the log had {had} partitions, and this program was told {told}")]
    Partitions { had: usize, told: u16 },
    #[error("nothing is archived")]
    Nothing,
    #[error("the log stays closed until it is restored whole")]
    Unfinished(#[source] StoreError),
    #[error("the archive has grown meanwhile, by what was still under way: restore it again")]
    Grown,
}

/// What is there again.
#[derive(Debug, Serialize)]
pub struct Restored {
    pub epoch: Epoch,
    pub partitions: Vec<RestoredPartition>,
    pub users: u64,
    /// Messages of which a repetition of the id is recognised.
    pub repeatable: u64,
}

#[derive(Debug, Default, Serialize)]
pub struct RestoredPartition {
    pub partition: u16,
    /// Of the archive.
    pub events: u64,
    /// Of them those that the log holds itself.
    pub hot: u64,
    /// Of them those that could not be read: they stand where they stood, and users and numbers in them are not known.
    pub unreadable: u64,
    /// That views have seen behind the end of the archive.
    pub beyond: u64,
}

/// What was noted of a partition on the way.
struct Pass {
    restored: RestoredPartition,
    numbers: LogNumbers,
    order: Numbers,
    first: Option<Position>,
    last: Option<Position>,
    /// Blocks that the log does not hold itself.
    cold: u64,
    users: u64,
    repeatable: u64,
}

impl Restore {
    /// Cut short, it can be begun anew; until it got to the end nobody else gets at the log. `tell`: so many events of so
    /// many.
    pub async fn run(mut self, tell: impl Fn(u64, u64)) -> Result<Restored, RestoreError> {
        let seen = self.seen().await?;
        let archived = self.archived().await?;
        if archived.iter().all(|reach| reach.entries == 0) {
            return Err(RestoreError::Nothing);
        }
        let repairs = archived.iter().map(|reach| reach.repairs).max();
        let epoch = epoch(&seen, repairs.unwrap_or(0)).ok_or(RestoreError::NoLog)?;
        self.log.close().await?;
        let restored =
            self.fill_all(&archived, &seen, epoch, tell).await.map_err(RestoreError::Unfinished)?;
        if self.archived().await.map_err(RestoreError::Unfinished)? != archived {
            return Err(RestoreError::Grown);
        }
        self.log.open(&restored.epoch).await.map_err(RestoreError::Unfinished)?;
        Ok(restored)
    }

    /// What the serving generation has seen, then all others.
    async fn seen(&self) -> Result<Vec<Seen>, RestoreError> {
        let (mut seen, told) = (self.seen.serving.seen().await?, self.log.partitions());
        match seen.len() {
            0 => return Err(RestoreError::NoLog),
            had if had == usize::from(told) => {}
            had => return Err(RestoreError::Partitions { had, told }),
        }
        for other in &self.seen.others {
            seen.extend(other.seen().await?);
        }
        Ok(seen)
    }

    async fn archived(&self) -> Result<Vec<Reach>, StoreError> {
        let mut archived = Vec::new();
        for partition in 0..self.log.partitions() {
            archived.push(archived_of(&*self.archive, partition).await?);
        }
        Ok(archived)
    }

    async fn fill_all(
        &mut self,
        archived: &[Reach],
        seen: &[Seen],
        epoch: Epoch,
        tell: impl Fn(u64, u64),
    ) -> Result<Restored, StoreError> {
        let (mut done, of) = (0, archived.iter().map(|reach| reach.entries).sum());
        let mut restored = Restored { epoch, partitions: Vec::new(), users: 0, repeatable: 0 };
        for (partition, Reach { entries, .. }) in (0..).zip(archived) {
            let pass = self.fill(partition, *entries, |entries| tell(done + entries, of)).await?;
            self.log.number(&pass.numbers).await?;
            done += entries;
            restored.add(pass, seen);
        }
        Ok(restored)
    }

    async fn fill(&mut self, partition: u16, entries: u64, tell: impl Fn(u64)) -> Result<Pass, StoreError> {
        let (archive, blocks) = (Arc::clone(&self.archive), entries.div_ceil(ARCHIVE_BLOCK_ENTRIES));
        let read = stream::iter(0..blocks).map(|number| block(&*archive, partition, number));
        let mut read = read.buffered(RESTORED_BLOCKS_AT_ONCE);
        let mut pass = Pass::begin(partition, blocks.saturating_sub(RESTORED_BLOCKS_HOT));
        while let Some(block) = read.try_next().await? {
            let is_hot = block.number >= pass.cold;
            if block.reach() < entries.min((block.number + 1) * ARCHIVE_BLOCK_ENTRIES) {
                return Err(not_whole(partition, block.number));
            }
            let mut events = Vec::with_capacity(block.entries.len());
            for entry in &block.entries {
                let delivery = self.log.read(entry.clone());
                pass.note(&delivery, is_hot)?;
                events.extend(delivery.content.ok());
            }
            pass.repeatable += self.log.keep(&events, self.window).await?;
            if is_hot {
                self.log.put(&block.entries).await?;
            }
            tell(pass.restored.events);
        }
        Ok(pass)
    }
}

impl Pass {
    fn begin(partition: u16, cold: u64) -> Self {
        let restored = RestoredPartition { partition, ..RestoredPartition::default() };
        let numbers = LogNumbers { partition, offset: 0, heads: BTreeMap::new(), trimmed: None };
        let order = Numbers::BEGINNING;
        Self { restored, numbers, order, first: None, last: None, cold, users: 0, repeatable: 0 }
    }

    fn note(&mut self, delivery: &Delivery, is_hot: bool) -> Result<(), StoreError> {
        let (partition, position) = (self.restored.partition, delivery.position);
        if self.last.is_some_and(|last| position <= last) {
            return Err(damaged(partition, &format!("the entry at {position} stands behind a later one")));
        }
        self.order.note(delivery)?;
        self.numbers.offset = self.order.last();
        let numbered = match &delivery.content {
            Ok(recorded) => {
                self.users += u64::from(matches!(recorded.event, Event::UserRegistered(_)));
                Some((recorded.event.subject(), recorded.seq))
            }
            Err(unreadable) => {
                self.restored.unreadable += 1;
                let place = unreadable.place.clone();
                let place = place.map(|(conversation, seq)| (Subject::Conversation(conversation), seq));
                place.filter(|(subject, seq)| self.may_follow(subject, *seq))
            }
        };
        if let Some((subject, seq)) = numbered {
            let head = self.numbers.heads.entry(subject).or_default();
            *head = seq.max(*head);
        }
        self.restored.events += 1;
        self.restored.hot += u64::from(is_hot);
        self.first = self.first.or(Some(position));
        self.last = Some(position);
        if !is_hot && let (Some(first), Some(last)) = (self.first, self.last) {
            self.numbers.trimmed = Some(TrimmedBlocks { blocks: self.cold, first, last });
        }
        Ok(())
    }

    /// What an entry that cannot be read says of its place may be damaged too. Between it and the last number there are
    /// no more than cannot be read; behind a gap nobody would be shown anything.
    fn may_follow(&self, subject: &Subject, seq: Seq) -> bool {
        let head = self.numbers.heads.get(subject).copied().unwrap_or(0);
        seq <= head + self.restored.unreadable
    }
}

impl Restored {
    fn add(&mut self, pass: Pass, seen: &[Seen]) {
        let Pass { mut restored, numbers, users, repeatable, .. } = pass;
        let of_it =
            |one: &&Seen| one.partition == restored.partition && one.epoch.as_ref() == Some(&self.epoch);
        let seen = seen.iter().filter(of_it).filter_map(|one| one.last).map(|last| last.offset);
        restored.beyond = seen.max().unwrap_or(0).saturating_sub(numbers.offset);
        self.users += users;
        self.repeatable += repeatable;
        self.partitions.push(restored);
    }

    /// For a person.
    #[must_use]
    pub fn lines(&self) -> String {
        let Self { epoch, partitions, users, repeatable } = self;
        let mut text = format!(
            "{:<10} {:>12} {:>12} {:>12} {:>12}\n",
            "partition", "events", "hot", "unreadable", "beyond"
        );
        for RestoredPartition { partition, events, hot, unreadable, beyond } in partitions {
            text += &format!("{partition:<10} {events:>12} {hot:>12} {unreadable:>12} {beyond:>12}\n");
        }
        let sum = |of: fn(&RestoredPartition) -> u64| partitions.iter().map(of).sum::<u64>();
        let (events, unreadable, beyond) =
            (sum(|one| one.events), sum(|one| one.unreadable), sum(|one| one.beyond));
        text += &format!(
            "log {epoch} is there again: {events} events, {users} users, {repeatable} messages that can be sent again \
             by their id\nnot restored: sessions, idempotency keys of headers, what was appended behind the archive\n\
             start command-apis and projectors again that were started on the empty log: their /readyz says so\n"
        );
        if unreadable > 0 {
            text += &format!(
                "{unreadable} events cannot be read: what they registered, marked or numbered is not known\n"
            );
        }
        text + &match beyond {
            0 => "the views have seen nothing that the log lacks".to_owned(),
            beyond => format!(
                "the views have seen {beyond} events that the log lacks: `projector repair` says which"
            ),
        }
    }
}

/// Of the log that the first of them has seen, the latest.
fn epoch(seen: &[Seen], repairs: u32) -> Option<Epoch> {
    let mut epochs = seen.iter().filter_map(|one| one.epoch.as_ref());
    let first = epochs.next()?;
    let later = epochs.filter(|epoch| epoch.log == first.log).map(|epoch| epoch.repairs).max();
    Some(Epoch { log: first.log.clone(), repairs: first.repairs.max(later.unwrap_or(0)).max(repairs) })
}

/// How far the archive really is. That may be more than it has noted, if that was lost; behind the end there may be
/// blocks of the log from before a repair, which are older.
async fn archived_of(archive: &dyn Archive, partition: u16) -> Result<Reach, StoreError> {
    let Reach { entries, repairs } = retrying(|| archive.reach(partition)).await?;
    let mut end = match retrying(|| last_block(archive, partition, entries)).await {
        // Half written by one who died, as nobody has it whole any more.
        Err(error) if BeingWritten::is_why(&error) => {
            return Ok(Reach { entries: before_last(entries), repairs });
        }
        end => end?,
    };
    while end.as_ref().is_none_or(Block::is_full) {
        let number = end.as_ref().map_or(0, |end| end.number + 1);
        let Some(next) = retrying(|| archive.block(partition, number)).await? else { break };
        let last = end.as_ref().and_then(|end| end.entries.last());
        if last.map(|entry| entry.position) >= next.entries.first().map(|entry| entry.position) {
            break;
        }
        end = Some(next);
    }
    Ok(Reach { entries: end.map_or(0, |end| end.reach()), repairs })
}

/// One that has to be there.
async fn block(archive: &dyn Archive, partition: u16, number: u64) -> Result<Block, StoreError> {
    let block = retrying(|| archive.block(partition, number)).await?;
    block.ok_or_else(|| damaged(partition, &format!("block {number} is not there")))
}

#[cfg(test)]
mod tests {
    use shared::ports::LogPlace;

    use super::*;
    use crate::deliveries::{registered, sent, unreadable};

    fn seen(partition: u16, epoch: &str, offset: u64) -> Seen {
        let position = Position { partition, ms: offset, counter: 0 };
        let last = (offset > 0).then_some(LogPlace { position, offset });
        Seen { partition, epoch: Some(epoch.parse().unwrap()), last, is_told_lost: false }
    }

    #[test]
    fn it_is_the_log_that_the_serving_views_have_seen() {
        let unknown = Seen { epoch: None, ..seen(0, "a", 0) };
        for (seen, repairs, expected) in [
            (vec![seen(0, "a", 3)], 0, Some("a")),
            (vec![seen(0, "a", 3), seen(1, "a.2", 3), seen(0, "b.7", 3)], 0, Some("a.2")),
            (vec![unknown.clone(), seen(1, "a.2", 3)], 3, Some("a.3")),
            (vec![unknown], 1, None),
        ] {
            assert_eq!(epoch(&seen, repairs).map(|epoch| epoch.to_string()).as_deref(), expected);
        }
    }

    #[test]
    fn what_cannot_be_read_takes_a_number_and_opens_no_gap() {
        let mut pass = Pass::begin(0, 0);
        for delivery in [
            sent("lena", "samer", 1, 1),
            unreadable("lena", "samer", 2, 2),
            unreadable("lena", "omar", 3, 3),
            unreadable("omar", "samer", 1, 4),
        ] {
            pass.note(&delivery, true).unwrap();
        }
        let head = |subject: &str| pass.numbers.heads.get(&subject.parse::<Subject>().unwrap()).copied();
        assert_eq!(
            (head("c:lena:samer"), head("c:lena:omar"), head("c:omar:samer")),
            (Some(2), None, Some(1))
        );
    }

    #[test]
    fn what_views_have_seen_behind_the_archive_is_counted() {
        let mut pass = Pass::begin(1, 0);
        for offset in 1..=3 {
            let mut delivery = registered("samer", offset);
            delivery.position = Position { partition: 1, ms: offset, counter: 0 };
            pass.note(&delivery, true).unwrap();
        }
        assert!(pass.note(&registered("samer", 4), true).is_err(), "an entry that stands behind a later one");
        let mut restored =
            Restored { epoch: "a.1".parse().unwrap(), partitions: Vec::new(), users: 0, repeatable: 0 };
        restored.add(pass, &[seen(1, "a.1", 5), seen(1, "a", 9), seen(0, "a.1", 8), seen(1, "a.1", 2)]);
        let one = &restored.partitions[0];
        assert_eq!((one.events, one.hot, one.beyond), (3, 3, 2));
    }
}
