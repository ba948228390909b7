//! One running system of its own for one test, on either backend.

use std::net::SocketAddr;
use std::ops::Deref;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use shared::process::auth::Access;
use shared::process::config::{CorsOptions, LimitOptions};

use crate::client::Client;
use crate::services::Shape;
use crate::user::User;
use crate::waiting::eventually;
use crate::{embedded, real};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    /// In this process, without servers.
    Embedded,
    /// The services' binaries on Redis and Cassandra, behind nginx.
    Real,
}

/// What both backends can be told.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// `None`: the default of the services.
    pub idempotency_window: Option<Duration>,
    /// The real services know no other than [`Access::Token`].
    pub access: Access,
    pub password_blocklist: Option<PathBuf>,
    /// `None`: no limits, because tests do more than people. Clients are told apart by `X-Forwarded-For` where
    /// nobody stands before the system, if 127.0.0.1 is trusted.
    pub limits: Option<LimitOptions>,
    /// By default a browser lets no page of another origin use the system.
    pub cors: CorsOptions,
}

/// How far the projection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// Appended and not yet applied.
    pub lag: u64,
    /// Delivered and not yet applied.
    pub pending: u64,
    /// Events that could not be applied.
    pub parked: u64,
    pub consumers: usize,
}

impl Standing {
    fn is_settled(self) -> bool {
        self.lag == 0 && self.pending == 0
    }
}

pub(crate) enum System {
    Embedded(embedded::System),
    Real(Box<real::System>),
}

/// A running system. It is a [`Client`] of itself.
///
/// A test that went well ends with [`TestApp::finish`]; after a panic everything is ended at once, and what the
/// processes wrote last is shown.
pub struct TestApp {
    client: Client,
    system: System,
    users: AtomicUsize,
    finished: bool,
}

impl Deref for TestApp {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

impl TestApp {
    pub async fn start(backend: Backend) -> Self {
        Self::with(backend, Settings::default()).await
    }

    pub async fn with(backend: Backend, settings: Settings) -> Self {
        match backend {
            Backend::Embedded => {
                let system = embedded::System::start(&settings).await;
                Self::of(system.address(), System::Embedded(system))
            }
            Backend::Real => Self::real(Shape { settings, ..Shape::default() }).await,
        }
    }

    pub async fn real(shape: Shape) -> Self {
        let system = real::System::start(shape).await;
        Self::of(system.address(), System::Real(Box::new(system)))
    }

    fn of(address: SocketAddr, system: System) -> Self {
        Self { client: Client::new(address), system, users: AtomicUsize::new(0), finished: false }
    }

    #[must_use]
    pub fn backend(&self) -> Backend {
        match &self.system {
            System::Embedded(_) => Backend::Embedded,
            System::Real(_) => Backend::Real,
        }
    }

    /// Another client of the same system: it shares no connection with others.
    #[must_use]
    pub fn another_client(&self) -> Client {
        Client::new(self.client.address())
    }

    /// The listeners that are not for clients: one of a process of each kind.
    #[must_use]
    pub fn operations(&self) -> Vec<Client> {
        match &self.system {
            System::Embedded(system) => vec![Client::new(system.metrics())],
            System::Real(system) => system.operations().into_iter().map(Client::new).collect(),
        }
    }

    /// A new user, logged in.
    pub async fn user(&self) -> User {
        let number = self.users.fetch_add(1, Ordering::Relaxed) + 1;
        self.register(&format!("user{number}")).await
    }

    /// This many new users, logged in.
    pub async fn users(&self, count: usize) -> Vec<User> {
        let mut users = Vec::new();
        for _ in 0..count {
            users.push(self.user().await);
        }
        users
    }

    /// A new user of this name, logged in.
    pub async fn register(&self, name: &str) -> User {
        User::register(&self.client, name).await
    }

    /// Another session of a user.
    pub async fn log_in(&self, name: &str) -> User {
        User::log_in(&self.client, name).await
    }

    /// How far the projection is now.
    pub async fn standing(&self) -> Standing {
        match &self.system {
            System::Embedded(system) => system.standing().await,
            System::Real(system) => system.standing().await,
        }
    }

    pub(crate) fn system(&self) -> &System {
        &self.system
    }

    /// The processes.
    ///
    /// # Panics
    /// On the embedded backend, which has none.
    #[must_use]
    pub fn processes(&self) -> &real::System {
        match &self.system {
            System::Real(system) => system,
            System::Embedded(_) => panic!("the embedded backend has no processes of its own"),
        }
    }

    /// Asserts that everything was applied and nothing parked, and ends the system in good order.
    pub async fn finish(mut self) {
        let settled = async || {
            let standing = self.standing().await;
            standing.is_settled().then_some(standing)
        };
        let standing = eventually("every event is applied", settled).await;
        assert_eq!(standing.parked, 0, "events are parked");
        match &self.system {
            System::Embedded(system) => system.stop().await,
            System::Real(system) => system.stop().await,
        }
        self.finished = true;
    }
}

impl Drop for TestApp {
    fn drop(&mut self) {
        match &mut self.system {
            System::Embedded(system) => system.abandon(),
            System::Real(system) if std::thread::panicking() => system.show_logs(),
            System::Real(_) => {}
        }
        // A second panic would abort the whole test binary.
        assert!(self.finished || std::thread::panicking(), "a test ends with `finish`");
    }
}
