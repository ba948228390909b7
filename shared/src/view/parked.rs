//! Events that cannot be applied, kept with their cause. Nothing is skipped silently.

use crate::ids::Position;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParkedRow {
    pub position: Position,
    pub cause: String,
    /// The stored entry, field by field, as it was read.
    pub bytes: Vec<u8>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ParkedChange {
    PutParked(ParkedRow),
}
