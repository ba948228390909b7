//! A connection that many short calls share. It is made in the background, and anew when it is lost; while there
//! is none, calls are refused at once. No call is sent twice.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{FromRedisValue, Pipeline, RedisError, RedisResult, ScriptInvocation, ServerError, Value};
use shared::Clock;
use shared::limits::{BACKOFF_MIN, LOG_NAMED_EVERY, LOG_RECONNECT_PAUSE_MAX};
use shared::ports::{Chain, StoreError};
use tokio::sync::{Notify, watch};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::STORE;
use super::server::{Connection, Server, code, lost, unavailable, unavailable_or_unknown};

/// The connection, if there is one now.
#[derive(Clone)]
pub(super) struct Link {
    state: watch::Receiver<State>,
    suspect: Arc<Notify>,
}

type State = Result<Current, StoreError>;

/// The connection of this moment.
#[derive(Clone)]
pub(super) struct Current {
    commands: MultiplexedConnection,
    /// 1, 2, 3, …: with another number, another Redis may be at the other end.
    pub(super) number: u64,
}

/// The error of a server that was made a replica while it was connected.
const READONLY: &str = "READONLY";

impl Link {
    /// Connects in the background, for as long as someone holds a link.
    pub(super) fn keep(
        server: Arc<Server>,
        answer_timeout: Duration,
        tasks: &TaskTracker,
        stop: CancellationToken,
    ) -> Self {
        let not_yet = io::Error::new(io::ErrorKind::NotConnected, "not connected yet");
        let (sender, state) = watch::channel(Err(StoreError::unavailable(STORE, not_yet)));
        let suspect = Arc::new(Notify::new());
        let link = Self { state, suspect: Arc::clone(&suspect) };
        tasks.spawn(async move {
            stop.run_until_cancelled(keep(&server, answer_timeout, &sender, &suspect)).await;
        });
        link
    }

    /// Asks the server whether it is still what it was, and gives the connection up if not.
    pub(super) fn doubt(&self) {
        self.suspect.notify_one();
    }

    /// Why a call would fail now without being sent.
    pub(super) fn check(&self) -> Result<(), StoreError> {
        self.state.borrow().as_ref().map(|_| ()).map_err(StoreError::clone)
    }

    pub(super) fn current(&self) -> Result<Current, StoreError> {
        self.state.borrow().clone()
    }

    /// For calls that change nothing.
    pub(super) async fn read<T: FromRedisValue>(&self, pipeline: &Pipeline) -> Result<T, StoreError> {
        let mut connection = self.current()?.commands;
        self.heard(pipeline.query_async(&mut connection).await).map_err(unavailable)
    }

    /// As [`Link::read`], but each command has an answer of its own.
    pub(super) async fn read_each(&self, pipeline: &Pipeline) -> Result<Vec<Value>, StoreError> {
        let mut connection = self.current()?.commands;
        let answers = connection.send_packed_commands(pipeline, 0, pipeline.len()).await;
        self.heard(answers).map_err(unavailable)
    }

    /// For calls that change something.
    pub(super) async fn write<T: FromRedisValue>(&self, pipeline: &Pipeline) -> Result<T, StoreError> {
        let mut connection = self.current()?.commands;
        let answer = self.heard(pipeline.query_async(&mut connection).await);
        answer.map_err(|error| unavailable_or_unknown(error, pipeline.len()))
    }

    /// As [`Link::write`], for a script. It goes by its digest, and as a whole only to a Redis that does not know it.
    pub(super) async fn call<T: FromRedisValue>(
        &self,
        script: &ScriptInvocation<'_>,
    ) -> Result<T, StoreError> {
        let mut connection = self.current()?.commands;
        let answer = self.heard(script.invoke_async(&mut connection).await);
        answer.map_err(|error| unavailable_or_unknown(error, 1))
    }

    /// As [`Link::write`], but on this connection or none, and each command has an answer of its own.
    pub(super) async fn write_each(
        &self,
        connection: Current,
        pipeline: &Pipeline,
    ) -> Result<Vec<Result<Value, ServerError>>, StoreError> {
        let mut connection = connection.commands;
        let answers = connection.send_packed_commands(pipeline, 0, pipeline.len()).await;
        let answers = self.heard(answers).map_err(|error| unavailable_or_unknown(error, pipeline.len()))?;
        let each = |value| match value {
            Value::ServerError(error) => Err(error),
            value => Ok(value),
        };
        let answers: Vec<_> = answers.into_iter().map(each).collect();
        if answers.iter().filter_map(|answer| answer.as_ref().err()).any(|error| error.code() == READONLY) {
            self.doubt();
        }
        Ok(answers)
    }

