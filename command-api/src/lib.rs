//! The write side: validates, authenticates, decides, appends. It never reads a view, and knows stores only as
//! ports.

pub mod commands;
mod error;
mod passwords;
mod state;

pub use commands::routes;
pub use passwords::Passwords;
pub use state::AppState;
