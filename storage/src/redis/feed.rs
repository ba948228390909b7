//! One consumer of a generation's group, on a connection of its own: its reads block.
//!
//! XREADGROUP over all partitions gives entries and notes them as pending; XACK drops the note. Own pending
//! entries are read again (from id 0) at the start and whenever it is not certain that a read was handed out,
//! that is after any error and any dropped call. What a dead consumer left is taken over ([`takeover`]). A missing
//! group is made from the first event (`0`, never `$`): all that follows from an event is a merge. A missing stream is
//! made only where there never was an event.
//!
//! A partition that has lost events is left alone until it has them again ([`losses`]).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use redis::{Cmd, Pipeline, RedisResult, Value};
use shared::limits::{
    ACK_TRAIL_SPAN, ACK_TRAIL_SPANS, ACKS_PER_CALL_MAX, BATCH_EVENTS_BYTES_MAX, CONSUMER_SILENCE_MAX,
    FEED_TIMEOUT, FEED_WAIT_MAX, READ_EVENTS_MAX, READ_OF_ONE_EVENTS_MAX,
};
use shared::ports::{Delivery, Epoch, EventFeed, Seen, SeenLog, StoreError};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

mod losses;
mod redeliveries;
mod takeover;

pub(super) use redeliveries::Redeliveries;

use super::entry;
use super::heartbeat::{self, Heartbeat};
use super::inspection;
use super::notices;
use super::server::{Connection, Server, code, unavailable, unavailable_or_unknown, unexpected};

/// Before the first entry of a stream.
const FIRST: &str = "0-0";
/// Behind what the group was given.
const NEW: &str = ">";

/// The part of a batch that is a few of each partition: one in so many.
const FEW_ARE_OF_BATCH: usize = 4;

const ACK: &str = concat!(include_str!("ids.lua"), include_str!("trail.lua"), include_str!("ack.lua"));

/// KEYS: events, heads, trimmed, backlog. ARGV: group. Answers 2: the group is made, 1: it was there, 0: the stream is
/// gone, with its entries. What was trimmed it has yet to read from the archive.
const MAKE_GROUP: &str = "#!lua
if redis.call('HEXISTS', KEYS[2], '#') == 1 and redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
local made = redis.pcall('XGROUP', 'CREATE', KEYS[1], ARGV[1], '0', 'MKSTREAM')
if not made.err then
  redis.call('DEL', KEYS[4])
  local blocks = redis.call('HGET', KEYS[3], 'blocks')
  if blocks then redis.call('HSET', KEYS[4], 'blocks', blocks, 'next', 0, 'done', 0) end
  return 2
end
return string.find(made.err, '^BUSYGROUP') and 1 or made
";

/// The name of a generation's group.
pub(crate) fn group(generation: u32) -> String {
    format!("g{generation}")
}

/// The generation that a group is named after.
pub(super) fn generation(group: &str) -> Option<u32> {
    group.strip_prefix('g')?.parse().ok()
}

/// One consumer. Not two at once under one name: they would share their pending entries.
pub struct Feed {
    server: Arc<Server>,
    group: String,
    consumer: String,
    heartbeat: Heartbeat,
    redeliveries: Redeliveries,
    /// By partition.
    streams: Vec<String>,
    /// Those that are read: all, but for those that have lost events.
    partitions: Vec<u16>,
    seen: Option<Arc<dyn SeenLog>>,
    /// By partition: what was heard of it, and what this consumer was given.
    known: Vec<Seen>,
    /// On this connection.
    inspected_at: Option<Instant>,
    /// Of the log, when that was looked at last.
    epoch: Option<Epoch>,
    /// What stood where the epoch does, behind the entries that were read last.
    read_from: Option<String>,
    connection: Option<Connection>,
    place: Place,
    /// The partition of which much was read last. Consumers seldom begin with the same one.
    turn: u16,
    /// Whether the last batch had no room for all that waited.
    has_more: bool,
    /// When to look for dead consumers next.
    look_at: Instant,
}

