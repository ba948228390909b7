//! `cargo xtask up`.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result};
use clap::Args;
use clap::builder::RangedI64ValueParser;
use xtask::servers::{Cassandra, Keeping, Nginx, NginxOptions, Options, Process, Redis, Signal};

use super::containers;
use super::place::Place;
use super::service::{COMMAND_API, PROJECTOR, QUERY_API, Service};
use crate::{output, workspace};

pub(super) const REDIS_PORT: u16 = 6390;
pub(super) const CASSANDRA_PORT: u16 = 9142;
const NGINX_PORT: u16 = 8081;
const INSTANCES_MAX: i64 = 20;

fn instances() -> RangedI64ValueParser<u16> {
    clap::value_parser!(u16).range(1..=INSTANCES_MAX)
}

/// Starts what does not run yet and leaves it in the background. Asking for more instances adds them; none is
/// taken away.
#[derive(Debug, Args)]
pub(crate) struct Up {
    /// Instances that take writes.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = instances())]
    command_apis: u16,
    /// Instances that answer reads.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = instances())]
    query_apis: u16,
    /// Workers that build the views.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = instances())]
    projectors: u16,
    /// Run Redis and Cassandra as containers, by docker-compose.yml; the services stay processes.
    #[arg(long)]
    containers: bool,
}

impl Up {
    pub(crate) fn run(self) -> Result<()> {
        let binaries = build()?;
        let place = Place::open()?;
        if self.containers || containers::are_used(&place) {
            containers::up(&place)?;
        } else {
            start_stores(&place)?;
        }
        let redis_url = format!("redis://{}/", localhost(REDIS_PORT));
        let cassandra = localhost(CASSANDRA_PORT);
        migrate(&place, &binaries, cassandra)?;
        for (service, count) in
            [(COMMAND_API, self.command_apis), (QUERY_API, self.query_apis), (PROJECTOR, self.projectors)]
        {
            for number in 1..=count {
                let name = service.instance_name(number);
                let log = place.log(&name);
                place.ensure(&name, service.probe_addr(number), || {
                    service.start(number, &binaries, &redis_url, cassandra, &log)
                })?;
                service.wait_until_ready(number)?;
            }
        }
        start_edge(&place)?;
        say_how_to_go_on(&place, &binaries, &redis_url, cassandra);
        Ok(())
    }
}

fn build() -> Result<PathBuf> {
    let since = Instant::now();
    let services = [COMMAND_API.name, QUERY_API.name, PROJECTOR.name];
    let packages = services.iter().flat_map(|name| ["-p", name]);
    workspace::run(workspace::cargo()?.args(["build", "--release"]).args(packages))?;
    output::part("build", services.join(", "), since);
    Ok(workspace::target_dir()?.join("release"))
}

fn start_stores(place: &Place) -> Result<()> {
    place.ensure("redis", localhost(REDIS_PORT), || {
        Redis::start(&Options { dir: place.path("redis"), port: REDIS_PORT })?.detach()
    })?;
    place.ensure("cassandra", localhost(CASSANDRA_PORT), || {
        let options = Options { dir: place.path("cassandra"), port: CASSANDRA_PORT };
        Cassandra::start(&options, Keeping::Data)?.detach()
    })
}

fn migrate(place: &Place, binaries: &Path, cassandra: SocketAddr) -> Result<()> {
    let since = Instant::now();
    let mut command = Process::command(binaries.join(PROJECTOR.name));
    command.args(["migrate", "--cassandra-nodes", &cassandra.to_string()]);
    Process::spawn("migrate", command, &place.log("migrate"))?.wait()?;
    output::part("migrate", "the schema is up to date", since);
    Ok(())
}

/// nginx in front of all instances that run, also those that an earlier `up` started.
fn start_edge(place: &Place) -> Result<()> {
    let listen = localhost(NGINX_PORT);
    let command_apis = running(place, COMMAND_API)?;
    let query_apis = running(place, QUERY_API)?;
    let options = NginxOptions {
        dir: place.path("nginx"),
        listen,
        command_apis: &command_apis,
        query_apis: &query_apis,
    };
    if let Some(nginx) = place.running("nginx")? {
        Nginx::configure(&options)?;
        nginx.signal(Signal::Hup)?;
    }
    place.ensure("nginx", listen, || Nginx::start(&options)?.detach())
}

fn running(place: &Place, service: Service) -> Result<Vec<SocketAddr>> {
    let mut addrs = Vec::new();
    for record in place.records()?.into_iter().filter(|record| record.identity.is_alive()) {
        let Some(number) = record.name.strip_prefix(service.name).and_then(|rest| rest.strip_prefix('-'))
        else {
            continue;
        };
        addrs.push(service.addr(number.parse().with_context(|| record.name.clone())?));
    }
    Ok(addrs)
}

fn say_how_to_go_on(place: &Place, binaries: &Path, redis_url: &str, cassandra: SocketAddr) {
    let edge = localhost(NGINX_PORT);
    output::line(format!(
        r#"
Try it:
  curl -i http://{edge}/register -H 'Content-Type: application/json' -d '{{"username":"samer","password":"password123"}}'
  curl -i http://{edge}/login -H 'Content-Type: application/json' -d '{{"username":"samer","password":"password123"}}'
Status:
  curl http://{edge}/readyz
  {}/projector status --redis-url {redis_url} --cassandra-nodes {cassandra}
Logs and data:
  {}
End:
  cargo xtask down"#,
        shown(binaries),
        shown(&place.path("")),
    ));
}

/// Relative to where the user is, if that is shorter.
fn shown(path: &Path) -> String {
    let here = std::env::current_dir().unwrap_or_default();
    path.strip_prefix(here).unwrap_or(path).display().to_string()
}

fn localhost(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}
