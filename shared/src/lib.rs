//! The vocabulary of the chat system. In reading order: [`ids`] (names, ids, subjects), [`event`] (what
//! happened, as stored), [`message`] (what clients see of it), [`view`] (the read models and the changes
//! that make them), [`generation`] (whole sets of them), [`rate`] and [`network`] (how often, and by whom), [`ports`] (what a service may ask of a
//! store), [`limits`], [`clock`], and [`process`] (what every process is made of: configuration, HTTP, health,
//! telemetry, shutdown).
//!
//! Order is decided once, when an event is appended; everything after that is a merge. This crate knows no
//! store: it does no storage I/O and names no database.

pub mod clock;
pub mod event;
pub mod generation;
pub mod ids;
pub mod limits;
pub mod message;
pub mod network;
pub mod ports;
pub mod process;
pub mod rate;
pub mod view;

pub use clock::{Clock, Timestamp};
pub use ids::{Conversation, EventId, Position, Seq, Subject, Trace, TraceId, Username};