/// What the next read begins with.
#[derive(Clone)]
enum Place {
    /// It is not certain what was handed out: a new connection, then all own pending entries.
    Unsure,
    /// Own pending entries behind these, by partition.
    Own(Vec<String>),
    New,
}

impl Feed {
    pub(super) fn start(
        server: Arc<Server>,
        generation: u32,
        consumer: &str,
        redeliveries: Redeliveries,
        (tasks, stop): (&TaskTracker, &CancellationToken),
    ) -> Self {
        let group = group(generation);
        let streams: Vec<_> =
            (0..server.keys.partitions).map(|partition| server.keys.events(partition)).collect();
        let beating = heartbeat::Consumer {
            server: Arc::clone(&server),
            group: group.clone(),
            name: consumer.to_owned(),
            streams: streams.clone(),
        };
        Self {
            heartbeat: Heartbeat::start(beating, tasks, stop),
            redeliveries,
            partitions: (0..server.keys.partitions).collect(),
            seen: None,
            known: inspection::unknown(server.keys.partitions),
            inspected_at: None,
            epoch: None,
            read_from: None,
            group,
            consumer: consumer.to_owned(),
            streams,
            turn: server.keys.some_partition(consumer),
            has_more: true,
            connection: None,
            place: Place::Unsure,
            look_at: Instant::now(),
            server,
        }
    }

    /// Whether the group may have more for this consumer than it was given last.
    #[cfg_attr(not(feature = "cassandra"), expect(dead_code, reason = "only the archive's reader asks"))]
    pub(crate) fn has_more(&self) -> bool {
        self.has_more
    }

    /// Reads only what holds all that was seen of it.
    #[must_use]
    pub fn guarded(self, seen: Arc<dyn SeenLog>) -> Self {
        Self { seen: Some(seen), ..self }
    }
}

#[async_trait]
impl EventFeed for Feed {
    async fn next_batch(&mut self, events_max: usize) -> Result<Vec<Delivery>, StoreError> {
        self.heartbeat.check()?;
        let mut place = match self.begin().await? {
            Place::Unsure => Place::Own(vec![FIRST.to_owned(); self.streams.len()]),
            place => place,
        };
        if self.is_due() && self.inspect().await? {
            // Somebody has put it back, with what was pending then.
            place = Place::Own(vec![FIRST.to_owned(); self.streams.len()]);
        }
        let mut read = self.read(&mut place, events_max.max(1)).await;
        if read.as_ref().is_err_and(|error| code(error).as_deref() == Some("NOGROUP")) {
            self.make_groups().await?;
            // Of the other partitions some may have been read before one was found to have no group.
            place = Place::Own(vec![FIRST.to_owned(); self.streams.len()]);
            read = self.read(&mut place, events_max.max(1)).await;
        }
        let read = read.map_err(unavailable)?;
        if !read.is_empty() {
            self.is_of_the_log()?;
        }
        let batch = self.admitted(read);
        self.place = place;
        Ok(batch)
    }

    async fn ack(&mut self, batch: &[Delivery]) -> Result<(), StoreError> {
        if batch.is_empty() {
            return Ok(());
        }
        let place = self.begin().await?;
        let pipeline = self.ack_commands(batch);
        let acked = self.ask::<()>(&pipeline).await;
        acked.map_err(|error| unavailable_or_unknown(error, pipeline.len()))?;
        self.place = place;
        Ok(())
    }
}

impl Feed {
    /// Connects if need be. The place is unsure from here until the caller, having done what it came for, puts
    /// it back: it may be dropped at any await, and then a read may still be waiting in the connection.
    async fn begin(&mut self) -> Result<Place, StoreError> {
        self.heartbeat.called();
        let place = std::mem::replace(&mut self.place, Place::Unsure);
        if matches!(place, Place::Unsure) {
            self.connection = None;
        }
        if self.connection.is_none() {
            self.connection = Some(self.server.connect(FEED_TIMEOUT).await?);
            self.inspected_at = None;
            // Redis may have been away: the living get the time to be heard again.
            self.look_at = Instant::now() + CONSUMER_SILENCE_MAX;
        }
        Ok(place)
    }

