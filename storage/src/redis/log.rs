//! The event log: [`Log::append`] queues, one task drains the queue. It takes what is there (no timer: when calls
//! are slow the queue fills and they get larger), sorts it by partition and sends it as one call of the script, a
//! few calls in flight. What an append does is decided in `append.lua`.
//!
//! Nothing is sent twice: the outcome of a call without an answer is unknown, and the caller's retry with the
//! same key or id settles it. How replicas are waited for is in [`super::replicas`].

use std::collections::BTreeSet;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use redis::{Cmd, Pipeline, Script, ServerError, Value};
use shared::limits::{APPENDS_PER_CALL_MAX, APPENDS_QUEUED_MAX, ID_AHEAD_MAX};
use shared::ports::{Append, AppendError, Appended, EventLog, StoreError};
use shared::process::telemetry::Metrics;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::command::{Command, millis};
use super::link::Link;
use super::replicas::{Replicas, told};
use super::server::{Server, unavailable_or_unknown};
use super::{Options, STORE};
use crate::metrics::Appends;

const APPEND: &str = concat!("#!lua\n", include_str!("fields.lua"), include_str!("append.lua"));
/// Events, heads.
const KEYS_PER_PARTITION: usize = 2;

/// Appends through one connection. Clones share the queue.
#[derive(Clone)]
pub struct Log {
    server: Arc<Server>,
    link: Link,
    queue: mpsc::Sender<Queued>,
    metrics: Appends,
}

struct Queued {
    command: Command,
    since: Instant,
    answer: oneshot::Sender<Result<Appended, AppendError>>,
}

impl Log {
    pub(super) fn start(
        server: Arc<Server>,
        link: Link,
        options: &Options,
        tasks: &TaskTracker,
        stop: CancellationToken,
    ) -> Self {
        let (queue, queued) = mpsc::channel(APPENDS_QUEUED_MAX);
        let metrics = Appends::default();
        let caller = Caller {
            server: Arc::clone(&server),
            link: link.clone(),
            replicas: Replicas::of(&server),
            script: Script::new(APPEND),
            window: options.idempotency_window,
            wait_max: options.answer_timeout,
            checked: Checked::default(),
            is_failing: AtomicBool::new(false),
            metrics: metrics.clone(),
        };
        tasks.spawn(async move { drain(&caller, queued, &stop).await });
        Self { server, link, queue, metrics }
    }

    /// Shows what is appended, and how.
    pub fn register_metrics(&self, metrics: &Metrics) {
        self.metrics.register(metrics);
    }

    /// A place in the queue, before anything is made that would have to stand there.
    fn place(&self) -> Result<mpsc::Permit<'_, Queued>, StoreError> {
        self.queue.try_reserve().map_err(|error| match error {
            mpsc::error::TrySendError::Full(()) => StoreError::Busy { queue: "the queue of appends" },
            mpsc::error::TrySendError::Closed(()) => not_sent("shutting down"),
        })
    }

    async fn answer(&self, append: Append) -> Result<Appended, AppendError> {
        self.link.check()?;
        let place = self.place()?;
        let (answer, answered) = oneshot::channel();
        let command = Command::new(&self.server.keys, append);
        self.metrics.queue();
        place.send(Queued { command, since: Instant::now(), answer });
        answered.await.unwrap_or_else(|_| {
            let gone = io::Error::new(io::ErrorKind::BrokenPipe, "the appending task ended");
            Err(StoreError::unknown(STORE, gone).into())
        })
    }
}

#[async_trait]
impl EventLog for Log {
    async fn append(&self, append: Append) -> Result<Appended, AppendError> {
        self.metrics.watch(self.answer(append)).await
    }
}

fn not_sent(why: &'static str) -> StoreError {
    StoreError::unavailable(STORE, io::Error::new(io::ErrorKind::NotConnected, why))
}

/// Ends when `stop` is cancelled or the last [`Log`] is dropped: what was sent is waited for, the rest refused.
async fn drain(caller: &Caller, mut queue: mpsc::Receiver<Queued>, stop: &CancellationToken) {
    let mut calls = FuturesUnordered::new();
    let mut group = Vec::with_capacity(APPENDS_PER_CALL_MAX);
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            count = queue.recv_many(&mut group, APPENDS_PER_CALL_MAX),
                if calls.len() < caller.replicas.calls_max() =>
            {
                if count == 0 {
                    break;
                }
                caller.metrics.dequeue(count);
                calls.push(caller.call(std::mem::take(&mut group)));
            }
            Some(()) = calls.next() => {}
        }
        caller.metrics.in_flight(calls.len());
    }
    queue.close();
    while let Ok(queued) = queue.try_recv() {
        caller.metrics.dequeue(1);
        queued.settle(Err(not_sent("shutting down").into()));
    }
    while calls.next().await.is_some() {}
}

struct Caller {
    server: Arc<Server>,
    link: Link,
    replicas: Replicas,
    script: Script,
    window: Duration,
    /// In the queue.
    wait_max: Duration,
    checked: Checked,
    /// Whether the last call that ended got no answer, or too few replicas.
    is_failing: AtomicBool,
    metrics: Appends,
}

