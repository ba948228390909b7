//! The end of the log and what is appended to it, on a connection of its own: its reads block. Without a group, so
//! nothing is noted and nothing is claimed.

use std::sync::Arc;

use async_trait::async_trait;
use redis::{Pipeline, RedisResult, Value};
use shared::ids::Position;
use shared::limits::{FEED_TIMEOUT, FEED_WAIT_MAX};
use shared::ports::{Delivery, Epoch, LogEnd, LogTail, StoreError};

use super::entry;
use super::right::RightLog;
use super::server::{Connection, Server, unavailable, unexpected};

pub struct Tail {
    server: Arc<Server>,
    /// By partition.
    streams: Vec<String>,
    /// Of the last entry that was returned, by partition.
    after: Vec<Position>,
    /// Of what was returned.
    epoch: Option<Epoch>,
    /// Taken for each call: one that is given up may leave an answer behind in it.
    connection: Option<Connection>,
}

impl Tail {
    pub(super) fn new(server: Arc<Server>) -> Self {
        let partitions = 0..server.keys.partitions;
        let streams = partitions.clone().map(|partition| server.keys.events(partition)).collect();
        Self { server, streams, after: partitions.map(before_all).collect(), epoch: None, connection: None }
    }

    async fn connect(&mut self) -> Result<Connection, StoreError> {
        match self.connection.take() {
            Some(connection) => Ok(connection),
            None => self.server.connect(FEED_TIMEOUT).await,
        }
    }

    /// The last entries of each partition, newest first, one more than its share.
    async fn newest(
        &mut self,
        connection: &mut Connection,
        events_max: usize,
    ) -> RedisResult<Vec<Vec<Delivery>>> {
        let mut newest = Vec::with_capacity(self.streams.len());
        let one_more = events_max.div_ceil(self.streams.len()) + 1;
        // One by one: an answer may be large.
        for (partition, stream) in (0..).zip(&self.streams) {
            let mut read = Pipeline::with_capacity(1);
            read.cmd("XREVRANGE").arg(stream).arg("+").arg("-").arg("COUNT").arg(one_more);
            let (entries,): (Value,) = connection.ask(&read).await?;
            newest.push(entry::deliveries(partition, entries).ok_or_else(unexpected)?);
        }
        Ok(newest)
    }

    /// Where a partition ends of which every entry is gone, if it ever had one.
    async fn last_id(&mut self, connection: &mut Connection, partition: u16) -> RedisResult<Position> {
        let mut ask = Pipeline::with_capacity(1);
        ask.cmd("XINFO").arg("STREAM").arg(&self.streams[usize::from(partition)]);
        let Some(Value::Array(fields)) = connection.ask_each(&ask).await?.pop() else {
            // There is no such stream.
            return Ok(before_all(partition));
        };
        let mut pairs = fields.chunks_exact(2);
        let found = pairs.find(|pair| pair[0] == Value::BulkString(b"last-generated-id".to_vec()));
        let id = found.map(|pair| redis::from_redis_value_ref::<String>(&pair[1])).transpose()?;
        id.and_then(|id| entry::position(partition, &id)).ok_or_else(unexpected)
    }

    async fn read_end(
        &mut self,
        connection: &mut Connection,
        events_max: usize,
    ) -> RedisResult<Option<LogEnd>> {
        let (mut behind, mut entries) = (Vec::new(), Vec::new());
        for (partition, mut newest) in (0..).zip(self.newest(connection, events_max).await?) {
            // The oldest one says what the others follow, unless it is the first that ever was.
            let oldest = newest.last().map(|delivery| (delivery.position, is_first(delivery)));
            let (before, last) = match (oldest, newest.first()) {
                (Some((_, true)), Some(last)) => (before_all(partition), last.position),
                (Some((oldest, false)), Some(last)) => {
                    let last = last.position;
                    newest.pop();
                    (oldest, last)
                }
                (None, _) | (_, None) => {
                    let last = self.last_id(connection, partition).await?;
                    (last, last)
                }
            };
            behind.push(before);
            self.after[usize::from(partition)] = last;
            entries.extend(newest.into_iter().rev());
        }
        let is_new = (0..).zip(&self.after).all(|(partition, after)| *after == before_all(partition));
        let log = self.server.right.name().to_owned();
        Ok((!is_new).then_some(LogEnd { log, behind, entries }))
    }

    /// With the epoch of the log that they are of.
    async fn read_next(
        &mut self,
        connection: &mut Connection,
        events_max: usize,
    ) -> RedisResult<(Vec<Delivery>, Option<String>)> {
        let mut read = Pipeline::with_capacity(1);
        read.cmd("XREAD").arg("COUNT").arg(events_max.max(1));
        read.arg("BLOCK").arg(FEED_WAIT_MAX.as_millis() as u64).arg("STREAMS").arg(&self.streams);
        for after in &self.after {
            read.arg(entry::id(after));
        }
        self.server.ask_epoch(&mut read);
        let (answer, epoch) = connection.ask(&read).await?;
        Ok((entry::streams(&self.streams, answer).ok_or_else(unexpected)?, epoch))
    }
}

#[async_trait]
impl LogTail for Tail {
    async fn end(&mut self, events_max: usize) -> Result<Option<LogEnd>, StoreError> {
        // One that was not used for long may be dead.
        self.connection = None;
        let mut connection = self.connect().await?;
        self.epoch = self.server.right.found().borrow().clone();
        let end = self.read_end(&mut connection, events_max).await.map_err(unavailable)?;
        self.connection = Some(connection);
        Ok(end)
    }

    async fn next_batch(&mut self, events_max: usize) -> Result<Vec<Delivery>, StoreError> {
        let mut connection = self.connect().await?;
        let (batch, epoch) = self.read_next(&mut connection, events_max).await.map_err(unavailable)?;
        let epoch = self.server.right.check_again(epoch)?;
        if *self.epoch.get_or_insert_with(|| epoch.clone()) != epoch {
            return Err(RightLog::repaired(&epoch));
        }
        for delivery in &batch {
            self.after[usize::from(delivery.position.partition)] = delivery.position;
        }
        self.connection = Some(connection);
        Ok(batch)
    }
}

fn before_all(partition: u16) -> Position {
    Position { partition, ms: 0, counter: 0 }
}

/// As far as it can be read: of another one it is not known.
fn is_first(delivery: &Delivery) -> bool {
    delivery.content.as_ref().is_ok_and(|recorded| recorded.offset == 1)
}
