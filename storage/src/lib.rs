//! The adapters of `shared::ports`, and the only crate that names a database. Two families, held to one
//! contract suite: [`redis`] (log, accounts, feed, notices) with [`cassandra`] (views) is the real system;
//! [`embedded`] is all of it on one directory, in one process. The suite is `contract`.
//!
//! This crate decides nothing about messages and users: commands and projections do.

#[cfg(feature = "cassandra")]
pub mod archive;
#[cfg(feature = "cassandra")]
pub mod cassandra;
#[cfg(feature = "contract")]
pub mod contract;
#[cfg(feature = "embedded")]
pub mod embedded;
#[cfg(any(feature = "embedded", feature = "redis"))]
mod metrics;
#[cfg(feature = "redis")]
pub mod redis;
