//! How far a generation is, from the log's own numbers: Redis' `lag` is wrong once entries were trimmed or
//! deleted.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use redis::Pipeline;
use shared::ports::{ConsumerStatus, FeedMonitor, FeedStatus, PartitionStatus, StoreError};

use super::link::Link;
use super::server::Server;

/// KEYS: events, heads, applied. ARGV: group. Answers head, offset of the last delivered, pending, then the
/// consumers as name, pending, …, then name, applied, …. One script, so that the numbers are of one moment.
///
/// The offset is in the entry that was delivered last or, if that one is gone or unreadable, follows from a
/// neighbour.
const STATUS: &str = "#!lua flags=no-writes
local events, heads, applied, group = KEYS[1], KEYS[2], KEYS[3], ARGV[1]
local READ_MAX = 16

local function fields(flat)
  local map = {}
  for at = 1, #flat, 2 do map[flat[at]] = flat[at + 1] end
  return map
end

local head = tonumber(redis.call('HGET', heads, '#') or 0) or 0

local function offset_of(entry)
  local header = fields(entry[2]).e or ''
  return tonumber(string.match(header, '^%S+ %S+ %S+ %S+ %S+ %d+ (%d+) '))
end

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

local offset, pending, consumers = 0, 0, {}
if redis.call('EXISTS', events) == 1 then
  for _, info in ipairs(redis.call('XINFO', 'GROUPS', events)) do
    info = fields(info)
    if info.name == group then
      offset, pending = delivered(info['last-delivered-id']), info.pending
      for _, consumer in ipairs(redis.call('XINFO', 'CONSUMERS', events, group)) do
        consumer = fields(consumer)
        consumers[#consumers + 1] = consumer.name
        consumers[#consumers + 1] = consumer.pending
      end
    end
  end
end
return {head, offset, pending, consumers, redis.call('HGETALL', applied)}
";

/// On the shared connection.
#[derive(Clone)]
pub struct Monitor {
    pub(super) server: Arc<Server>,
    pub(super) link: Link,
    pub(super) group: String,
}

type Answer = (u64, u64, u64, Vec<(String, u64)>, Vec<(String, u64)>);

#[async_trait]
impl FeedMonitor for Monitor {
    async fn status(&self) -> Result<FeedStatus, StoreError> {
        let keys = &self.server.keys;
        let mut pipeline = Pipeline::with_capacity(usize::from(keys.partitions));
        for partition in 0..keys.partitions {
            pipeline.cmd("EVAL").arg(STATUS).arg(3).arg(keys.events(partition)).arg(keys.heads(partition));
            pipeline.arg(keys.applied(partition, &self.group)).arg(&self.group);
        }
        let answers: Vec<Answer> = self.link.read(&pipeline).await?;
        Ok(status(answers))
    }
}

fn status(answers: Vec<Answer>) -> FeedStatus {
    let mut partitions = Vec::with_capacity(answers.len());
    let mut consumers: BTreeMap<String, ConsumerStatus> = BTreeMap::new();
    for (partition, (head, delivered, pending, waiting, applied)) in (0..).zip(answers) {
        let lag = head.saturating_sub(delivered) + pending;
        partitions.push(PartitionStatus { partition, head, pending, lag });
        let mut add = |name: String, pending, applied| {
            let known = consumers.entry(name.clone());
            let consumer = known.or_insert_with(|| ConsumerStatus { name, applied: 0, pending: 0 });
            consumer.pending += pending;
            consumer.applied += applied;
        };
        waiting.into_iter().for_each(|(name, pending)| add(name, pending, 0));
        applied.into_iter().for_each(|(name, applied)| add(name, 0, applied));
    }
    FeedStatus { partitions, consumers: consumers.into_values().collect() }
}
