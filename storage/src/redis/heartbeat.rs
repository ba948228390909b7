//! The sign of life of one consumer, on a task and a connection of its own: it goes on while the consumer waits for
//! a slow store, and ends with the consumer or its process, or when the consumer's loop is stuck.
//!
//! Redis notes when it last heard of a consumer: that is all there is to a heartbeat. A beat is a read of own
//! pending entries behind the last possible id. It finds nothing and writes nothing, but Redis has heard. (Waiting
//! reads would not do: Redis 7.0 notes only those that find something.)
//!
//! A name is of one consumer at a time. Who begins under it is given a turn, a number that only rises. Another
//! one that lives under the name learns with its next beat that it is out of turn; it is refused from then on.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use redis::{Pipeline, Value};
use shared::limits::{CONSUMER_CALLS_APART_MAX, HEARTBEAT_INTERVAL};
use shared::ports::{Chain, StoreError};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use super::STORE;
use super::server::{Connection, Server, unavailable};

/// `MAX-MAX` itself would stand for new entries.
const BEHIND_ALL: &str = "18446744073709551615-18446744073709551614";

/// Before a consumer is given one.
const NO_TURN: u64 = 0;

/// KEYS: turn, turns. ARGV: consumer, its turn. Answers the turn of who is to live under this name. One that a
/// failover has lost is written again.
const TURN: &str = "#!lua flags=allow-oom
local turn, current = tonumber(ARGV[2]), tonumber(redis.call('HGET', KEYS[2], ARGV[1]) or 0)
if turn == 0 then turn = redis.call('INCR', KEYS[1]) end
if turn > current then redis.call('HSET', KEYS[2], ARGV[1], turn) end
return math.max(turn, current)
";

/// Beats until it is dropped.
pub(super) struct Heartbeat {
    state: Arc<State>,
    _stop: DropGuard,
}

struct State {
    /// When the consumer made its last call.
    called: Mutex<Instant>,
    out_of_turn: AtomicBool,
}

/// Whose heart it is.
pub(super) struct Consumer {
    pub(super) server: Arc<Server>,
    pub(super) group: String,
    pub(super) name: String,
    pub(super) streams: Vec<String>,
}

impl Heartbeat {
    pub(super) fn start(consumer: Consumer, tasks: &TaskTracker, stop: &CancellationToken) -> Self {
        let called = Mutex::new(Instant::now());
        let state = Arc::new(State { called, out_of_turn: AtomicBool::new(false) });
        let (stop, beating) = (stop.child_token(), Arc::clone(&state));
        tasks.spawn({
            let stop = stop.clone();
            async move { stop.run_until_cancelled(beat(&consumer, &beating)).await }
        });
        Self { state, _stop: stop.drop_guard() }
    }

    /// The consumer is not stuck.
    pub(super) fn called(&self) {
        *self.state.called.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// An error when another one lives under the name.
    pub(super) fn check(&self) -> Result<(), StoreError> {
        if !self.state.out_of_turn.load(Ordering::Relaxed) {
            return Ok(());
        }
        let what =
            "another consumer has begun under this one's name; each needs a name of its own".to_owned();
        Err(StoreError::Unfit { store: STORE, what })
    }
}

impl State {
    fn is_stuck(&self) -> bool {
        self.called.lock().unwrap_or_else(PoisonError::into_inner).elapsed() > CONSUMER_CALLS_APART_MAX
    }
}

async fn beat(consumer: &Consumer, state: &State) {
    let mut ticks = tokio::time::interval(HEARTBEAT_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut connection, mut turn) = (None, NO_TURN);
    loop {
        ticks.tick().await;
        if state.is_stuck() {
            continue;
        }
        match consumer.beat(&mut connection, turn).await {
            Ok(current) if turn != NO_TURN && turn != current => {
                tracing::error!(consumer = consumer.name, "another consumer has begun under this name");
                state.out_of_turn.store(true, Ordering::Relaxed);
                return;
            }
            Ok(current) => turn = current,
            Err(error) => {
                // Who is not heard of is dead to the others; the consumer's own calls tell of a Redis that is away.
                tracing::debug!(error = %Chain(&error), "a heartbeat failed");
                connection = None;
            }
        }
    }
}

impl Consumer {
    /// Returns whose turn it is. A partition whose group is missing hears nothing: the consumer makes it.
    async fn beat(&self, connection: &mut Option<Connection>, turn: u64) -> Result<u64, StoreError> {
        let connection = match connection {
            Some(connection) => connection,
            none => none.insert(self.server.connect(HEARTBEAT_INTERVAL).await?),
        };
        let keys = &self.server.keys;
        let mut pipeline = Pipeline::with_capacity(1 + self.streams.len());
        pipeline.cmd("EVAL").arg(TURN).arg(2).arg(keys.turn(&self.group)).arg(keys.turns(&self.group));
        pipeline.arg(&self.name).arg(turn);
        for stream in &self.streams {
            pipeline.cmd("XREADGROUP").arg("GROUP").arg(&self.group).arg(&self.name).arg("COUNT").arg(1);
            pipeline.arg("STREAMS").arg(stream).arg(BEHIND_ALL);
        }
        let mut answers = connection.ask_each(&pipeline).await.map_err(unavailable)?;
        match answers.swap_remove(0) {
            Value::ServerError(error) => Err(unavailable(error.into())),
            turn => redis::from_redis_value(turn).map_err(|error| unavailable(error.into())),
        }
    }
}
