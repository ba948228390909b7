//! One partition on its way into the archive and out of the log. The entries are counted, and each that can be read has
//! to carry the number that follows: where it does not, the log and the archive are not of one piece, and nothing more
//! is archived or trimmed.

use std::collections::VecDeque;

use shared::ids::Position;
use shared::limits::{
    ARCHIVE_BLOCK_ENTRIES, ARCHIVE_BLOCKS_PER_LOOK, ARCHIVE_NOTED_EVERY, ARCHIVE_SETTLED_AFTER,
};
use shared::ports::{Archive, Block, HotLog, HotPartition, LogPlace, StoreError, Trimmed};
use tokio::time::Instant;

use super::Share;
use super::blocks::{last_block, last_readable_block};
use super::holds::Held;
use super::losses::end;
use super::numbers::{Numbers, damaged};
use super::window::HotWindow;

pub(super) struct Partition {
    /// The one that is being filled.
    block: Block,
    /// The last entry that is archived.
    last: Option<Position>,
    /// The last of them that can be read.
    end: Option<LogPlace>,
    numbers: Numbers,
    /// When it was noted how many entries were archived, oldest first.
    noted: VecDeque<(Instant, u64)>,
    /// The archive may have lost what it had acknowledged last.
    goes_back: bool,
    /// How often the log that it is archived from had been repaired.
    repairs: u32,
}

/// What one look has trimmed.
pub(super) struct Gone {
    pub(super) events: u64,
    /// Why it was not as much as it should be.
    pub(super) held: Option<Held>,
}

impl Partition {
    /// Behind what the archive has of this log. Of one that was repaired it has what is trimmed, and the rest is archived
    /// again: some of it may have been lost, and be other entries now.
    pub(super) async fn begin(archive: &dyn Archive, standing: HotPartition) -> Result<Self, StoreError> {
        let HotPartition { partition, blocks_trimmed, repairs, .. } = standing;
        let reach = archive.reach(partition).await?;
        if reach.repairs > repairs {
            return Err(damaged(partition, "the log is one from before it was repaired"));
        }
        let is_of_it = reach.repairs == repairs;
        let entries = if is_of_it { reach.entries } else { blocks_trimmed * ARCHIVE_BLOCK_ENTRIES };
        // The last block may be half written by one who died, or damaged. The log has all of it, and it is written again.
        let last = last_readable_block(archive, partition, entries).await?;
        Ok(Self::behind(partition, last, repairs))
    }

    /// Behind this block, or from the first entry on.
    fn behind(partition: u16, last: Option<Block>, repairs: u32) -> Self {
        let (noted, goes_back) = (VecDeque::new(), false);
        let Some(block) = last else {
            let (block, numbers) = (Block { partition, number: 0, entries: Vec::new() }, Numbers::BEGINNING);
            return Self { block, last: None, end: None, numbers, noted, goes_back, repairs };
        };
        let last = block.entries.last().map(|entry| entry.position);
        Self { block, last, end: None, numbers: Numbers::UNKNOWN, noted, goes_back, repairs }
    }

    /// Behind the first `entries` entries, which the archive has.
    async fn go_to(&mut self, archive: &dyn Archive, entries: u64) -> Result<(), StoreError> {
        let partition = self.block.partition;
        *self = Self::behind(partition, last_block(archive, partition, entries).await?, self.repairs);
        Ok(())
    }

    pub(super) fn go_back(&mut self) {
        self.goes_back = true;
    }

    /// Goes back to where the archive certainly is, if it is not known any more.
    pub(super) async fn make_ready(
        &mut self,
        log: &dyn HotLog,
        archive: &dyn Archive,
        standing: HotPartition,
    ) -> Result<(), StoreError> {
        if standing.repairs != self.repairs {
            *self = Self::begin(archive, standing).await?;
        }
        if self.goes_back {
            let reach = self.settled().max(standing.blocks_trimmed * ARCHIVE_BLOCK_ENTRIES);
            self.go_to(archive, reach).await?;
        }
        self.learn_numbers(log)
    }

    /// The last event that is archived. `None`: none is, or none of its block can be read.
    pub(super) fn end(&self) -> Option<LogPlace> {
        self.end
    }

    /// Copies what the log has gained, at most so much that others get their turn. Returns how many entries.
    pub(super) async fn archive(
        &mut self,
        log: &dyn HotLog,
        archive: &dyn Archive,
    ) -> Result<u64, StoreError> {
        let mut archived = 0;
        for _ in 0..ARCHIVE_BLOCKS_PER_LOOK {
            if self.block.is_full() {
                self.block.number += 1;
                self.block.entries.clear();
            }
            let room = ARCHIVE_BLOCK_ENTRIES as usize - self.block.entries.len();
            let gained = log.entries(self.block.partition, self.last, room).await?;
            let Some(last) = gained.last().map(|entry| entry.position) else { break };
            let (count, is_all) = (gained.len() as u64, gained.len() < room);
            let mut numbers = self.numbers;
            numbers.note_all(log, &gained)?;
            let known = self.block.entries.len();
            self.block.entries.extend(gained);
            if let Err(error) = archive.put(&self.block, self.repairs).await {
                self.block.entries.truncate(known);
                return Err(error);
            }
            (self.last, self.numbers) = (Some(last), numbers);
            self.end = end(log, &self.block).or(self.end);
            archived += count;
            if is_all {
                break;
            }
        }
        self.note(Instant::now());
        Ok(archived)
    }

