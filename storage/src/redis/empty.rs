//! Fills a log that has lost everything. It has a connection of its own, as it is the only one that may come to a log
//! that is closed.
//!
//! What closes it is a layout that no program knows: whoever connects is refused, and who was connected is cut off, as
//! the connection is what he was checked on. So plain commands will do in between. The last of them says what the log
//! is.

use std::fmt::Display;
use std::time::Duration;

use async_trait::async_trait;
use redis::Pipeline;
use shared::Clock;
use shared::event::{Event, RecordedEvent};
use shared::ids::{EventId, Subject};
use shared::limits::{FEED_TIMEOUT, ID_AHEAD_MAX, RESTORED_HEADS_PER_CALL_MAX};
use shared::ports::{self, Delivery, Epoch, LogEntry, LogNumbers, OnceKey, StoreError, TrimmedBlocks};

use super::command::{millis, pair, receipt};
use super::keys::{
    Keys, LAST_OFFSET, LOG_EPOCH, LOG_PARTITIONS, LOG_VERSION, TRIMMED_BLOCKS, TRIMMED_FIRST, TRIMMED_LAST,
};
use super::server::{Connection, Server, VERSION, unavailable, unavailable_or_unknown};
use super::{Options, STORE, entry, possible};

/// In the place of the layout until it is certain that the log is empty.
pub(super) const CLOSED: &str = "closed, to be restored";

/// And from then on: what is there was put by somebody who did not get to the end.
pub(super) const RESTORING: &str = "restored in part";

/// One at a time: a second one cuts off the first.
pub struct EmptyLog {
    server: Server,
    connection: Connection,
    /// Of Redis' clock, when the log was closed.
    now_ms: u64,
}

impl EmptyLog {
    /// Whatever log is there.
    ///
    /// # Errors
    /// For options that can never work, and unless Redis is there.
    pub async fn connect(options: &Options, clock: Clock) -> Result<Self, StoreError> {
        possible(options)?;
        let keys = Keys::new(options.prefix.clone(), options.partitions);
        let server = Server::new(options, keys, clock)?;
        let connection = server.connect_to_any(FEED_TIMEOUT).await?;
        Ok(Self { server, connection, now_ms: 0 })
    }

    async fn layout(&mut self) -> Result<Option<String>, StoreError> {
        let mut read = redis::pipe();
        read.cmd("HGET").arg(self.server.keys.log()).arg(LOG_VERSION);
        let (layout,) = self.connection.ask(&read).await.map_err(unavailable)?;
        Ok(layout)
    }

    async fn set_layout(&mut self, layout: impl Display) -> Result<(), StoreError> {
        let mut write = redis::pipe();
        write.cmd("HSET").arg(self.server.keys.log()).arg(LOG_VERSION).arg(layout.to_string()).ignore();
        self.write(&write).await
    }

    async fn refuse_events(&mut self) -> Result<(), StoreError> {
        let keys = &self.server.keys;
        let mut read = redis::pipe();
        for partition in 0..keys.partitions {
            read.cmd("XLEN").arg(keys.events(partition));
            read.cmd("EXISTS").arg(keys.heads(partition));
        }
        let found: Vec<u64> = self.connection.ask(&read).await.map_err(unavailable)?;
        match found.chunks(2).position(|one| one.iter().any(|count| *count > 0)) {
            None => Ok(()),
            Some(partition) => {
                let what =
                    format!("partition {partition} of its log has events; only an empty log is restored");
                Err(StoreError::Unfit { store: STORE, what })
            }
        }
    }

    /// Whoever is connected, but for listeners: they write nothing.
    async fn cut_off(&mut self) -> Result<(), StoreError> {
        let mut kill = redis::pipe();
        kill.cmd("CLIENT").arg("KILL").arg("TYPE").arg("normal").arg("SKIPME").arg("yes").ignore();
        self.write(&kill).await
    }

    /// Also groups of consumers who came to the empty log.
    async fn remove(&mut self) -> Result<(), StoreError> {
        let keys = &self.server.keys;
        let mut remove = redis::pipe();
        for partition in 0..keys.partitions {
            remove.cmd("UNLINK").arg(keys.events(partition)).arg(keys.heads(partition));
            remove
                .arg(keys.users(partition))
                .arg(keys.marks(partition))
                .arg(keys.trimmed(partition))
                .ignore();
        }
        remove.cmd("TIME");
        let ((seconds, micros),): ((u64, u64),) = self
            .connection
            .ask(&remove)
            .await
            .map_err(|error| unavailable_or_unknown(error, remove.len()))?;
        self.now_ms = seconds * 1_000 + micros / 1_000;
        Ok(())
    }

    async fn write(&mut self, pipeline: &Pipeline) -> Result<(), StoreError> {
        if pipeline.is_empty() {
            return Ok(());
        }
        let written = self.connection.ask(pipeline).await;
        written.map_err(|error| unavailable_or_unknown(error, pipeline.len()))
    }

