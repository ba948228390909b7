//! The log beyond what Redis holds of it: the same ports, answered from the archive where the stream was trimmed and
//! from the stream where it goes on. [`block`] is how a block is written. Nothing here archives and nothing trims:
//! projectors do.

pub mod block;
#[cfg(feature = "redis")]
mod feed;
#[cfg(feature = "redis")]
mod reader;
#[cfg(feature = "redis")]
mod scan;
#[cfg(feature = "redis")]
mod search;

#[cfg(feature = "redis")]
pub use feed::Feed;
#[cfg(feature = "redis")]
pub use reader::Reader;
#[cfg(feature = "redis")]
pub use scan::Scan;