    /// From the block at hand, after a start.
    fn learn_numbers(&mut self, log: &dyn HotLog) -> Result<(), StoreError> {
        if self.numbers == Numbers::UNKNOWN {
            let mut numbers = self.numbers;
            numbers.note_all(log, &self.block.entries)?;
            (self.numbers, self.end) = (numbers, end(log, &self.block));
        }
        Ok(())
    }

    fn note(&mut self, now: Instant) {
        let is_due = |(at, _): &(Instant, u64)| now.duration_since(*at) >= ARCHIVE_NOTED_EVERY;
        if self.noted.back().is_none_or(is_due) {
            self.noted.push_back((now, self.block.reach()));
        }
        // Of those that are old enough the newest counts.
        while self.noted.get(1).is_some_and(|(at, _)| now.duration_since(*at) >= ARCHIVE_SETTLED_AFTER) {
            self.noted.pop_front();
        }
    }

    /// How many entries the archive has had for long enough.
    fn settled(&self) -> u64 {
        let settled = self.noted.front().filter(|(at, _)| at.elapsed() >= ARCHIVE_SETTLED_AFTER);
        settled.map_or(0, |(_, reach)| *reach)
    }

    /// Has the log forget whole blocks that are beyond the window, each after it was read from the archive.
    pub(super) async fn trim(
        &mut self,
        log: &dyn HotLog,
        archive: &dyn Archive,
        window: &HotWindow,
        standing: HotPartition,
        of_all: Share,
    ) -> Result<Gone, StoreError> {
        let HotPartition { partition, now_ms, entries, bytes, blocks_trimmed, .. } = standing;
        let of_block = bytes * ARCHIVE_BLOCK_ENTRIES / entries.max(1);
        let mut excess = window.excess(bytes, of_all.bytes, of_all.partitions);
        let (mut gone, settled) = (Gone { events: 0, held: None }, self.settled() / ARCHIVE_BLOCK_ENTRIES);
        for number in blocks_trimmed..settled.min(blocks_trimmed + ARCHIVE_BLOCKS_PER_LOOK) {
            let block = match archive.block(partition, number).await {
                Err(StoreError::Damaged { what, .. }) => {
                    self.write_again(log, archive, number, &what).await?;
                    let why = format!("block {number} was damaged in the archive; it is written again");
                    gone.held = Some(why.into());
                    return Ok(gone);
                }
                block => block?.filter(Block::is_full),
            };
            let Some(block) = block else {
                self.go_to(archive, number * ARCHIVE_BLOCK_ENTRIES).await?;
                gone.held =
                    Some(format!("block {number} was lost by the archive; it is written again").into());
                return Ok(gone);
            };
            let Some(last) = block.entries.last().map(|entry| entry.position) else { break };
            let is_beyond = excess >= of_block.max(1) || window.is_older(now_ms, last.ms);
            // What is archived behind it stays.
            if !is_beyond || self.block.reach() <= block.reach() {
                return Ok(gone);
            }
            match log.trim(last, number + 1).await? {
                Trimmed::Done => gone.events += ARCHIVE_BLOCK_ENTRIES,
                Trimmed::Held { group, generation } => {
                    // As long as it gets on it may be held up by what was acknowledged only just now.
                    if gone.events == 0 {
                        let why = format!("group {group} has not acknowledged what is to be trimmed");
                        gone.held = Some(Held { why, generation });
                    }
                    return Ok(gone);
                }
            }
            excess = excess.saturating_sub(of_block);
        }
        if gone.events == 0 && excess > of_block.saturating_mul(2) {
            gone.held = Some("the archive has too little of it yet".to_owned().into());
        }
        Ok(gone)
    }

    /// A damaged block that the log still has.
    async fn write_again(
        &mut self,
        log: &dyn HotLog,
        archive: &dyn Archive,
        number: u64,
        what: &str,
    ) -> Result<(), StoreError> {
        let partition = self.block.partition;
        let before = last_block(archive, partition, number * ARCHIVE_BLOCK_ENTRIES).await?;
        let before = Self::behind(partition, before, self.repairs);
        let mut numbers = before.numbers;
        numbers.note_all(log, &before.block.entries)?;
        let entries = log.entries(partition, before.last, ARCHIVE_BLOCK_ENTRIES as usize).await?;
        numbers.note_all(log, &entries)?;
        let block = Block { partition, number, entries };
        if !block.is_full() {
            return Err(damaged(partition, what));
        }
        tracing::error!(
            partition,
            what,
            "a block of the archive is damaged; it is written again from the log"
        );
        archive.replace(&block, self.repairs).await?;
        // It is not settled yet.
        self.noted.clear();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_archived_only_just_now_is_not_settled() {
        let (block, start) = (Block { partition: 0, number: 2, entries: Vec::new() }, Instant::now());
        let (numbers, noted) = (Numbers::BEGINNING, VecDeque::new());
        let mut partition =
            Partition { block, last: None, end: None, numbers, noted, goes_back: false, repairs: 0 };
        let old = start.checked_sub(ARCHIVE_SETTLED_AFTER).unwrap_or(start);
        partition.note(old);
        partition.block.number = 3;
        partition.note(start);
        assert_eq!(partition.settled(), if old < start { 2 * ARCHIVE_BLOCK_ENTRIES } else { 0 });
    }
}
