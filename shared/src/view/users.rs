//! Who is registered.

use crate::clock::Timestamp;
use crate::ids::{Seq, Username};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserRow {
    pub username: Username,
    pub registered_at: Timestamp,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UsersChange {
    /// At [`super::version::effect`] of `seq`.
    PutUser { user: UserRow, seq: Seq },
}
