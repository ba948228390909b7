//! The event log: [`Log::append`] queues, one task drains the queue. It takes what is there (no timer: when calls
//! are slow the queue fills and they get larger), sorts it by partition and sends one script call per partition,
//! all of them in one pipeline, a few pipelines in flight. What an append does is decided in `append.lua`.
//!
//! Nothing is sent twice: the outcome of a call without an answer is unknown, and the caller's retry with the
//! same key or id settles it.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use redis::{Cmd, Pipeline, Script, ServerError, Value};
use shared::limits::{APPEND_CALLS_IN_FLIGHT_MAX, APPENDS_PER_CALL_MAX, APPENDS_QUEUED_MAX, ID_AHEAD_MAX};
use shared::ports::{Append, AppendError, Appended, EventLog, StoreError};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::command::{Command, millis};
use super::link::Link;
use super::server::{Server, unavailable_or_unknown};
use super::{Options, STORE};

/// Appends through the shared connection. Clones share the queue.
#[derive(Clone)]
pub struct Log {
    server: Arc<Server>,
    link: Link,
    queue: mpsc::Sender<Queued>,
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
        let caller = Caller {
            server: Arc::clone(&server),
            link: link.clone(),
            script: Script::new(include_str!("append.lua")),
            window: options.idempotency_window,
            wait_max: options.answer_timeout,
        };
        tasks.spawn(async move { drain(&caller, queued, &stop).await });
        Self { server, link, queue }
    }
}

#[async_trait]
impl EventLog for Log {
    async fn append(&self, append: Append) -> Result<Appended, AppendError> {
        self.link.check()?;
        let (answer, answered) = oneshot::channel();
        let command = Command::new(&self.server.keys, append);
        self.queue.try_send(Queued { command, since: Instant::now(), answer }).map_err(
            |error| match error {
                mpsc::error::TrySendError::Full(_) => StoreError::Busy { queue: "the queue of appends" },
                mpsc::error::TrySendError::Closed(_) => not_sent("shutting down"),
            },
        )?;
        answered.await.unwrap_or_else(|_| {
            let gone = io::Error::new(io::ErrorKind::BrokenPipe, "the appending task ended");
            Err(StoreError::unknown(STORE, gone).into())
        })
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
                if calls.len() < APPEND_CALLS_IN_FLIGHT_MAX =>
            {
                if count == 0 {
                    break;
                }
                calls.push(caller.call(std::mem::take(&mut group)));
            }
            Some(()) = calls.next() => {}
        }
    }
    queue.close();
    while let Ok(queued) = queue.try_recv() {
        queued.settle(Err(not_sent("shutting down").into()));
    }
    while calls.next().await.is_some() {}
}

struct Caller {
    server: Arc<Server>,
    link: Link,
    script: Script,
    window: Duration,
    /// In the queue.
    wait_max: Duration,
}

impl Caller {
    /// Sends a group and answers each of it.
    async fn call(&self, group: Vec<Queued>) {
        let mut partitions: BTreeMap<u16, Vec<Queued>> = BTreeMap::new();
        for queued in group {
            // Its caller has waited for as long as an answer may take; late answers help nobody.
            if queued.since.elapsed() > self.wait_max {
                queued.settle(Err(not_sent("queued for too long").into()));
            } else {
                partitions.entry(queued.command.partition).or_default().push(queued);
            }
        }
        let unknown_script = self.send(partitions, None).await;
        if !unknown_script.is_empty() {
            // Redis forgets scripts when it restarts. It did nothing with these calls, so they go out again.
            let mut load = redis::cmd("SCRIPT");
            load.arg("LOAD").arg(include_str!("append.lua"));
            let refused = self.send(unknown_script, Some(load)).await;
            for queued in refused.into_values().flatten() {
                queued.settle(Err(not_sent("Redis does not keep the append script").into()));
            }
        }
    }

    /// Answers each command, but for those whose call was refused because Redis does not know the script.
    async fn send(
        &self,
        partitions: BTreeMap<u16, Vec<Queued>>,
        first: Option<Cmd>,
    ) -> BTreeMap<u16, Vec<Queued>> {
        let mut unknown_script = BTreeMap::new();
        if partitions.is_empty() {
            return unknown_script;
        }
        let mut pipeline = Pipeline::with_capacity(partitions.len() + 1);
        let skipped = usize::from(first.is_some());
        if let Some(first) = first {
            pipeline.add_command(first);
        }
        for (partition, group) in &partitions {
            pipeline.add_command(self.command(*partition, group));
        }
        match self.link.write_each(&pipeline).await {
            Ok(answers) => {
                for ((partition, group), answer) in
                    partitions.into_iter().zip(answers.into_iter().skip(skipped))
                {
                    if answer.as_ref().is_err_and(|error| error.code() == "NOSCRIPT") {
                        unknown_script.insert(partition, group);
                    } else {
                        settle_all(group, answer);
                    }
                }
            }
            Err(error) => {
                for queued in partitions.into_values().flatten() {
                    queued.settle(Err(error.clone().into()));
                }
            }
        }
        unknown_script
    }

    fn command(&self, partition: u16, group: &[Queued]) -> Cmd {
        let keys = &self.server.keys;
        let records = group.iter().filter_map(|queued| queued.command.record());
        let mut command = redis::cmd("EVALSHA");
        command.arg(self.script.get_hash()).arg(4 + records.clone().count());
        command.arg(keys.events(partition)).arg(keys.heads(partition));
        command.arg(keys.users(partition)).arg(keys.marks(partition));
        for record in records {
            command.arg(record);
        }
        command.arg(millis(self.window)).arg(millis(ID_AHEAD_MAX));
        for queued in group {
            queued.command.write(&mut command);
        }
        command
    }
}

/// The answers of one script call.
fn settle_all(group: Vec<Queued>, answer: Result<Value, ServerError>) {
    let texts = match answer {
        Ok(value) => redis::from_redis_value::<Vec<String>>(value).unwrap_or_default(),
        Err(error) => {
            let error = unavailable_or_unknown(error.into(), 1);
            return group.into_iter().for_each(|queued| queued.settle(Err(error.clone().into())));
        }
    };
    let mut texts = texts.into_iter();
    for queued in group {
        let text = texts.next().unwrap_or_default();
        let outcome = queued.command.outcome(&text);
        queued.settle(outcome);
    }
}

impl Queued {
    fn settle(self, outcome: Result<Appended, AppendError>) {
        // Who asked may be gone; the event is in the log all the same.
        let _ = self.answer.send(outcome);
    }
}