    /// When the record of an id ends, in ms of Redis' clock. `None`: the id is not accepted any more.
    fn ends(&self, id: EventId, window: Duration) -> Option<u64> {
        // The id is accepted for the window; the rest is for a clock that is set back (see `append.lua`).
        let ends = id.timestamp_ms() + millis(window) + millis(ID_AHEAD_MAX);
        (ends > self.now_ms).then_some(ends)
    }
}

#[async_trait]
impl ports::EmptyLog for EmptyLog {
    fn partitions(&self) -> u16 {
        self.server.keys.partitions
    }

    async fn close(&mut self) -> Result<(), StoreError> {
        if self.layout().await?.as_deref() != Some(RESTORING) {
            self.refuse_events().await?;
            self.set_layout(CLOSED).await?;
            self.cut_off().await?;
            // By somebody who was faster.
            if let Err(held) = self.refuse_events().await {
                self.set_layout(VERSION).await?;
                return Err(held);
            }
            self.set_layout(RESTORING).await?;
        }
        self.cut_off().await?;
        // Another one, who was cut off just now, may have got to the end before that.
        if self.layout().await?.as_deref() != Some(RESTORING) {
            let what = "its log was restored by somebody else just now".to_owned();
            return Err(StoreError::Unfit { store: STORE, what });
        }
        self.remove().await
    }

    fn read(&self, entry: LogEntry) -> Delivery {
        entry::open(entry)
    }

    async fn keep(&mut self, events: &[RecordedEvent], window: Duration) -> Result<u64, StoreError> {
        let keys = &self.server.keys;
        let (mut keep, mut messages) = (redis::pipe(), 0);
        for RecordedEvent { position, seq, id, event, .. } in events {
            let partition = position.partition;
            match event {
                Event::UserRegistered(user) => {
                    keep.cmd("HSETNX").arg(keys.users(partition)).arg(user.username.as_str());
                    keep.arg(&user.password_hash).ignore();
                }
                Event::ConversationRead(read) => {
                    keep.cmd("HSET").arg(keys.marks(partition)).arg(pair(read)).arg(read.seq).ignore();
                }
                Event::MessageSent(sent) => {
                    let Some(ends) = self.ends(*id, window) else { continue };
                    let mut record = receipt(&sent.fingerprint(), *id);
                    record.extend_from_slice(format!(" {seq} {}", entry::id(position)).as_bytes());
                    keep.cmd("SET").arg(keys.once(partition, sent, &OnceKey::Id, *id)).arg(record);
                    keep.arg("PXAT").arg(ends).ignore();
                    messages += 1;
                }
            }
        }
        self.write(&keep).await?;
        Ok(messages)
    }

    async fn put(&mut self, entries: &[LogEntry]) -> Result<(), StoreError> {
        let mut put = Pipeline::with_capacity(entries.len());
        for LogEntry { position, fields } in entries {
            put.cmd("XADD").arg(self.server.keys.events(position.partition)).arg(entry::id(position));
            put.arg(fields).ignore();
        }
        self.write(&put).await
    }

    async fn number(&mut self, numbers: &LogNumbers) -> Result<(), StoreError> {
        let LogNumbers { partition, offset, heads, trimmed } = numbers;
        let keys = &self.server.keys;
        let (of_subjects, of_trimmed) = (keys.heads(*partition), keys.trimmed(*partition));
        let mut write = redis::pipe();
        if *offset > 0 {
            write.cmd("HSET").arg(&of_subjects).arg(LAST_OFFSET).arg(*offset).ignore();
        }
        if let Some(TrimmedBlocks { blocks, first, last }) = trimmed {
            write.cmd("HSET").arg(of_trimmed).arg(TRIMMED_BLOCKS).arg(*blocks);
            write.arg(TRIMMED_FIRST).arg(entry::id(first)).arg(TRIMMED_LAST).arg(entry::id(last)).ignore();
        }
        self.write(&write).await?;
        let heads: Vec<(&Subject, &u64)> = heads.iter().collect();
        for heads in heads.chunks(RESTORED_HEADS_PER_CALL_MAX) {
            let mut write = redis::pipe();
            write.cmd("HSET").arg(&of_subjects);
            for (subject, seq) in heads {
                write.arg(subject.to_string()).arg(**seq);
            }
            self.write(write.ignore()).await?;
        }
        Ok(())
    }

    async fn open(&mut self, epoch: &Epoch) -> Result<(), StoreError> {
        let keys = &self.server.keys;
        let mut write = redis::pipe();
        write.cmd("HSET").arg(keys.log()).arg(LOG_EPOCH).arg(epoch.to_string());
        write.arg(LOG_PARTITIONS).arg(keys.partitions).arg(LOG_VERSION).arg(VERSION).ignore();
        self.write(&write).await
    }
}