impl Caller {
    /// Sends a group and answers each of it.
    async fn call(&self, group: Vec<Queued>) {
        // Its caller has waited for as long as an answer may take; late answers help nobody.
        let is_late = |queued: &mut Queued| queued.since.elapsed() > self.wait_max;
        let mut group = group;
        for queued in group.extract_if(.., is_late) {
            queued.settle(Err(self.too_late().into()));
        }
        if group.is_empty() {
            return;
        }
        self.metrics.call(group.len());
        // Stable: within a partition first come, first numbered.
        group.sort_by_key(|queued| queued.command.partition);
        let mut answered = self.send(&group, redis::pipe()).await;
        if answered.as_ref().is_ok_and(Answered::script_is_unknown) {
            // Redis forgets scripts when it restarts. It did nothing with this call, so it goes out again.
            let mut load = redis::pipe();
            load.cmd("SCRIPT").arg("LOAD").arg(APPEND);
            answered = self.send(&group, load).await;
        }
        self.settle(group, answered);
    }

    /// Redis may be as fast as ever and only be asked for too much.
    fn too_late(&self) -> StoreError {
        if self.is_failing.load(Ordering::Relaxed) {
            not_sent("queued for too long")
        } else {
            StoreError::Busy { queue: "the queue of appends" }
        }
    }

    /// What Redis answers to the call of the script, which follows what is in the pipeline.
    async fn send(&self, group: &[Queued], mut pipeline: Pipeline) -> Result<Answered, StoreError> {
        let connection = self.link.current()?;
        let number = connection.number;
        let script = pipeline.len();
        pipeline.add_command(self.command(group, number));
        self.replicas.wait_for(&mut pipeline);
        let mut answers = self.link.write_each(connection, &pipeline).await?;
        let replicated = self.replicas.have(&answers);
        let answer = answers.swap_remove(script);
        if answer.is_ok() {
            self.checked.note(number, group);
        }
        Ok(Answered { answer, replicated })
    }

    fn command(&self, group: &[Queued], connection: u64) -> Cmd {
        let keys = &self.server.keys;
        let partitions = || group.chunk_by(|one, next| one.command.partition == next.command.partition);
        let kept = || group.iter().filter_map(|queued| queued.command.kept());
        let mut command = redis::cmd("EVALSHA");
        command.arg(self.script.get_hash()).arg(KEYS_PER_PARTITION * partitions().count() + kept().count());
        for commands in partitions() {
            let partition = commands[0].command.partition;
            command.arg(keys.events(partition)).arg(keys.heads(partition));
        }
        for key in kept() {
            command.arg(key);
        }
        command.arg(millis(self.window)).arg(millis(ID_AHEAD_MAX)).arg(partitions().count());
        for commands in partitions() {
            let is_due = self.checked.is_due(connection, commands[0].command.partition);
            command.arg(commands.len()).arg(u8::from(is_due));
            for queued in commands {
                queued.command.write(&mut command);
            }
        }
        command
    }

    fn settle(&self, group: Vec<Queued>, answered: Result<Answered, StoreError>) {
        let texts = answered.and_then(|Answered { answer, replicated }| match answer {
            Ok(value) => Ok((redis::from_redis_value::<Vec<String>>(value).unwrap_or_default(), replicated)),
            Err(error) => Err(unavailable_or_unknown(error.into(), 1)),
        });
        self.is_failing.store(!matches!(texts, Ok((_, Ok(())))), Ordering::Relaxed);
        match texts {
            Ok((texts, replicated)) => {
                let mut texts = texts.into_iter();
                for queued in group {
                    let outcome = queued.command.outcome(&texts.next().unwrap_or_default());
                    if is_damage(&outcome) {
                        self.checked.forget(queued.command.partition);
                    }
                    queued.settle(told(outcome, &replicated));
                }
            }
            Err(error) => {
                group.into_iter().for_each(|queued| queued.settle(Err(error.clone().into())));
            }
        }
    }
}

/// What Redis said of one call of the script, and whether enough replicas have what it did.
struct Answered {
    answer: Result<Value, ServerError>,
    replicated: Result<(), StoreError>,
}

impl Answered {
    fn script_is_unknown(&self) -> bool {
        self.answer.as_ref().is_err_and(|error| error.code() == "NOSCRIPT")
    }
}

fn is_damage(outcome: &Result<Appended, AppendError>) -> bool {
    matches!(outcome, Err(AppendError::Store(StoreError::Damaged { .. })))
}

/// Partitions whose head was compared with their last entry: on each connection once, as a Redis that was
/// restarted, restored or replaced breaks the connection.
#[derive(Default)]
struct Checked(Mutex<(u64, BTreeSet<u16>)>);

impl Checked {
    fn is_due(&self, connection: u64, partition: u16) -> bool {
        let checked = self.lock();
        checked.0 != connection || !checked.1.contains(&partition)
    }

    /// Calls of several connections may end in any order: the last connection counts.
    fn note(&self, connection: u64, group: &[Queued]) {
        let mut checked = self.lock();
        if checked.0 < connection {
            *checked = (connection, BTreeSet::new());
        }
        if checked.0 == connection {
            checked.1.extend(group.iter().map(|queued| queued.command.partition));
        }
    }

    fn forget(&self, partition: u16) {
        self.lock().1.remove(&partition);
    }

    fn lock(&self) -> MutexGuard<'_, (u64, BTreeSet<u16>)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Queued {
    fn settle(self, outcome: Result<Appended, AppendError>) {
        // Who asked may be gone; the event is in the log all the same.
        let _ = self.answer.send(outcome);
    }
}
