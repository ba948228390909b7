//! What every process is made of. In reading order: [`config`], [`shutdown`], [`end`], [`telemetry`],
//! [`problem`] (errors as clients see them), [`request`] (strict reading of requests), [`auth`], [`sessions`],
//! [`client`] (where a request comes from), [`cors`], [`limits`] (what clients may do), [`health`], [`trace`], [`http`]
//! (the server). Nothing here is global: listeners, clocks, registries and tokens are parameters, so that several servers
//! fit in one process.

pub mod auth;
pub mod client;
pub mod config;
pub mod cors;
pub mod end;
pub mod health;
pub mod http;
pub mod limits;
#[cfg(feature = "otel")]
pub mod otel;
pub mod problem;
pub mod request;
pub mod sessions;
pub mod shutdown;
pub mod telemetry;
pub mod trace;
