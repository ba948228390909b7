//! A log that has lost everything, and gets back what the archive has of it.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;

use super::{Delivery, Epoch, LogEntry, StoreError};
use crate::event::RecordedEvent;
use crate::ids::{Position, Seq, Subject};

/// The caller's alone from [`EmptyLog::close`] to [`EmptyLog::open`]; cut short between the two, it stays closed to all
/// others until somebody has begun anew and has got to the end.
#[async_trait]
pub trait EmptyLog: Send {
    fn partitions(&self) -> u16;

    /// Cuts off whoever uses the log, and has it refuse whoever comes. What an earlier caller put and did not get to the
    /// end with is removed. [`StoreError::Unfit`]: it holds events, and is left as it was.
    async fn close(&mut self) -> Result<(), StoreError>;

    /// What the entry says.
    fn read(&self, entry: LogEntry) -> Delivery;

    /// What is kept beside the log of these events, each at its turn: users, read marks, and what makes a repetition of
    /// a message's id one message, for as long as `window` has such an id accepted. Returns of how many messages.
    async fn keep(&mut self, events: &[RecordedEvent], window: Duration) -> Result<u64, StoreError>;

    /// Exactly so, behind those that were put before.
    async fn put(&mut self, entries: &[LogEntry]) -> Result<(), StoreError>;

    async fn number(&mut self, numbers: &LogNumbers) -> Result<(), StoreError>;

    /// It is this log from now on, whole and everybody's.
    async fn open(&mut self, epoch: &Epoch) -> Result<(), StoreError>;
}

/// How far a partition has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogNumbers {
    pub partition: u16,
    /// Of the last event.
    pub offset: u64,
    /// The last of each subject.
    pub heads: BTreeMap<Subject, Seq>,
    /// `None`: the log holds all of it.
    pub trimmed: Option<TrimmedBlocks>,
}

/// What is in the archive alone: its blocks from the first on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TrimmedBlocks {
    pub blocks: u64,
    /// The first and the last entry of them.
    pub first: Position,
    pub last: Position,
}
