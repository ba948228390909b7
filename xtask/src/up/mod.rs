//! `up` and `down`: the whole system as processes in the background of this machine.
//!
//! Everything they write lies under `target/xtask/up/`: data, logs, and one file per process that says which
//! it is.

mod containers;
mod place;
mod service;
mod start;
mod stop;

pub(crate) use start::Up;
pub(crate) use stop::Down;
