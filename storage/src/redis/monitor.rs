//! How far a generation is, from the log's own numbers (Redis' `lag` is wrong once entries were trimmed or deleted),
//! and whether the log still holds what the generation has seen.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use redis::Pipeline;
use shared::ids::Position;
use shared::limits::ARCHIVE_BLOCK_ENTRIES;
use shared::ports::{
    ConsumerStatus, FeedMonitor, FeedStatus, Loss, PartitionStatus, Seen, SeenLog, StoreError,
};

use super::entry;
use super::inspection;
use super::link::Link;
use super::server::{Server, unavailable, unexpected};

/// KEYS: events, heads, applied, trimmed, backlog. ARGV: group, entries of a block. Answers head, offset of the last
/// delivered, pending, age of the oldest that is not acknowledged (ms, 0: none), how many it has yet to read from the
/// archive, then the consumers as name, pending, ms of silence, …, then name, applied, …. One script, so that the
/// numbers are of one moment.
///
/// The offset is in the entry that was delivered last or, if that one is gone or unreadable, follows from a
/// neighbour.
const STATUS: &str = concat!(
    "#!lua flags=no-writes\n",
    include_str!("fields.lua"),
    "
local events, heads, applied, group = KEYS[1], KEYS[2], KEYS[3], ARGV[1]
local READ_MAX = 16

local head = tonumber(redis.call('HGET', heads, '#') or 0) or 0

local function delivered(last)
  local before = redis.call('XREVRANGE', events, last, '-', 'COUNT', READ_MAX)
  for at, entry in ipairs(before) do
    local offset = offset_of(entry)
    if offset then return offset + at - 1 end
  end
  local after = redis.call('XRANGE', events, '(' .. last, '+', 'COUNT', READ_MAX)
  for at, entry in ipairs(after) do
    local offset = offset_of(entry)
    if offset then return math.max(offset - at, 0) end
  end
  return #after == 0 and head or 0
end

-- Of the first that was trimmed if it is not applied, of the first pending one, of the first that was not delivered.
local function behind(last, archived)
  local now, oldest = redis.call('TIME'), nil
  now = now[1] * 1000 + math.floor(now[2] / 1000)
  local undelivered = redis.call('XRANGE', events, '(' .. last, '+', 'COUNT', 1)
  local pending = last ~= '0-0' and redis.call('XPENDING', events, group) or {0}
  local ids = {undelivered[1] and undelivered[1][1] or '', pending[1] > 0 and pending[2] or ''}
  ids[3] = archived and redis.call('HGET', KEYS[4], 'first') or ''
  for _, id in ipairs(ids) do
    local ms = tonumber(string.match(id, '^(%d+)-'))
    if ms then oldest = math.min(ms, oldest or ms) end
  end
  return oldest and math.max(now - oldest, 1) or 0
end

local offset, pending, consumers, last = 0, 0, {}, '0-0'
-- Without a group everything is yet to be read, and counted as not delivered.
local archived, has_group = 0, false
if redis.call('EXISTS', events) == 1 then
  for _, info in ipairs(redis.call('XINFO', 'GROUPS', events)) do
    info = fields(info)
    if info.name == group then
      last, has_group = info['last-delivered-id'], true
      local blocks = redis.call('HMGET', KEYS[5], 'blocks', 'done')
      archived = ((tonumber(blocks[1]) or 0) - (tonumber(blocks[2]) or 0)) * ARGV[2]
      offset, pending = delivered(last), info.pending
      for _, consumer in ipairs(redis.call('XINFO', 'CONSUMERS', events, group)) do
        consumer = fields(consumer)
        consumers[#consumers + 1] = consumer.name
        consumers[#consumers + 1] = consumer.pending
        consumers[#consumers + 1] = consumer.idle
      end
    end
  end
end
local age = behind(last, archived > 0 or not has_group)
return {head, offset, pending, age, archived, consumers, redis.call('HGETALL', applied)}
"
);

/// KEYS: events, trimmed, backlog. ARGV: group. Answers the id of the first entry that the group has not acknowledged, or
/// nothing: what was trimmed comes before what is pending, and that before what was not delivered.
const FIRST_UNACKNOWLEDGED: &str = concat!(
    "#!lua flags=no-writes\n",
    include_str!("fields.lua"),
    "
local events, group = KEYS[1], ARGV[1]
if redis.call('EXISTS', events) == 0 then return false end
local last, first = '0-0', redis.call('HGET', KEYS[2], 'first')
for _, info in ipairs(redis.call('XINFO', 'GROUPS', events)) do
  info = fields(info)
  if info.name == group then
    if redis.call('EXISTS', KEYS[3]) == 0 then first = false end
    if first then return first end
    if info.pending > 0 then return redis.call('XPENDING', events, group)[2] end
    last = info['last-delivered-id']
  end
end
if first then return first end
local undelivered = redis.call('XRANGE', events, '(' .. last, '+', 'COUNT', 1)
return undelivered[1] and undelivered[1][1] or false
"
);

/// On the shared connection.
#[derive(Clone)]
pub struct Monitor {
    pub(super) server: Arc<Server>,
    pub(super) link: Link,
    pub(super) group: String,
    pub(super) seen: Option<Arc<dyn SeenLog>>,
    /// What was heard of it last.
    pub(super) known: Arc<Mutex<Vec<Seen>>>,
}

type Answer = (u64, u64, u64, u64, u64, Vec<(String, u64, u64)>, Vec<(String, u64)>);

impl Monitor {
    /// As [`Feed::guarded`](super::Feed::guarded).
    #[must_use]
    pub fn guarded(self, seen: Arc<dyn SeenLog>) -> Self {
        Self { seen: Some(seen), ..self }
    }

    /// What each partition has lost. While the views are away: of what was known before.
    async fn losses(&self) -> Result<Vec<Option<Loss>>, StoreError> {
        // First: the log only goes on, so it holds whatever was seen of it before.
        let heard = match &self.seen {
            Some(seen) => seen.seen().await.unwrap_or_default(),
            None => Vec::new(),
        };
        let known = {
            let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            inspection::learn(&mut known, heard);
            known.clone()
        };
        let answers = self.link.read(&inspection::question(&self.server.keys, &known)).await?;
        let (_, losses) = inspection::answer(&known, answers).map_err(unavailable)?;
        Ok(losses)
    }
}

#[async_trait]
impl FeedMonitor for Monitor {
    async fn status(&self) -> Result<FeedStatus, StoreError> {
        let losses = self.losses().await?;
        let keys = &self.server.keys;
        let mut pipeline = Pipeline::with_capacity(usize::from(keys.partitions));
        for partition in 0..keys.partitions {
            pipeline.cmd("EVAL").arg(STATUS).arg(5).arg(keys.events(partition)).arg(keys.heads(partition));
            pipeline.arg(keys.applied(partition, &self.group)).arg(keys.trimmed(partition));
            pipeline.arg(keys.backlog(partition, &self.group)).arg(&self.group).arg(ARCHIVE_BLOCK_ENTRIES);
        }
        let answers: Vec<Answer> = self.link.read(&pipeline).await?;
        Ok(status(answers, losses))
    }

    async fn first_unacknowledged(&self) -> Result<Vec<Position>, StoreError> {
        let keys = &self.server.keys;
        let mut pipeline = Pipeline::with_capacity(usize::from(keys.partitions));
        for partition in 0..keys.partitions {
            pipeline.cmd("EVAL").arg(FIRST_UNACKNOWLEDGED).arg(3).arg(keys.events(partition));
            pipeline.arg(keys.trimmed(partition)).arg(keys.backlog(partition, &self.group)).arg(&self.group);
        }
        let answers: Vec<Option<String>> = self.link.read(&pipeline).await?;
        let read = |(partition, id): (u16, Option<String>)| {
            let position =
                |id: String| entry::position(partition, &id).ok_or_else(|| unavailable(unexpected()));
            id.map(position)
        };
        (0..).zip(answers).filter_map(read).collect()
    }
}

fn status(answers: Vec<Answer>, losses: Vec<Option<Loss>>) -> FeedStatus {
    let mut partitions = Vec::with_capacity(answers.len());
    let mut consumers: BTreeMap<String, ConsumerStatus> = BTreeMap::new();
    for ((partition, loss), answer) in (0..).zip(losses).zip(answers) {
        let (head, delivered, pending, behind_ms, archived, waiting, applied) = answer;
        let lag = head.saturating_sub(delivered) + pending + archived;
        partitions.push(PartitionStatus { partition, head, pending, lag, behind_ms, loss });
        let mut add = |name: String, pending, applied, silent: Option<u64>| {
            let unknown = || ConsumerStatus { name: name.clone(), applied: 0, pending: 0, silent_ms: None };
            let consumer = consumers.entry(name.clone()).or_insert_with(unknown);
            consumer.pending += pending;
            consumer.applied += applied;
            // Where a partition has no group, or is lost, nobody is heard of.
            consumer.silent_ms = consumer.silent_ms.into_iter().chain(silent).min();
        };
        waiting.into_iter().for_each(|(name, pending, silent)| add(name, pending, 0, Some(silent)));
        applied.into_iter().for_each(|(name, applied)| add(name, 0, applied, None));
    }
    FeedStatus { partitions, consumers: consumers.into_values().collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_consumer_is_as_silent_as_where_it_was_heard_of_last() {
        let of = |waiting: &[(&str, u64, u64)], applied: &[(&str, u64)]| -> Answer {
            let waiting =
                waiting.iter().map(|(name, pending, silent)| ((*name).to_owned(), *pending, *silent));
            let applied = applied.iter().map(|(name, applied)| ((*name).to_owned(), *applied));
            (9, 9, 0, 0, 0, waiting.collect(), applied.collect())
        };
        let one = of(&[("lives", 2, 100), ("dead", 0, 90_000)], &[("lives", 3), ("of a group before", 5)]);
        let other = of(&[("lives", 1, 80_000)], &[("lives", 4)]);
        let consumers = status(vec![one, other], vec![None, None]).consumers;
        let told: Vec<_> =
            consumers.iter().map(|one| (one.name.as_str(), one.silent_ms, one.is_heard())).collect();
        let expected =
            [("dead", Some(90_000), false), ("lives", Some(100), true), ("of a group before", None, false)];
        assert_eq!(told, expected);
        assert_eq!((consumers[1].pending, consumers[1].applied), (3, 7));
    }
}
