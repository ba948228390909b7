//! The least that could be done: what the system is measured against. Each baseline is a process of its own, as the
//! system is. Those for sends take the same requests and answer 201 with what they were sent; those for reads answer
//! with the same pages; the one for projectors drains the same log into the same tables.
//!
//! Nothing here authenticates, validates, decides or queues with a bound: it shows what the parts cost alone.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Context, Result};
use axum::Router;
use axum::body::Bytes;
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::serve::ListenerExt;
use clap::Subcommand;
use tokio::net::TcpListener;

mod drain;
mod group_commit;
mod pages;
mod script;

pub(crate) use drain::Drain;
pub(crate) use script::{EVENTS_KEY, ONCE_KEY_PREFIX, SCRIPT};

#[derive(Debug, Clone, Subcommand)]
pub(crate) enum Baseline {
    /// Nothing but HTTP
    Bare {
        #[arg(long)]
        listen: SocketAddr,
    },
    /// One script call per request, on one multiplexed connection
    Script {
        #[arg(long)]
        listen: SocketAddr,
        #[arg(long)]
        redis_url: String,
    },
    /// Group commit into an LSM tree, synced before it is answered
    Fjall {
        #[arg(long)]
        listen: SocketAddr,
        #[arg(long)]
        dir: PathBuf,
    },
    /// Ready bytes after one round trip to Redis
    Ready {
        #[arg(long)]
        listen: SocketAddr,
        #[arg(long)]
        redis_url: String,
        #[arg(long)]
        body: PathBuf,
    },
    /// A page of the timeline or an inbox, by the bare driver
    Select {
        #[arg(long)]
        listen: SocketAddr,
        #[arg(long)]
        cassandra_node: String,
        #[arg(long)]
        keyspace: String,
    },
    /// The log into the views, by the bare drivers
    Drain(Drain),
}

/// Serves until the process is killed.
pub(crate) async fn serve(baseline: Baseline) -> Result<()> {
    let (listen, router) = match baseline {
        Baseline::Bare { listen } => (listen, Router::new().route("/send", post(created))),
        Baseline::Script { listen, redis_url } => (listen, script::router(&redis_url).await?),
        Baseline::Fjall { listen, dir } => (listen, group_commit::router(&dir)?),
        Baseline::Ready { listen, redis_url, body } => (listen, pages::ready(&redis_url, &body).await?),
        Baseline::Select { listen, cassandra_node, keyspace } => {
            (listen, pages::select(&cassandra_node, &keyspace).await?)
        }
        Baseline::Drain(drain) => return drain::run(&drain).await,
    };
    let listener = TcpListener::bind(listen).await.with_context(|| format!("cannot listen on {listen}"))?;
    let listener = listener.tap_io(|stream| drop(stream.set_nodelay(true)));
    Ok(axum::serve(listener, router.route("/readyz", get(async || "ready"))).await?)
}

async fn created(body: Bytes) -> (StatusCode, Bytes) {
    (StatusCode::CREATED, body)
}
