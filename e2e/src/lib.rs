//! The system as its clients see it: everything here speaks HTTP to a running system, or does something bad to
//! it. In reading order: [`app`] (one system for one test, on either backend), [`client`], [`curl`]
//! (a request and its answer as a terminal shows them), [`user`], [`events`], [`in_flight`], [`waiting`],
//! [`traffic`] (what was acknowledged, and is it visible), [`log`] (what is stored of it), [`comparison`],
//! [`mod@poison`], [`proxy`] and [`process`] (faults).
//!
//! ```text
//! e2e::scenarios!(a_message_is_seen_at_once);
//!
//! async fn a_message_is_seen_at_once(app: &TestApp) { … }
//! ```
//!
//! makes the tests `a_message_is_seen_at_once::embedded` and, with the feature `real`,
//! `a_message_is_seen_at_once::real`. The latter needs real servers, which `cargo xtask test` starts.

pub mod app;
pub mod client;
pub mod comparison;
pub mod curl;
mod embedded;
pub mod environment;
pub mod events;
pub mod in_flight;
pub mod log;
pub mod poison;
pub mod ports;
pub mod process;
pub mod proxy;
pub mod real;
mod services;
pub mod traffic;
pub mod user;
pub mod waiting;

pub use app::{Backend, Settings, Standing, TestApp};
pub use client::{Answer, Client, Request};
pub use curl::Placeholders;
pub use events::{Event, Events, Followed, Follower};
pub use in_flight::InFlight;
pub use log::Sum;
pub use poison::{Planted, poison};
pub use proxy::Proxy;
pub use services::{Role, Shape};
pub use user::{User, new_id, seqs};
pub use waiting::{eventually, within};

/// Tests that run on every backend: functions `async fn(&TestApp)` beside the call. With `settings =>` before them,
/// on a system that was told so.
#[macro_export]
macro_rules! scenarios {
    ($($name:ident),* $(,)?) => {
        $crate::scenarios!($crate::Settings::default() => $($name),*);
    };
    ($settings:expr => $($name:ident),* $(,)?) => {
        $(mod $name {
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn embedded() {
                use super::*;
                let app = $crate::TestApp::with($crate::Backend::Embedded, $settings).await;
                super::$name(&app).await;
                app.finish().await;
            }

            #[cfg(feature = "real")]
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn real() {
                use super::*;
                let app = $crate::TestApp::with($crate::Backend::Real, $settings).await;
                super::$name(&app).await;
                app.finish().await;
            }
        })*
    };
}

/// Tests of faults that only processes can have, or of nginx: functions `async fn()` beside the call, which make
/// a [`TestApp::real`] of the shape they need and finish it.
#[macro_export]
macro_rules! real_scenarios {
    ($($name:ident),* $(,)?) => {
        $(mod $name {
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn real() {
                super::$name().await;
            }
        })*
    };
}

/// Tests of what only the embedded backend has, likewise.
#[macro_export]
macro_rules! embedded_scenarios {
    ($($name:ident),* $(,)?) => {
        $(mod $name {
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn embedded() {
                super::$name().await;
            }
        })*
    };
}
