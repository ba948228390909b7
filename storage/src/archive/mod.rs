//! What the archive is made of, whichever store keeps it: how a block is written ([`block`]).

pub mod block;