    fn heard<T>(&self, answer: RedisResult<T>) -> RedisResult<T> {
        let doubtful = |error: &RedisError| error.is_timeout() || code(error).as_deref() == Some(READONLY);
        if answer.as_ref().is_err_and(doubtful) {
            self.doubt();
        }
        answer
    }
}

async fn keep(server: &Server, answer_timeout: Duration, state: &watch::Sender<State>, suspect: &Notify) {
    let mut pauses = Pauses::new(server.clock.clone());
    let mut connections = 0;
    loop {
        let error = tokio::select! {
            error = hold(server, answer_timeout, state, suspect, (&mut connections, &mut pauses)) => error,
            () = state.closed() => return,
        };
        let last = state.send_replace(Err(error.clone()));
        let is_news = last.err().is_none_or(|last| last.to_string() != error.to_string());
        if is_news || pauses.is_first() {
            tracing::warn!(error = %Chain(&error), "no connection to Redis; trying again");
        }
        tokio::select! {
            () = tokio::time::sleep(pauses.next()) => {}
            () = state.closed() => return,
        }
    }
}

/// Makes a connection and lends it to all until it is lost. Returns why.
async fn hold(
    server: &Server,
    answer_timeout: Duration,
    state: &watch::Sender<State>,
    suspect: &Notify,
    (connections, pauses): (&mut u64, &mut Pauses),
) -> StoreError {
    let Connection { commands, driver, profile } = match server.connect(answer_timeout).await {
        Ok(connection) => connection,
        Err(error) => return error,
    };
    *connections += 1;
    let _ = state.send_replace(Ok(Current { commands: commands.clone(), number: *connections }));
    pauses.reset();
    let durability = profile.text(server.replicas());
    match profile.danger() {
        None => tracing::info!(durability, "connected to Redis"),
        Some(danger) => tracing::warn!(durability, danger, "connected to Redis, which may lose events"),
    }
    tokio::select! {
        () = driver => unavailable(lost()),
        error = doubt(server, commands, suspect) => error,
    }
}

/// A call without an answer may be one slow call, or a server that hangs: then every further call would be sent
/// into the void and end as unknown. So after each the server is asked what it is. One that answers and is as before is
/// kept; one that loads its data, became a replica, or may lose events now, is given up. So is one that was emptied,
/// which answers like any other: that is asked now and then without any doubt. Returns why.
async fn doubt(server: &Server, mut connection: MultiplexedConnection, suspect: &Notify) -> StoreError {
    let question = server.question();
    loop {
        let is_doubted = timeout(LOG_NAMED_EVERY, suspect.notified()).await.is_ok();
        let answers = connection.send_packed_commands(&question, 0, question.len()).await;
        match answers.map_err(unavailable).and_then(|answers| server.is_as_before(answers).1) {
            Ok(()) => {}
            // Nobody waits for an answer in vain: whoever does will doubt it.
            Err(StoreError::Unavailable { .. }) if !is_doubted => {}
            Err(error) => return error,
        }
    }
}

/// Pauses between attempts to connect: twice as long each time, up to a bound, and scattered, so that the
/// instances of a service do not come back in step.
pub(super) struct Pauses {
    clock: Clock,
    longest: Duration,
}

impl Pauses {
    pub(super) fn new(clock: Clock) -> Self {
        Self { clock, longest: BACKOFF_MIN }
    }

    pub(super) fn reset(&mut self) {
        self.longest = BACKOFF_MIN;
    }

    fn is_first(&self) -> bool {
        self.longest == BACKOFF_MIN
    }

    pub(super) fn next(&mut self) -> Duration {
        let longest = self.longest;
        self.longest = (longest * 2).min(LOG_RECONNECT_PAUSE_MAX);
        let share = (self.clock.new_id().0.random() % 1_000) as u32;
        longest / 2 + longest / 2 * share / 1_000
    }
}
