//! The one thread that changes the log and what lies beside it. It takes what is queued, decides each command
//! in order as if those before it were done, writes all of it in one batch, makes that durable, and only then
//! answers. There is no timer: while one group is on its way to the disk the next one queues.
//!
//! It takes no other writer into account, so nothing else may write to the `log` and `state` keyspaces.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use fjall::PersistMode;
use shared::clock::{Clock, Timestamp};
use shared::event::Envelope;
use shared::ids::{EventId, Seq, Subject, Username};
use shared::limits::{APPENDS_PER_GROUP_MAX, APPENDS_QUEUED_MAX};
use shared::ports::{Append, AppendError, Appended, Receipt, SessionKey, StoreError};
use tokio::sync::{oneshot, watch};

use super::directory::{Directory, Opened};
use super::entry::{self, Entry};
use super::expiry::Expiry;
use super::mark::Mark;
use super::recent::Recent;
use super::rows::Rows;
use super::verify::Last;
use super::{accounts, damaged, encoding, keys, log};
use crate::metrics::Appends;

pub(super) enum Command {
    Append(Append, oneshot::Sender<Result<Appended, AppendError>>),
    Account(AccountCommand, oneshot::Sender<Result<(), StoreError>>),
    #[cfg(feature = "contract")]
    PutRaw(crate::contract::RawEntry, oneshot::Sender<Result<(), StoreError>>),
}

pub(super) enum AccountCommand {
    ReplaceHash { user: Username, old: String, new: String },
    Open(Username, SessionKey),
    Renew(SessionKey),
    Close(SessionKey),
    CloseAll(Username),
}

/// What was decided, to be told once it is durable.
enum Answer {
    Append(Result<Appended, AppendError>, oneshot::Sender<Result<Appended, AppendError>>),
    Done(Result<(), StoreError>, oneshot::Sender<Result<(), StoreError>>),
}

impl Answer {
    /// Whoever asked may be gone, which changes nothing.
    fn tell(self, commit: &Result<(), StoreError>) {
        match (self, commit) {
            (Self::Append(decided, asked), Ok(())) => drop(asked.send(decided)),
            (Self::Done(decided, asked), Ok(())) => drop(asked.send(decided)),
            // A refusal too may rest on what was not written.
            (Self::Append(_, asked), Err(error)) => drop(asked.send(Err(error.clone().into()))),
            (Self::Done(_, asked), Err(error)) => drop(asked.send(Err(error.clone()))),
        }
    }
}

pub(super) struct Writer {
    directory: Arc<Directory>,
    mark: Mark,
    /// Of what is durable.
    last: Last,
    expiry: Expiry,
    heads: Recent<Seq>,
    clock: Clock,
    idempotency_window: Duration,
    /// The last offset that readers may see.
    head: watch::Sender<u64>,
    /// Whether the last group was not written.
    refusing: bool,
    metrics: Appends,
}

impl Writer {
    pub(super) fn new(
        Opened { directory, mark, last }: Opened,
        clock: Clock,
        idempotency_window: Duration,
    ) -> Self {
        let (directory, head) = (Arc::new(directory), watch::Sender::new(last.offset));
        Self {
            directory,
            mark,
            last,
            expiry: Expiry::default(),
            heads: Recent::default(),
            clock,
            idempotency_window,
            head,
            refusing: false,
            metrics: Appends::default(),
        }
    }

    pub(super) fn directory(&self) -> &Arc<Directory> {
        &self.directory
    }

    pub(super) fn metrics(&self) -> &Appends {
        &self.metrics
    }

    pub(super) fn head(&self) -> watch::Receiver<u64> {
        self.head.subscribe()
    }

    /// The thread ends when the last sender is gone and what was queued is done.
    pub(super) fn start(mut self) -> std::io::Result<(SyncSender<Command>, JoinHandle<()>)> {
        let (sender, queue) = sync_channel(APPENDS_QUEUED_MAX);
        let thread = std::thread::Builder::new().name("store-writer".to_owned());
        Ok((sender, thread.spawn(move || self.run(&queue))?))
    }

    fn run(&mut self, queue: &Receiver<Command>) {
        while let Ok(first) = queue.recv() {
            let rest = queue.try_iter().take(APPENDS_PER_GROUP_MAX - 1);
            self.metrics.in_flight(1);
            self.write(std::iter::once(first).chain(rest));
            self.metrics.in_flight(0);
        }
        let ended = self.directory.sync();
        if let Err(error) = ended.and_then(|()| self.mark.sync().map_err(super::unavailable)) {
            tracing::error!(%error, "the last sync of the store failed");
        }
    }

    fn write(&mut self, commands: impl Iterator<Item = Command>) {
        let mut group = Group {
            rows: Rows::of(&self.directory.state),
            entries: Vec::new(),
            last: self.last,
            now: self.clock.now(),
            idempotency_window: self.idempotency_window,
            expiry: &mut self.expiry,
            heads: &mut self.heads,
        };
        let answers: Vec<_> = commands.map(|command| group.decide(command)).collect();
        self.metrics.dequeue(answers.len());
        self.metrics.call(answers.len());
        group.prune(&self.directory);
        let told = group.commit(&self.directory).map(|last| self.publish(last));
        self.note(&told, answers.len());
        answers.into_iter().for_each(|answer| answer.tell(&told));
    }