    async fn read(&mut self, place: &mut Place, events_max: usize) -> RedisResult<Vec<Delivery>> {
        if let Place::Own(after) = place {
            let own = self.read_batch(Some(after), events_max).await?;
            if !own.is_empty() {
                self.has_more = true;
                self.redeliveries.own.inc_by(own.len() as u64);
                return Ok(own);
            }
            *place = Place::New;
        }
        let left = self.take_over(events_max).await?;
        if !left.is_empty() {
            self.has_more = true;
            return Ok(left);
        }
        self.read_batch(None, events_max).await
    }

    /// Own pending entries behind these ids, or new ones, which are waited for. A few of each partition; then, where
    /// more wait, all of one partition before any of the next, as far as the batch goes: much of few conversations costs
    /// the views less than little of many, as rows of one Cassandra partition travel together and inbox rows collapse.
    async fn read_batch(
        &mut self,
        mut after: Option<&mut [String]>,
        events_max: usize,
    ) -> RedisResult<Vec<Delivery>> {
        let all = self.partitions.clone();
        let few = read_max(&all, events_max / FEW_ARE_OF_BATCH);
        let wait = after.is_none().then_some(FEED_WAIT_MAX);
        let mut batch = self.read_groups(&all, after.as_deref_mut(), few, wait).await?;
        let mut waiting = full(&batch, few);
        // A blocked read wakes on the first entry alone; those right behind it are there by now.
        if wait.is_some() && !batch.is_empty() && batch.len() <= all.len() {
            let read = self.read_groups(&all, None, few, None).await?;
            waiting = full(&read, few);
            batch.extend(read);
        }
        let passed = waiting.partition_point(|partition| *partition <= self.turn);
        waiting.rotate_left(passed);
        for &partition in &waiting {
            while let more @ 1.. = room(&batch, events_max) {
                self.turn = partition;
                let read = self.read_groups(&[partition], after.as_deref_mut(), more, None).await?;
                let is_all = read.len() < more;
                batch.extend(read);
                if is_all {
                    break;
                }
            }
        }
        self.has_more = !waiting.is_empty() && room(&batch, events_max) == 0;
        batch.sort_by_key(|delivery| delivery.position);
        Ok(batch)
    }

    /// At most `events_max` of each.
    async fn read_groups(
        &mut self,
        from: &[u16],
        after: Option<&mut [String]>,
        events_max: usize,
        wait: Option<Duration>,
    ) -> RedisResult<Vec<Delivery>> {
        if from.is_empty() {
            tokio::time::sleep(wait.unwrap_or_default()).await;
            return Ok(Vec::new());
        }
        let mut read = redis::cmd("XREADGROUP");
        read.arg("GROUP").arg(&self.group).arg(&self.consumer).arg("COUNT").arg(events_max);
        if let Some(wait) = wait {
            read.arg("BLOCK").arg(wait.as_millis() as u64);
        }
        read.arg("STREAMS");
        for &partition in from {
            read.arg(&self.streams[usize::from(partition)]);
        }
        for &partition in from {
            read.arg(after.as_deref().map_or(NEW, |after| &after[usize::from(partition)]));
        }
        let answer = self.ask_entries(one(read)).await?.pop().ok_or_else(unexpected)?;
        let read = entry::streams(&self.streams, answer).ok_or_else(unexpected)?;
        if let Some(after) = after {
            for delivery in &read {
                after[usize::from(delivery.position.partition)] = entry::id(&delivery.position);
            }
        }
        Ok(read)
    }

