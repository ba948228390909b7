//! The log as the archive needs it: entries as they lie there, few at a time, and the end of those that may go. Only here are entries removed from a stream, and only in `trim.lua`.

use std::sync::Arc;

use async_trait::async_trait;
use redis::{Pipeline, Value};
use shared::ids::Position;
use shared::limits::{ACK_TRAIL_SPAN, ARCHIVED_FIELD_BYTES_MAX, ENTRY_BYTES_MAX, TRIM_TRAIL_SPANS};
use shared::ports::{
    Delivery, Epoch, HotLog, HotPartition, HotStanding, LogEntry, LogMemory, LogPlace, Loss, Seen,
    StoreError, Trimmed,
};

use super::durability::{field, told};
#[cfg(feature = "cassandra")]
use super::keys::TRIMMED_LAST;
use super::keys::{LOG_EPOCH, TRIMMED_BLOCKS};
use super::link::Link;
use super::server::{Server, unavailable, unexpected};
use super::{STORE, entry, feed, inspection};

const TRIM: &str = concat!(include_str!("ids.lua"), include_str!("fields.lua"), include_str!("trim.lua"));

/// Commands of [`Hot::standing`] per partition.
const ASKED: usize = 3;

/// On the shared connection.
#[derive(Clone)]
pub struct Hot {
    pub(super) server: Arc<Server>,
    pub(super) link: Link,
}

#[async_trait]
impl HotLog for Hot {
    async fn standing(&self) -> Result<HotStanding, StoreError> {
        let keys = &self.server.keys;
        let mut pipeline = Pipeline::with_capacity(2 + ASKED * usize::from(keys.partitions));
        pipeline.cmd("TIME");
        pipeline.cmd("HGET").arg(keys.log()).arg(LOG_EPOCH);
        for partition in 0..keys.partitions {
            let events = keys.events(partition);
            pipeline.cmd("XLEN").arg(&events);
            pipeline.cmd("MEMORY").arg("USAGE").arg(&events);
            pipeline.cmd("HGET").arg(keys.trimmed(partition)).arg(TRIMMED_BLOCKS);
        }
        let mut answers = self.link.read::<Vec<Value>>(&pipeline).await?.into_iter();
        let (seconds, micros): (u64, u64) = read(answers.next().unwrap_or(Value::Nil))?;
        let now_ms = seconds * 1_000 + micros / 1_000;
        let epoch: Option<String> = read(answers.next().unwrap_or(Value::Nil))?;
        let epoch = epoch.and_then(|epoch| epoch.parse::<Epoch>().ok());
        let repairs = epoch.as_ref().map_or(0, |epoch| epoch.repairs);
        let mut partitions = Vec::with_capacity(usize::from(keys.partitions));
        for partition in 0..keys.partitions {
            let mut next = || answers.next().unwrap_or(Value::Nil);
            let (entries, bytes) = (read(next())?, read::<Option<u64>>(next())?.unwrap_or(0));
            let blocks_trimmed = read::<Option<u64>>(next())?.unwrap_or(0);
            partitions.push(HotPartition { partition, now_ms, entries, bytes, blocks_trimmed, repairs });
        }
        let mut info = Pipeline::with_capacity(1);
        info.cmd("INFO").arg("memory");
        // A hosted Redis may refuse it.
        let memory = memory(&told::<String>(self.link.read_each(&info).await?.into_iter().next()));
        Ok(HotStanding { epoch, partitions, memory })
    }

    async fn entries(
        &self,
        partition: u16,
        after: Option<Position>,
        entries_max: usize,
    ) -> Result<Vec<LogEntry>, StoreError> {
        let first = after.map_or_else(|| "-".to_owned(), |after| format!("({}", entry::id(&after)));
        let mut pipeline = Pipeline::with_capacity(2);
        pipeline.cmd("XRANGE").arg(self.server.keys.events(partition));
        pipeline.arg(first).arg("+").arg("COUNT").arg(entries_max);
        self.server.ask_epoch(&mut pipeline);
        let (entries, epoch): (Value, Option<String>) = self.link.read(&pipeline).await?;
        // What is archived as this log's is not of one that was begun in its place.
        self.server.right.check_again(epoch)?;
        let mut entries = entry::raw(partition, entries).ok_or_else(|| unavailable(unexpected()))?;
        entries.iter_mut().for_each(keep_beginning);
        Ok(entries)
    }

    fn read(&self, entry: LogEntry) -> Delivery {
        entry::open(entry)
    }

