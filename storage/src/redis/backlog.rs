//! What a group has yet to read from the archive: blocks that were trimmed before the group was made. They are given
//! out one by one, each for a while; who is killed leaves his to others, and of one that is applied twice nobody
//! notices.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use async_trait::async_trait;
use redis::Pipeline;
use shared::limits::{ARCHIVE_BLOCK_ENTRIES, REPLAY_LEASE};
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

/// KEYS: backlog, applied. ARGV: consumer, events of a block (only whole ones were trimmed), then blocks. A block that
/// another one has done since counts once.
const DONE: &str = "#!lua flags=allow-oom
local done = 0
for at = 3, #ARGV do done = done + redis.call('HDEL', KEYS[1], 'lease:' .. ARGV[at]) end
if done == 0 then return 0 end
redis.call('HINCRBY', KEYS[2], ARGV[1], done * ARGV[2])
local all = redis.call('HINCRBY', KEYS[1], 'done', done)
if all >= tonumber(redis.call('HGET', KEYS[1], 'blocks') or 0) then redis.call('DEL', KEYS[1]) end
return done
";

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
        pipeline.cmd("EVAL").arg(DONE).arg(2).arg(keys.backlog(partition, &self.group));
        pipeline.arg(keys.applied(partition, &self.group)).arg(&self.consumer);
        pipeline.arg(ARCHIVE_BLOCK_ENTRIES).arg(blocks);
        self.link.write::<(u64,)>(&pipeline).await.map(drop)
    }
}
