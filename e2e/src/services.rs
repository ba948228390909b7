//! The services' binaries and what they are told: one set of flags for each role.

use std::fmt;
use std::iter;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use shared::Clock;
use shared::process::config::{LimitOptions, Switch};

use crate::app::Settings;
use crate::environment::{self, patience};
use crate::ports::free_address;
use crate::process::{self, Process};

const LOCALHOST: &str = "127.0.0.1";

/// How many of each, and on what.
#[derive(Debug, Clone)]
pub struct Shape {
    pub command_apis: usize,
    pub query_apis: usize,
    pub projectors: usize,
    /// `None`: the one of the test run.
    pub redis_url: Option<String>,
    /// `None`: the one of the test run. Several are separated by commas.
    pub cassandra_node: Option<String>,
    /// Copies of each row of the views.
    pub replication_factor: u8,
    /// That must have an event before it is acknowledged.
    pub log_replicas: u8,
    pub settings: Settings,
}

impl Default for Shape {
    fn default() -> Self {
        Self {
            command_apis: 2,
            query_apis: 2,
            projectors: 2,
            redis_url: None,
            cassandra_node: None,
            replication_factor: 1,
            log_replicas: 0,
            settings: Settings::default(),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    CommandApi,
    QueryApi,
    Projector,
}

/// The name of the binary.
impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::CommandApi => "command-api",
            Self::QueryApi => "query-api",
            Self::Projector => "projector",
        })
    }
}

/// A service process and where it listens.
pub(crate) struct Instance {
    pub(crate) role: Role,
    /// For clients; a projector has none.
    pub(crate) listen: SocketAddr,
    pub(crate) operations: SocketAddr,
    pub(crate) process: Process,
}

/// What the services are told of the servers.
#[derive(Debug, Clone)]
pub(crate) struct Services {
    /// Clones are told of others together.
    programs: Arc<Mutex<PathBuf>>,
    redis_url: String,
    key_prefix: String,
    cassandra_node: String,
    keyspace: String,
    replication_factor: String,
    log_replicas: String,
    settings: Settings,
}

impl Services {
    pub(crate) fn new(shape: &Shape) -> Self {
        // Keyspaces have no upper case.
        let unique = Clock::system().new_id().to_string().to_lowercase();
        Self {
            programs: Arc::new(Mutex::new(environment::binaries())),
            redis_url: shape.redis_url.clone().unwrap_or_else(environment::redis_url),
            key_prefix: format!("{unique}:"),
            cassandra_node: shape.cassandra_node.clone().unwrap_or_else(environment::cassandra_node),
            keyspace: format!("t{unique}"),
            replication_factor: shape.replication_factor.to_string(),
            log_replicas: shape.log_replicas.to_string(),
            settings: shape.settings.clone(),
        }
    }

    /// The same, for a service to which Cassandra is elsewhere.
    pub(crate) fn on(&self, cassandra_node: SocketAddr) -> Self {
        Self { cassandra_node: cassandra_node.to_string(), ..self.clone() }
    }

    /// From now on, what is started and asked is of this directory.
    pub(crate) fn use_programs(&self, dir: &Path) {
        dir.clone_into(&mut self.programs.lock().unwrap_or_else(PoisonError::into_inner));
    }

    pub(crate) fn program(&self, name: &str) -> PathBuf {
        self.programs.lock().unwrap_or_else(PoisonError::into_inner).join(name)
    }

    fn log(&self) -> [&str; 4] {
        ["--redis-url", &self.redis_url, "--key-prefix", &self.key_prefix]
    }

    fn views(&self) -> [&str; 6] {
        let [nodes, keyspace, copies] = [&self.cassandra_node, &self.keyspace, &self.replication_factor];
        ["--cassandra-nodes", nodes, "--keyspace", keyspace, "--replication-factor", copies]
    }

    pub(crate) fn migration(&self) -> Vec<&str> {
        [&["migrate"][..], &self.views()].concat()
    }

