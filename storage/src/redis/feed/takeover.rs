//! Takes over from consumers of which Redis has heard nothing for a while: first what they hold, then, after a
//! while longer, their place in the group. A consumer that is heard of (see [`heartbeat`](super::super::heartbeat))
//! keeps what it holds, however long.
//!
//! First XINFO CONSUMERS tells whether there is anybody silent; only then a script looks again and acts, in one
//! step: it moves entries of who is silent still, and takes out of the group who holds nothing. So XGROUP
//! DELCONSUMER, which would destroy pending entries, finds none. The two calls are also the answer to a Redis that
//! stood still: who seemed silent at the first may have been heard before the second.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use redis::streams::{StreamInfoConsumer, StreamInfoConsumersReply};
use redis::{Pipeline, RedisResult, Value};
use shared::limits::{ACKS_PER_CALL_MAX, CONSUMER_REMEMBERED, CONSUMER_SILENCE_MAX, FEED_WAIT_MAX};
use shared::ports::Delivery;
use tokio::time::Instant;

use super::super::command::millis;
use super::super::entry;
use super::{Feed, read_max, unexpected};

/// KEYS: events, applied; of the first partition also turns. ARGV: group, the heir, ms of silence after which a
/// consumer is dead, and after which it leaves, how many entries at most. Answers, of who was taken over from: name,
/// ids, entries (without those that were deleted from the stream); and the names of who left.
const TAKE_OVER: &str = concat!(
    "#!lua flags=allow-oom\n",
    include_str!("../fields.lua"),
    "
local events, group, heir = KEYS[1], ARGV[1], ARGV[2]
local dead, leaves, left = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])

local function take_over(name)
  local ids = {}
  for at, pending in ipairs(redis.call('XPENDING', events, group, '-', '+', left, name)) do
    ids[at] = pending[1]
  end
  left = left - #ids
  return {name, ids, redis.call('XCLAIM', events, group, heir, 0, unpack(ids))}
end

local function remove(name)
  redis.call('XGROUP', 'DELCONSUMER', events, group, name)
  for at = 2, #KEYS do redis.call('HDEL', KEYS[at], name) end
  return name
end

local taken, gone = {}, {}
for _, consumer in ipairs(redis.call('XINFO', 'CONSUMERS', events, group)) do
  consumer = fields(consumer)
  if consumer.name ~= heir and consumer.idle >= dead then
    if consumer.pending > 0 and left > 0 then
      taken[#taken + 1] = take_over(consumer.name)
    elseif consumer.pending == 0 and consumer.idle >= leaves then
      gone[#gone + 1] = remove(consumer.name)
    end
  end
end
return {taken, gone}
"
);

/// Of one partition: what was taken from whom, and who left.
type Answer = (Vec<(String, Vec<String>, Value)>, Vec<String>);

impl Feed {
    /// Once in a while, and at once again while there is more to take.
    pub(super) async fn take_over(&mut self, events_max: usize) -> RedisResult<Vec<Delivery>> {
        if Instant::now() < self.look_at {
            return Ok(Vec::new());
        }
        let partitions = self.partitions_of_the_dead().await?;
        let batch = if partitions.is_empty() {
            Vec::new()
        } else {
            self.take(&partitions, read_max(&partitions, events_max)).await?
        };
        if batch.is_empty() {
            self.look_at = Instant::now() + FEED_WAIT_MAX;
        }
        Ok(batch)
    }

    async fn partitions_of_the_dead(&mut self) -> RedisResult<Vec<u16>> {
        let mut pipeline = Pipeline::with_capacity(self.partitions.len());
        for &partition in &self.partitions {
            let stream = &self.streams[usize::from(partition)];
            pipeline.cmd("XINFO").arg("CONSUMERS").arg(stream).arg(&self.group);
        }
        let answers: Vec<StreamInfoConsumersReply> = self.ask(&pipeline).await?;
        let of_the_dead =
            self.partitions.iter().zip(answers).filter(|(_, StreamInfoConsumersReply { consumers })| {
                consumers.iter().any(|consumer| consumer.name != self.consumer && is_dead(consumer))
            });
        Ok(of_the_dead.map(|(&partition, _)| partition).collect())
    }

    async fn take(&mut self, partitions: &[u16], events_max: usize) -> RedisResult<Vec<Delivery>> {
        let mut pipeline = Pipeline::with_capacity(partitions.len());
        for &partition in partitions {
            let keys = &self.server.keys;
            let mut names = vec![keys.events(partition), keys.applied(partition, &self.group)];
            names.extend((partition == 0).then(|| keys.turns(&self.group)));
            pipeline.cmd("EVAL").arg(TAKE_OVER).arg(names.len()).arg(names);
            pipeline.arg(&self.group).arg(&self.consumer);
            pipeline.arg(millis(CONSUMER_SILENCE_MAX)).arg(millis(CONSUMER_REMEMBERED));
            pipeline.arg(events_max.min(ACKS_PER_CALL_MAX));
        }
        let answers = self.ask_entries(pipeline).await?;
        let (mut batch, mut taken_from, mut gone) = (Vec::new(), BTreeMap::new(), BTreeSet::new());
        for (&partition, answer) in partitions.iter().zip(answers) {
            let (taken, left): Answer = redis::from_redis_value(answer)?;
            for (name, ids, entries) in taken {
                *taken_from.entry(name).or_insert(0) += ids.len();
                batch.extend(deliveries(partition, ids, entries).ok_or_else(unexpected)?);
            }
            gone.extend(left);
        }
        batch.sort_by_key(|delivery| delivery.position);
        self.redeliveries.taken_over.inc_by(batch.len() as u64);
        for (consumer, events) in taken_from {
            tracing::info!(consumer, events, "took over what a silent consumer held");
        }
        for consumer in gone {
            tracing::info!(consumer, "a silent consumer that held nothing has left the group");
        }
        Ok(batch)
    }
}

fn is_dead(consumer: &StreamInfoConsumer) -> bool {
    let silence = Duration::from_millis(consumer.idle as u64);
    silence >= if consumer.pending > 0 { CONSUMER_SILENCE_MAX } else { CONSUMER_REMEMBERED }
}

/// Of the entries with these ids, also of those that are gone from the stream.
fn deliveries(partition: u16, ids: Vec<String>, entries: Value) -> Option<Vec<Delivery>> {
    let mut batch = entry::deliveries(partition, entries)?;
    let found: BTreeSet<_> = batch.iter().map(|delivery| delivery.position).collect();
    for id in ids {
        if !found.contains(&entry::position(partition, &id)?) {
            // Nothing trims what is pending, so someone deleted it by hand.
            tracing::error!(partition, id, "a pending entry is gone from the log");
            batch.push(entry::deleted(partition, &id)?);
        }
    }
    Some(batch)
}
