//! The write side: validates, authenticates, decides, appends. It never reads a view, and knows stores only as
//! ports.

mod blocklist;
pub mod commands;
mod error;
mod known_users;
mod passwords;
mod state;

pub use blocklist::Blocklist;
pub use commands::routes;
pub use known_users::KnownUsers;
pub use passwords::Passwords;
pub use state::{AppState, Parts};