    /// A command of the projector that asks both stores.
    pub(crate) fn asked<'a>(&'a self, arguments: &[&'a str]) -> Vec<&'a str> {
        [arguments, &self.log(), &self.views()].concat()
    }

    /// The same as a process of its own.
    pub(crate) fn begin(&self, name: &str, arguments: &[&str], dir: &Path) -> Result<Process> {
        let arguments = self.asked(arguments).into_iter().map(str::to_owned).collect();
        Process::start(name, &self.program("projector"), arguments, dir)
    }

    /// A node of Cassandra, and what the names of all keyspaces there begin with.
    #[cfg(feature = "real")]
    pub(crate) fn views_place(&self) -> (&str, &str) {
        (&self.cassandra_node, &self.keyspace)
    }

    /// One service, on ports of its own.
    pub(crate) fn start(&self, role: Role, name: &str, dir: &Path) -> Result<Instance> {
        let (listen, operations) = (free_address(), free_address());
        let (listen_text, operations_text) = (listen.to_string(), operations.to_string());
        let window = self.settings.idempotency_window.map(|window| format!("{}s", window.as_secs()));
        let blocklist = self.settings.password_blocklist.as_ref().map(|file| file.display().to_string());
        let limits = Limits::of(&self.settings);
        let origins: Vec<_> = self.settings.cors.cors_origins.iter().map(ToString::to_string).collect();
        let cors = origins.iter().flat_map(|origin| ["--cors-origins", origin.as_str()]);
        let mut arguments: Vec<&str> = Vec::new();
        match role {
            Role::CommandApi => {
                arguments.extend(["--listen", &listen_text]);
                arguments.extend(self.log());
                arguments.extend(["--log-replicas", &self.log_replicas]);
                arguments.extend(limits.both().iter().chain(&limits.commands()));
                arguments.extend(cors);
                arguments.extend(window.iter().flat_map(|window| ["--idempotency-window", window.as_str()]));
                arguments.extend(blocklist.iter().flat_map(|file| ["--password-blocklist", file.as_str()]));
            }
            Role::QueryApi => {
                arguments.extend(["--listen", &listen_text]);
                arguments.extend(self.log());
                arguments.extend(self.views());
                arguments.extend(limits.both());
                arguments.extend(cors);
            }
            Role::Projector => {
                arguments.extend(["run", "--name", name]);
                arguments.extend(self.log());
                arguments.extend(self.views());
            }
        }
        arguments.extend(["--metrics-listen", &operations_text]);
        let arguments = arguments.into_iter().map(str::to_owned).collect();
        let process = Process::start(name, &self.program(&role.to_string()), arguments, dir)?;
        Ok(Instance { role, listen, operations, process })
    }

    /// Runs a command to its end and returns what it printed.
    pub(crate) async fn run(&self, binary: &str, arguments: &[&str]) -> Result<String> {
        let output = self.output(binary, arguments).await?;
        let errors = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{binary} {}: {}\n{errors}", arguments.join(" "), output.status);
        Ok(String::from_utf8(output.stdout)?)
    }

    /// Runs a command to its end, however it ends; again, if Redis did not answer it in time.
    pub(crate) async fn output(&self, binary: &str, arguments: &[&str]) -> Result<Output> {
        let deadline = Instant::now() + patience();
        loop {
            let mut command = process::command(&self.program(binary));
            command.args(arguments);
            let output = tokio::task::spawn_blocking(move || command.output()).await?;
            let output = output.with_context(|| binary.to_owned())?;
            let is_late = String::from_utf8_lossy(&output.stderr).contains(process::TIMED_OUT);
            if output.status.success() || !is_late || Instant::now() >= deadline {
                return Ok(output);
            }
        }
    }

    pub(crate) fn redis_url(&self) -> &str {
        &self.redis_url
    }

    pub(crate) fn key_prefix(&self) -> &str {
        &self.key_prefix
    }
}

/// The flags of the limits, as text.
struct Limits {
    switch: &'static str,
    in_flight: String,
    commands: [String; 4],
}

impl Limits {
    fn of(settings: &Settings) -> Self {
        let options = settings.limits.clone().unwrap_or_default();
        let LimitOptions { in_flight, send_limit, login_limit, register_limit, trusted_proxies } = options;
        let switched_on = settings.limits.is_some() && in_flight.rate_limits == Switch::On;
        // nginx, always; it says who came to it.
        let proxies = iter::once(LOCALHOST.to_owned()).chain(trusted_proxies.iter().map(ToString::to_string));
        Self {
            switch: if switched_on { "on" } else { "off" },
            in_flight: in_flight.in_flight_limit.to_string(),
            commands: [
                send_limit.to_string(),
                login_limit.to_string(),
                register_limit.to_string(),
                proxies.collect::<Vec<_>>().join(","),
            ],
        }
    }

    fn both(&self) -> [&str; 4] {
        ["--rate-limits", self.switch, "--in-flight-limit", &self.in_flight]
    }

    fn commands(&self) -> [&str; 8] {
        let [send, login, register, proxies] = &self.commands;
        [
            "--send-limit",
            send,
            "--login-limit",
            login,
            "--register-limit",
            register,
            "--trusted-proxies",
            proxies,
        ]
    }
}
