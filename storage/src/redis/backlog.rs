//! What a group has yet to read from the archive: blocks that were trimmed before the group was made. They are given
//! out one by one, each for a while; who is killed leaves his to others, and of one that is applied twice nobody
//! notices. What was done last leaves a trail, as acknowledgements do, so that it can be given out again.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use async_trait::async_trait;
use redis::Pipeline;
use shared::limits::{ACK_TRAIL_SPAN, ACK_TRAIL_SPANS, ARCHIVE_BLOCK_ENTRIES, REPLAY_LEASE};
use shared::ports::{self, StoreError};

use super::command::millis;
use super::link::Link;
use super::server::Server;

/// KEYS: backlog. ARGV: how many at most, ms that they are given for. Answers the numbers of blocks.
const TAKE: &str = "#!lua flags=allow-oom
local backlog, most = KEYS[1], tonumber(ARGV[1])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local taken, blocks, next_block = {}, 0, 0
local fields = redis.call('HGETALL', backlog)
for at = 1, #fields, 2 do
  local name, value = fields[at], tonumber(fields[at + 1])
  local leased = tonumber(string.match(name, '^lease:(%d+)$'))
  if name == 'blocks' then blocks = value end
  if name == 'next' then next_block = value end
  if leased and value <= now and #taken < most then taken[#taken + 1] = leased end
