//! `POST` → one script call → 201.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result};
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use redis::aio::MultiplexedConnection;
use shared::Clock;

/// The event and its receipt in one atomic step, and nothing else.
pub(crate) const SCRIPT: &str = "local entry = redis.call('XADD', KEYS[1], '*', 'p', ARGV[1])
redis.call('SET', KEYS[2], entry, 'PX', 3600000)
return entry";
pub(crate) const EVENTS_KEY: &str = "{bench}:events";
pub(crate) const ONCE_KEY_PREFIX: &str = "{bench}:once:";

#[derive(Clone)]
struct Caller {
    connection: MultiplexedConnection,
    sha: Arc<str>,
    /// Makes every receipt a new key.
    run: Arc<str>,
    count: Arc<AtomicU64>,
}

pub(super) async fn router(redis_url: &str) -> Result<Router> {
    let mut connection = redis::Client::open(redis_url)?.get_multiplexed_async_connection().await?;
    let sha: String = redis::cmd("SCRIPT").arg("LOAD").arg(SCRIPT).query_async(&mut connection).await?;
    let run = Clock::system().new_id().to_string();
    let caller = Caller { connection, sha: sha.into(), run: run.into(), count: Arc::default() };
    caller.clone().call(b"").await.context("the first call of the script")?;
    Ok(Router::new().route("/send", post(append)).with_state(caller))
}

async fn append(State(caller): State<Caller>, body: Bytes) -> Result<(StatusCode, Bytes), StatusCode> {
    caller.call(&body).await.map_err(|_| StatusCode::SERVICE_UNAVAILABLE)?;
    Ok((StatusCode::CREATED, body))
}

impl Caller {
    async fn call(mut self, body: &[u8]) -> redis::RedisResult<String> {
        let once = format!("{ONCE_KEY_PREFIX}{}:{}", self.run, self.count.fetch_add(1, Ordering::Relaxed));
        let mut command = redis::cmd("EVALSHA");
        command.arg(&*self.sha).arg(2).arg(EVENTS_KEY).arg(once).arg(body);
        command.query_async(&mut self.connection).await
    }
}
