//! The read side: serves the views of the serving generation, and says how fresh its answers are. It holds no
//! truth, changes nothing, and knows stores only as ports.

mod conditional;
mod error;
mod freshness;
mod heads;
mod live;
mod metrics;
mod pages;
mod prefer;
pub mod queries;
mod state;

pub use live::Live;
pub use queries::routes;
pub use state::{AppState, Parts};
