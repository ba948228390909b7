//! Leaves partitions alone that do not hold what was seen of them, until they do. That is looked at on each new
//! connection, as a Redis that was restarted, restored or replaced breaks it, and then now and again (see
//! [`inspection`]). One entry that cannot be of one log with what was seen is enough to leave its partition alone at
//! once.

use shared::limits::{FEED_WAIT_MAX, LOG_INSPECTED_EVERY};
use shared::ports::{Delivery, LogPlace, Loss, StoreError};
use tokio::time::Instant;

use super::super::inspection;
use super::super::right::RightLog;
use super::super::server::unavailable;
use super::Feed;

impl Feed {
    pub(super) fn is_due(&self) -> bool {
        let is_whole = self.partitions.len() == self.streams.len();
        let apart = if is_whole { LOG_INSPECTED_EVERY } else { FEED_WAIT_MAX };
        self.inspected_at.is_none_or(|at| at.elapsed() >= apart)
    }

    /// Leaves alone the partitions that have lost events. Returns whether there are some that have them again.
    pub(super) async fn inspect(&mut self) -> Result<bool, StoreError> {
        // First: the log only goes on, so it holds whatever was seen of it before.
        let heard = match &self.seen {
            Some(seen) => seen.seen().await,
            None => Ok(Vec::new()),
        };
        // What is known will do for as long as the connection is the same.
        let heard = if self.inspected_at.is_some() { heard.unwrap_or_default() } else { heard? };
        if self.inspected_at.is_none() && self.seen.is_some() {
            // What this consumer alone has read is in no view yet, and may be lost.
            self.known = inspection::unknown(self.server.keys.partitions);
        }
        inspection::learn(&mut self.known, heard);
        let question = inspection::question(&self.server.keys, &self.known);
        let answers = self.ask(&question).await.map_err(unavailable)?;
        let (epoch, losses) = inspection::answer(&self.known, answers).map_err(unavailable)?;
        let epoch = self.server.right.check_again(epoch)?;
        let is_whole = |partition: &u16| losses[usize::from(*partition)].is_none();
        let partitions: Vec<_> = (0..self.server.keys.partitions).filter(is_whole).collect();
        let is_new = |partition: &&u16| self.known[usize::from(**partition)].epoch.is_none();
        let new: Vec<_> = partitions.iter().filter(is_new).copied().collect();
        if let (Some(seen), false) = (&self.seen, new.is_empty()) {
            seen.follow(&new, &epoch).await?;
            new.into_iter().for_each(|new| self.known[usize::from(new)].epoch = Some(epoch.clone()));
        }
        for &partition in &self.partitions {
            if let Some(loss) = &losses[usize::from(partition)] {
                self.tell(partition, loss);
            }
        }
        self.tell_readers(&losses).await;
        let is_back = partitions.iter().any(|partition| !self.partitions.contains(partition));
        (self.partitions, self.inspected_at, self.epoch) = (partitions, Some(Instant::now()), Some(epoch));
        Ok(is_back)
    }

    /// Whether what was read is of the log that was looked at: that may have been emptied since, and begun anew or
    /// repaired. Where nothing was seen of a partition, its entries do not tell.
    pub(super) fn is_of_the_log(&mut self) -> Result<(), StoreError> {
        let epoch = self.server.right.check_again(self.read_from.take())?;
        if self.epoch.as_ref() == Some(&epoch) { Ok(()) } else { Err(RightLog::repaired(&epoch)) }
    }

    /// What they were not told yet, or were told otherwise. If it fails, the next look does it.
    async fn tell_readers(&mut self, losses: &[Option<Loss>]) {
        let (mut lost, mut whole) = (Vec::new(), Vec::new());
        for (seen, loss) in self.known.iter().zip(losses) {
            match (seen.is_told_lost, loss) {
                (false, Some(_)) => lost.push(seen.partition),
                (true, None) => whole.push(seen.partition),
                (false, None) | (true, Some(_)) => {}
            }
        }
        if let Some(seen) = self.seen.as_ref().filter(|_| !(lost.is_empty() && whole.is_empty()))
            && let Err(error) = seen.tell(&lost, &whole).await
        {
            tracing::debug!(error = &error as &dyn std::error::Error, "readers cannot be told of losses now");
        }
    }

    fn tell(&self, partition: u16, loss: &Loss) {
        let (group, loss) = (&self.group, loss.text(partition));
        tracing::error!(group, partition, loss, "a partition has lost events; it is left alone");
    }

    /// Without the partitions that give what cannot be of one log with what was seen.
    pub(super) fn admitted(&mut self, mut batch: Vec<Delivery>) -> Vec<Delivery> {
        for point in batch.iter().filter_map(LogPlace::of) {
            let partition = point.position.partition;
            let last = &mut self.known[usize::from(partition)].last;
            match last {
                Some(seen) if !seen.agrees(&point) => {
                    let loss = Loss::Back { ends: point.offset, seen: seen.offset };
                    if self.partitions.contains(&partition) {
                        self.tell(partition, &loss);
                        self.partitions.retain(|other| *other != partition);
                    }
                }
                Some(seen) if seen.offset >= point.offset => {}
                Some(_) | None => *last = Some(point),
            }
        }
        batch.retain(|delivery| self.partitions.contains(&delivery.position.partition));
        batch
    }
}
