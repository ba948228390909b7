//! The connection that all short calls share. It is made in the background, and anew when it is lost; while there
//! is none, calls are refused at once. No call is sent twice.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{FromRedisValue, Pipeline, RedisError, RedisResult, ServerError, Value};
use shared::Clock;
use shared::limits::{BACKOFF_MIN, LOG_RECONNECT_PAUSE_MAX};
use shared::ports::StoreError;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::STORE;
use super::server::{Connection, Server, lost, unavailable, unavailable_or_unknown};

/// The shared connection, if there is one now.
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

    /// For calls that change something.
    pub(super) async fn write<T: FromRedisValue>(&self, pipeline: &Pipeline) -> Result<T, StoreError> {
        let mut connection = self.current()?.commands;
        let answer = self.heard(pipeline.query_async(&mut connection).await);
        answer.map_err(|error| unavailable_or_unknown(error, pipeline.len()))
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
        Ok(answers.into_iter().map(each).collect())
    }

    fn heard<T>(&self, answer: RedisResult<T>) -> RedisResult<T> {
        if answer.as_ref().is_err_and(RedisError::is_timeout) {
            self.suspect.notify_one();
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
        if state.send_replace(Err(error.clone())).is_ok() || pauses.is_first() {
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
    let Connection { commands, driver } = match server.connect(answer_timeout).await {
        Ok(connection) => connection,
        Err(error) => return error,
    };
    *connections += 1;
    let _ = state.send_replace(Ok(Current { commands: commands.clone(), number: *connections }));
    pauses.reset();
    tracing::info!("connected to Redis");
    tokio::select! {
        () = driver => unavailable(lost()),
        error = doubt(commands, suspect) => unavailable(error),
    }
}

/// A call without an answer may be one slow call, or a server that hangs: then every further call would be sent
/// into the void and end as unknown. So after each the server is asked for a sign of life.
async fn doubt(mut connection: MultiplexedConnection, suspect: &Notify) -> RedisError {
    loop {
        suspect.notified().await;
        if let Err(error) = redis::cmd("PING").query_async::<()>(&mut connection).await {
            return error;
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

/// An error with its causes, for the log.
pub(super) struct Chain<'a>(pub(super) &'a dyn std::error::Error);

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self.0, f)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}