    async fn losses(&self, archived: &[LogPlace]) -> Result<Vec<Option<Loss>>, StoreError> {
        let seen = |place: &LogPlace| Seen {
            partition: place.position.partition,
            epoch: None,
            last: Some(*place),
            is_told_lost: false,
        };
        let seen: Vec<_> = archived.iter().map(seen).collect();
        let answers = self.link.read(&inspection::question(&self.server.keys, &seen)).await?;
        let (_, losses) = inspection::answer(&seen, answers).map_err(unavailable)?;
        Ok(losses.into_iter().map(|loss| loss.map(of_archive)).collect())
    }

    async fn trim(&self, last: Position, blocks: u64) -> Result<Trimmed, StoreError> {
        let keys = &self.server.keys;
        let counter = last.counter.checked_add(1);
        let counter = counter.ok_or_else(|| StoreError::Damaged { store: STORE, what: format!("{last}") })?;
        let mut pipeline = Pipeline::with_capacity(1);
        pipeline
            .cmd("EVAL")
            .arg(TRIM)
            .arg(2)
            .arg(keys.events(last.partition))
            .arg(keys.trimmed(last.partition));
        pipeline.arg(entry::id(&last)).arg(entry::id(&Position { counter, ..last })).arg(blocks);
        pipeline.arg(keys.trail(last.partition, ""));
        pipeline.arg(ACK_TRAIL_SPAN.as_secs()).arg(TRIM_TRAIL_SPANS);
        let (held,): (Option<String>,) = self.link.write(&pipeline).await?;
        let held = held.map(|group| Trimmed::Held { generation: feed::generation(&group), group });
        Ok(held.unwrap_or(Trimmed::Done))
    }
}

#[cfg(feature = "cassandra")]
impl Hot {
    /// For readers of the archive. The last entry that was trimmed, and of how many blocks it ends the last; `None`: none
    /// was.
    pub(crate) async fn trimmed(&self, partition: u16) -> Result<Option<(Position, u64)>, StoreError> {
        let mut pipeline = Pipeline::with_capacity(1);
        pipeline.cmd("HMGET").arg(self.server.keys.trimmed(partition)).arg(TRIMMED_LAST).arg(TRIMMED_BLOCKS);
        let ((last, blocks),): ((Option<String>, Option<u64>),) = self.link.read(&pipeline).await?;
        let last = last.and_then(|id| entry::position(partition, &id));
        Ok(last.zip(blocks))
    }
}

/// Of fields that are larger than any event's, and of all of them together.
fn keep_beginning(entry: &mut LogEntry) {
    let mut room = ENTRY_BYTES_MAX;
    for field in &mut entry.fields {
        let kept = field.len().min(ARCHIVED_FIELD_BYTES_MAX).min(room);
        if kept < field.len() {
            *field = field[..kept].to_vec();
        }
        room -= kept;
    }
}

fn memory(info: &str) -> Option<LogMemory> {
    let bytes = |name| field(info, name)?.parse::<u64>().ok();
    let max = bytes("maxmemory").filter(|max| *max > 0)?;
    Some(LogMemory { used: bytes("used_memory")?, max })
}

fn of_archive(loss: Loss) -> Loss {
    match loss {
        Loss::Back { ends, seen } => Loss::Archived { ends, archived: seen },
        Loss::Gone | Loss::Archived { .. } | Loss::Other { .. } => loss,
    }
}

fn read<T: redis::FromRedisValue>(value: Value) -> Result<T, StoreError> {
    redis::from_redis_value(value).map_err(|error| unavailable(error.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_what_no_event_has_the_beginning_is_kept() {
        let kept = |lengths: &[usize]| {
            let fields = lengths.iter().map(|length| vec![b'x'; *length]).collect();
            let mut entry = LogEntry { position: Position { partition: 0, ms: 1, counter: 0 }, fields };
            keep_beginning(&mut entry);
            entry.fields.iter().map(Vec::len).collect::<Vec<_>>()
        };
        const FIELD: usize = ARCHIVED_FIELD_BYTES_MAX;
        assert_eq!(kept(&[1, 100, 1, FIELD]), [1, 100, 1, FIELD], "the largest event");
        assert_eq!(kept(&[1, 100, 1, FIELD + 1]), [1, 100, 1, FIELD]);
        assert_eq!(kept(&[ENTRY_BYTES_MAX, FIELD - 1, 7, 7]), [FIELD, FIELD - 1, 1, 0]);
    }
}