    /// Every caller is told; the log hears of it when it begins and when it ends.
    fn note(&mut self, told: &Result<(), StoreError>, commands: usize) {
        match told {
            Ok(()) if self.refusing => tracing::info!("the store takes writes again"),
            Ok(()) => {}
            Err(error) => {
                // What it took out of its index is still there, and the heads are what they were.
                self.expiry = Expiry::default();
                self.heads = Recent::default();
                if !self.refusing {
                    let source = std::error::Error::source(error).map(ToString::to_string);
                    tracing::error!(%error, source, commands, "commands were not written");
                }
            }
        }
        self.refusing = told.is_err();
    }

    fn publish(&mut self, last: Last) {
        if last.offset > self.last.offset {
            // A mark that stays behind asks for less at the next start; the events are safe without it.
            if let Err(error) = self.mark.set(last.offset) {
                tracing::warn!(%error, "the mark of the log could not be written");
            }
            self.last = last;
            self.head.send_replace(last.offset);
        }
    }
}

/// Commands that become one batch: everything that one of them reads shows what those before it wrote.
pub(super) struct Group<'a> {
    pub(super) rows: Rows<'a>,
    /// Offsets and encoded entries.
    entries: Vec<(u64, Vec<u8>)>,
    last: Last,
    pub(super) now: Timestamp,
    pub(super) idempotency_window: Duration,
    pub(super) expiry: &'a mut Expiry,
    /// The last `seq` of subjects: to look them up is a fifth of the writer's work.
    heads: &'a mut Recent<Seq>,
}

impl Group<'_> {
    fn decide(&mut self, command: Command) -> Answer {
        match command {
            Command::Append(append, asked) => Answer::Append(log::decide(self, &append), asked),
            Command::Account(command, asked) => Answer::Done(accounts::decide(self, command), asked),
            #[cfg(feature = "contract")]
            Command::PutRaw(raw, asked) => Answer::Done(self.put_raw(raw), asked),
        }
    }

    /// The next `seq` of a subject.
    pub(super) fn next_seq(&self, subject: &Subject) -> Result<Seq, StoreError> {
        Ok(1 + self.head(&keys::head(subject))?)
    }

    fn head(&self, key: &[u8]) -> Result<Seq, StoreError> {
        match self.heads.get(key) {
            Some(head) => Ok(*head),
            None => self.number(key),
        }
    }

    fn put_head(&mut self, key: Vec<u8>, seq: Seq) {
        self.heads.note(&key, seq);
        self.put_number(key, seq);
    }

    /// 0 where there is none.
    pub(super) fn number(&self, key: &[u8]) -> Result<u64, StoreError> {
        let Some(value) = self.rows.get(key)? else { return Ok(0) };
        encoding::number(&value).ok_or_else(|| damaged("a number cannot be read".to_owned()))
    }

    pub(super) fn put_number(&mut self, key: Vec<u8>, number: u64) {
        self.rows.put(key, number.to_be_bytes().to_vec());
    }

    /// `seq` is what [`Group::next_seq`] gave.
    pub(super) fn append(&mut self, id: EventId, subject: &Subject, envelope: Envelope, seq: Seq) -> Receipt {
        self.put_head(keys::head(subject), seq);
        let Last { offset, ms } = self.put_entry(|offset, ms| Entry::seal(envelope, seq, offset, ms));
        Receipt { id, seq, at: Timestamp(ms), position: entry::position(ms, offset) }
    }

    /// The time of an event never falls, whatever the clock does.
    fn put_entry(&mut self, seal: impl FnOnce(u64, u64) -> Entry) -> Last {
        self.last = Last { offset: self.last.offset + 1, ms: self.last.ms.max(self.now.0) };
        let Last { offset, ms } = self.last;
        self.entries.push((offset, seal(offset, ms).encode()));
        self.put_number(keys::SEEN.to_vec(), offset);
        self.last
    }

    #[cfg(feature = "contract")]
    fn put_raw(&mut self, raw: crate::contract::RawEntry) -> Result<(), StoreError> {
        let head = keys::head(&raw.subject);
        let seq = raw.seq.max(self.head(&head)?);
        self.put_head(head, seq);
        self.put_entry(|offset, ms| {
            let mut entry = Entry::seal(raw.envelope, raw.seq, offset, ms);
            entry.flip_checksum(raw.checksum_flipped);
            entry
        });
        Ok(())
    }

    /// What cannot be pruned takes space and nothing else, so no command fails for it.
    fn prune(&mut self, directory: &Directory) {
        if let Err(error) = accounts::prune(self, &directory.state) {
            tracing::error!(%error, "expired records are kept until the next start");
            self.expiry.stop();
        }
    }

    fn commit(self, directory: &Directory) -> Result<Last, StoreError> {
        let rows = self.rows.len() + self.entries.len();
        if rows > 0 {
            let mut batch = directory.log_batch(rows);
            for (offset, entry) in self.entries {
                batch.insert(&directory.log, offset.to_be_bytes(), entry);
            }
            self.rows.stage(&mut batch);
            directory.commit(batch, PersistMode::SyncData)?;
        }
        Ok(self.last)
    }
}