    async fn make_groups(&mut self) -> Result<(), StoreError> {
        self.inspect().await?;
        let mut pipeline = Pipeline::with_capacity(self.partitions.len());
        for &partition in &self.partitions {
            let keys = &self.server.keys;
            pipeline
                .cmd("EVAL")
                .arg(MAKE_GROUP)
                .arg(4)
                .arg(keys.events(partition))
                .arg(keys.heads(partition));
            pipeline.arg(keys.trimmed(partition)).arg(keys.backlog(partition, &self.group)).arg(&self.group);
        }
        let answers: Vec<u64> = self.ask(&pipeline).await.map_err(unavailable)?;
        let made = answers.iter().filter(|answer| **answer == 2).count();
        if made > 0 {
            tracing::info!(group = self.group, partitions = made, "made the group, from the first event on");
        }
        // Those that went between the two looks.
        let mut there = answers.iter().map(|answer| *answer > 0);
        self.partitions.retain(|_| there.next().unwrap_or(false));
        Ok(())
    }

    fn ack_commands(&self, batch: &[Delivery]) -> Pipeline {
        let mut ids: BTreeMap<u16, Vec<String>> = BTreeMap::new();
        for Delivery { position, .. } in batch {
            ids.entry(position.partition).or_default().push(entry::id(position));
        }
        let mut pipeline = Pipeline::new();
        for (partition, ids) in ids {
            for ids in ids.chunks(ACKS_PER_CALL_MAX) {
                pipeline.cmd("EVAL").arg(ACK).arg(3);
                pipeline.arg(&self.streams[usize::from(partition)]);
                pipeline.arg(self.server.keys.applied(partition, &self.group));
                pipeline.arg(self.server.keys.trail(partition, &self.group));
                pipeline.arg(&self.group).arg(&self.consumer);
                pipeline.arg(ACK_TRAIL_SPAN.as_secs()).arg(ACK_TRAIL_SPANS).arg(ids).ignore();
            }
        }
        for text in notices::texts(batch) {
            pipeline.cmd("PUBLISH").arg(self.server.keys.notices()).arg(text).ignore();
        }
        pipeline
    }

    /// Asks behind it of which log the entries are.
    async fn ask_entries(&mut self, mut pipeline: Pipeline) -> RedisResult<Vec<Value>> {
        self.server.ask_epoch(&mut pipeline);
        let mut answers: Vec<Value> = self.ask(&pipeline).await?;
        self.read_from = redis::from_redis_value(answers.pop().ok_or_else(unexpected)?)?;
        Ok(answers)
    }

    async fn ask<T: redis::FromRedisValue>(&mut self, pipeline: &Pipeline) -> RedisResult<T> {
        self.connection.as_mut().ok_or_else(unexpected)?.ask(pipeline).await
    }
}

/// Of each of these partitions in one read. Redis bounds an answer by its entries alone, and those may be large.
fn read_max(from: &[u16], events_max: usize) -> usize {
    (events_max.min(READ_EVENTS_MAX) / from.len().max(1)).max(1)
}

/// The partitions that gave as much as they were asked for, and so may have more.
fn full(read: &[Delivery], read_max: usize) -> Vec<u16> {
    let partitions = read.chunk_by(|one, next| one.position.partition == next.position.partition);
    let full = partitions.filter(|entries| entries.len() >= read_max);
    full.map(|entries| entries[0].position.partition).collect()
}

/// How many more of one partition this batch can take in one read, if they are as large as those before.
fn room(batch: &[Delivery], events_max: usize) -> usize {
    let bytes: usize = batch.iter().map(entry::size).sum();
    let fit = BATCH_EVENTS_BYTES_MAX.saturating_sub(bytes) / bytes.div_ceil(batch.len().max(1)).max(1);
    fit.min(events_max.saturating_sub(batch.len())).min(READ_OF_ONE_EVENTS_MAX)
}

fn one(command: Cmd) -> Pipeline {
    let mut pipeline = Pipeline::with_capacity(1);
    pipeline.add_command(command);
    pipeline
}
