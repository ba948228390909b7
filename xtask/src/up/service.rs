//! The project's own processes: which binary, how many, and where each instance listens.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use xtask::servers::{Identity, Process, http_status};

const READY_TIME_MAX: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(100);

/// A kind of service. Its instance `n` (from 1) has its main listener at `port_first + n − 1` and its metrics
/// a thousand above.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Service {
    pub(super) name: &'static str,
    port_first: u16,
    needs_cassandra: bool,
}

pub(super) const COMMAND_API: Service =
    Service { name: "command-api", port_first: 8101, needs_cassandra: false };
pub(super) const QUERY_API: Service = Service { name: "query-api", port_first: 8201, needs_cassandra: true };
/// It serves nobody: only the metrics port is used.
pub(super) const PROJECTOR: Service = Service { name: "projector", port_first: 8301, needs_cassandra: true };

const METRICS_PORT_OFFSET: u16 = 1000;

impl Service {
    pub(super) fn instance_name(&self, number: u16) -> String {
        format!("{}-{number}", self.name)
    }

    /// Where clients reach it.
    pub(super) fn addr(&self, number: u16) -> SocketAddr {
        localhost(self.port_first + number - 1)
    }

    fn metrics_addr(&self, number: u16) -> SocketAddr {
        localhost(self.port_first + number - 1 + METRICS_PORT_OFFSET)
    }

    /// Where its readiness can be asked.
    pub(super) fn probe_addr(&self, number: u16) -> SocketAddr {
        if *self == PROJECTOR { self.metrics_addr(number) } else { self.addr(number) }
    }

    /// Starts an instance in the background; returns when it is ready.
    pub(super) fn start(
        &self,
        number: u16,
        binaries: &Path,
        redis_url: &str,
        cassandra: SocketAddr,
        log: &Path,
    ) -> Result<Identity> {
        let mut command = Process::command(binaries.join(self.name));
        if *self == PROJECTOR {
            command.args(["run", "--name", &self.instance_name(number)]);
        } else {
            command.args(["--listen", &self.addr(number).to_string()]);
        }
        if *self == COMMAND_API {
            // nginx stands before it on this machine, and says who came to it.
            command.args(["--trusted-proxies", "127.0.0.1"]);
        }
        command.args(["--metrics-listen", &self.metrics_addr(number).to_string(), "--redis-url", redis_url]);
        if self.needs_cassandra {
            command.args(["--cassandra-nodes", &cassandra.to_string()]);
        }
        let mut process = Process::spawn(&self.instance_name(number), command, log)?;
        let probe = self.probe_addr(number);
        process.wait_until(READY_TIME_MAX, || http_status(probe, "/readyz") == Some(200))?;
        process.detach()
    }

    /// Waits until an instance that runs is ready. One that an earlier `up` started may not be any more: what it knew of
    /// the stores may be another by now.
    pub(super) fn wait_until_ready(&self, number: u16) -> Result<()> {
        let (probe, deadline) = (self.probe_addr(number), Instant::now() + READY_TIME_MAX);
        while http_status(probe, "/readyz") != Some(200) {
            let name = self.instance_name(number);
            ensure!(Instant::now() < deadline, "{name} is not ready: http://{probe}/readyz says why");
            sleep(POLL);
        }
        Ok(())
    }
}

fn localhost(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}