end
while next_block < blocks and #taken < most do
  taken[#taken + 1] = next_block
  next_block = next_block + 1
end
if #taken == 0 then return taken end
for _, block in ipairs(taken) do
  redis.call('HSET', backlog, 'lease:' .. string.format('%d', block), string.format('%d', now + ARGV[2]))
end
redis.call('HSET', backlog, 'next', string.format('%d', next_block))
return taken
";

/// KEYS: backlog, applied, replayed. ARGV: consumer, events of a block (only whole ones were trimmed), seconds of a span,
/// spans kept, then blocks. A block that another one has done since counts once.
const DONE: &str = concat!(
    "#!lua flags=allow-oom\n",
    include_str!("trail.lua"),
    "
local done = {}
for at = 5, #ARGV do
  if redis.call('HDEL', KEYS[1], 'lease:' .. ARGV[at]) == 1 then done[#done + 1] = ARGV[at] end
end
if #done == 0 then return 0 end
redis.call('HINCRBY', KEYS[2], ARGV[1], #done * ARGV[2])
local all = redis.call('HINCRBY', KEYS[1], 'done', #done)
if all >= tonumber(redis.call('HGET', KEYS[1], 'blocks') or 0) then redis.call('DEL', KEYS[1]) end
local span = tostring(math.floor(redis.call('TIME')[1] / ARGV[3]))
local noted = redis.call('HGET', KEYS[3], span)
if not noted then forget_old_spans(KEYS[3], ARGV[4]) end
redis.call('HSET', KEYS[3], span, (noted and noted .. ' ' or '') .. table.concat(done, ' '))
return #done
"
);

/// KEYS: backlog, replayed, trail of the stream's acknowledgements. ARGV: spans that count. What was acknowledged since
/// shows that the store kept what is older. Answers how many blocks are to be done again: those that are nobody's now.
const OWE_AGAIN: &str = concat!(
    "#!lua flags=allow-oom\n",
    include_str!("trail.lua"),
    "
local backlog, replayed = KEYS[1], KEYS[2]
local spans = spans_of({replayed, KEYS[3]})
-- A group that was made anew owes all of them from `next` on.
local next_block = tonumber(redis.call('HGET', backlog, 'next') or math.huge)
local owed, last = 0, 0
for at = math.max(#spans + 1 - ARGV[1], 1), #spans do
  for block in string.gmatch(redis.call('HGET', replayed, spans[at]) or '', '%d+') do
    local number = tonumber(block)
    if number < next_block and redis.call('HSETNX', backlog, 'lease:' .. block, 0) == 1 then
      owed, last = owed + 1, math.max(last, number)
    end
  end
end
redis.call('DEL', replayed)
if owed == 0 then return 0 end
if next_block < math.huge then
  redis.call('HINCRBY', backlog, 'done', -owed)
else
  local blocks = string.format('%d', last + 1)
  redis.call('HSET', backlog, 'blocks', blocks, 'next', blocks, 'done', string.format('%d', last + 1 - owed))
end
return owed
"
);

/// Of one consumer, on the shared connection.
pub struct Backlog {
    server: Arc<Server>,
    link: Link,
    group: String,
    consumer: String,
    /// Where to look first: consumers that are not at the same partition do not wait for each other.
    first: AtomicU16,
}

impl Backlog {
    pub(super) fn new(server: Arc<Server>, link: Link, group: String, consumer: &str) -> Self {
        let first = AtomicU16::new(server.keys.some_partition(consumer));
        Self { server, link, group, consumer: consumer.to_owned(), first }
    }

    /// From the partition to look at first.
    async fn partitions(&self) -> Result<Vec<u16>, StoreError> {
        let keys = &self.server.keys;
        let mut pipeline = Pipeline::with_capacity(usize::from(keys.partitions));
        for partition in 0..keys.partitions {
            pipeline.cmd("EXISTS").arg(keys.backlog(partition, &self.group));
        }
        let exist: Vec<bool> = self.link.read(&pipeline).await?;
        let first = self.first.load(Ordering::Relaxed);
        let mut partitions: Vec<_> =
            (0..).zip(exist).filter_map(|(one, exists)| exists.then_some(one)).collect();
        let before = partitions.partition_point(|partition| *partition < first);
        partitions.rotate_left(before);
        Ok(partitions)
    }
}

#[async_trait]
impl ports::Backlog for Backlog {
    async fn take(&self, blocks_max: usize) -> Result<Vec<(u16, u64)>, StoreError> {
        for partition in self.partitions().await? {
            let mut pipeline = Pipeline::with_capacity(1);
            pipeline.cmd("EVAL").arg(TAKE).arg(1).arg(self.server.keys.backlog(partition, &self.group));
            pipeline.arg(blocks_max).arg(millis(REPLAY_LEASE));
            let (taken,): (Vec<u64>,) = self.link.write(&pipeline).await?;
            if !taken.is_empty() {
                self.first.store(partition, Ordering::Relaxed);
                return Ok(taken.into_iter().map(|block| (partition, block)).collect());
            }
        }
        Ok(Vec::new())
    }

    async fn done(&self, partition: u16, blocks: &[u64]) -> Result<(), StoreError> {
        let keys = &self.server.keys;
        let mut pipeline = Pipeline::with_capacity(1);
        pipeline.cmd("EVAL").arg(DONE).arg(3).arg(keys.backlog(partition, &self.group));
        pipeline.arg(keys.applied(partition, &self.group)).arg(keys.replayed(partition, &self.group));
        pipeline.arg(&self.consumer).arg(ARCHIVE_BLOCK_ENTRIES);
        pipeline.arg(ACK_TRAIL_SPAN.as_secs()).arg(ACK_TRAIL_SPANS).arg(blocks);
        self.link.write::<(u64,)>(&pipeline).await.map(drop)
    }

    async fn owe_again(&self) -> Result<u64, StoreError> {
        let keys = &self.server.keys;
        let mut pipeline = Pipeline::with_capacity(usize::from(keys.partitions));
        for partition in 0..keys.partitions {
            pipeline.cmd("EVAL").arg(OWE_AGAIN).arg(3).arg(keys.backlog(partition, &self.group));
            pipeline.arg(keys.replayed(partition, &self.group)).arg(keys.trail(partition, &self.group));
            pipeline.arg(ACK_TRAIL_SPANS);
        }
        Ok(self.link.write::<Vec<u64>>(&pipeline).await?.iter().sum())
    }
}
