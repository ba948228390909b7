//! The system as it is operated: the services' own binaries as child processes, behind a real nginx, on the Redis
//! and the Cassandra of the test run, under a key prefix and a keyspace of their own.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Output;

use anyhow::Result;
use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;
use tokio::sync::Mutex;
use xtask::servers::{Nginx, NginxOptions};

use crate::app::Standing;
use crate::client::Client;
use crate::ports::free_address;
use crate::process::{self, Process};
use crate::services::{Instance, Role, Services, Shape};
use crate::waiting::eventually;

/// Names are `command-api-1`, `query-api-2`, `projector-1`, … in the order of their start.
pub struct System {
    instances: Mutex<BTreeMap<String, Instance>>,
    nginx: Mutex<Nginx>,
    address: SocketAddr,
    operations: Vec<SocketAddr>,
    services: Services,
    /// Last, so that it outlives what writes into it.
    dir: TempDir,
}

impl System {
    pub(crate) async fn start(shape: Shape) -> Self {
        let services = Services::new(&shape);
        let dir = tempfile::Builder::new().prefix("chat-e2e-").tempdir().expect("a temporary directory");
        migrate(&services).await;

        let mut instances = BTreeMap::new();
        for (role, count) in [
            (Role::CommandApi, shape.command_apis),
            (Role::QueryApi, shape.query_apis),
            (Role::Projector, shape.projectors),
        ] {
            for number in 1..=count {
                let name = format!("{role}-{number}");
                instances.insert(name.clone(), services.start(role, &name, dir.path()).expect("it starts"));
            }
        }
        for (name, instance) in &mut instances {
            ready(name, instance).await;
        }
        let address = free_address();
        let nginx = start_nginx(dir.path().join("nginx"), address, &instances).await;
        let first = ["command-api-1", "query-api-1", "projector-1"];
        let operations = first
            .iter()
            .filter_map(|name| instances.get(*name))
            .map(|instance| instance.operations)
            .collect();
        Self {
            instances: Mutex::new(instances),
            nginx: Mutex::new(nginx),
            address,
            operations,
            services,
            dir,
        }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn operations(&self) -> Vec<SocketAddr> {
        self.operations.clone()
    }

    /// A client of one instance, past nginx.
    ///
    /// # Panics
    /// When there is none of that name.
    pub async fn direct(&self, name: &str) -> Client {
        Client::new(self.instances.lock().await[name].listen)
    }

    /// A client of the listener of one instance that is not for clients.
    ///
    /// # Panics
    /// When there is none of that name.
    pub async fn operations_of(&self, name: &str) -> Client {
        Client::new(self.instances.lock().await[name].operations)
    }

    /// kill -9.
    ///
    /// # Panics
    /// When it does not run.
    pub async fn kill(&self, name: &str) {
        self.with(name, Process::kill).await;
    }

    /// SIGSTOP.
    ///
    /// # Panics
    /// When it does not run.
    pub async fn pause(&self, name: &str) {
        self.with(name, |process| process.pause()).await;
    }

    /// SIGCONT.
    ///
    /// # Panics
    /// When it does not run.
    pub async fn resume(&self, name: &str) {
        self.with(name, |process| process.resume()).await;
    }

    /// SIGTERM, and the exit with status 0 in time.
    ///
    /// # Panics
    /// When it does not end so.
    pub async fn terminate(&self, name: &str) {
        let mut instances = self.instances.lock().await;
        let process = &mut instances.get_mut(name).expect("an instance of this name").process;
        process.signal(Signal::TERM).expect("it runs");
        process.ended().await.expect("it ends in good order");
    }

    /// Starts what was killed or terminated again, on its old port, and waits until it is ready.
    ///
    /// # Panics
    /// When it does not get ready.
    pub async fn restart(&self, name: &str) {
        let mut instances = self.instances.lock().await;
        let instance = instances.get_mut(name).expect("an instance of this name");
        instance.process.restart().expect("it starts");
        ready(name, instance).await;
    }

    /// As [`System::restart`], without waiting.
    ///
    /// # Panics
    /// When it cannot be started.
    pub async fn start_again(&self, name: &str) {
        self.with(name, Process::restart).await;
    }

    /// Waits until it is ready.
    ///
    /// # Panics
    /// When it does not get ready.
    pub async fn ready(&self, name: &str) {
        let mut instances = self.instances.lock().await;
        ready(name, instances.get_mut(name).expect("an instance of this name")).await;
    }

    /// From now on, what is started and asked is of the programs in `dir`; what runs goes on.
    pub fn use_programs(&self, dir: &Path) {
        self.services.use_programs(dir);
    }

    /// Ends an instance in good order and starts the program that is used now in its place; waits until it is ready.
    ///
    /// # Panics
    /// When it does not end so, or does not get ready.
    pub async fn replace(&self, name: &str) {
        let mut instances = self.instances.lock().await;
        let instance = instances.get_mut(name).expect("an instance of this name");
        if instance.process.exit_status().expect("a status").is_none() {
            instance.process.signal(Signal::TERM).expect("it runs");
            instance.process.ended().await.expect("it ends in good order");
        }
        instance.process.replace(&self.services.program(&instance.role.to_string())).expect("it starts");
        ready(name, instance).await;
    }

    /// Starts what was terminated again and waits until it has ended by itself; what it has written so far.
    ///
    /// # Panics
    /// When it goes on, or ends well.
    pub async fn refusal(&self, name: &str) -> String {
        let mut instances = self.instances.lock().await;
        let process = &mut instances.get_mut(name).expect("an instance of this name").process;
        process.restart().expect("it starts");
        let status = eventually("it refuses", async || process.exit_status().expect("a status")).await;
        assert!(!status.success(), "{name}: {status}");
        process.output()
    }

    /// The most memory that it has had since its start, in bytes.
    ///
    /// # Panics
    /// When it does not run.
    pub async fn memory_peak(&self, name: &str) -> u64 {
        self.instances.lock().await[name].process.memory_peak().expect("it runs")
    }

    /// As [`System::restart`], with one more argument.
    ///
    /// # Panics
    /// When it does not get ready.
    pub async fn restart_with(&self, name: &str, argument: &str) {
        let mut instances = self.instances.lock().await;
        let instance = instances.get_mut(name).expect("an instance of this name");
        instance.process.restart_with(argument).expect("it starts");
        ready(name, instance).await;
    }

    /// One more instance, and its name. nginx is told of APIs.
    ///
    /// # Panics
    /// When it does not get ready.
    pub async fn start_one_more(&self, role: Role) -> String {
        let mut instances = self.instances.lock().await;
        let number = instances.values().filter(|instance| instance.role == role).count() + 1;
        let name = format!("{role}-{number}");
        let mut instance = self.services.start(role, &name, self.dir.path()).expect("it starts");
        ready(&name, &mut instance).await;
        instances.insert(name.clone(), instance);
        if role != Role::Projector {
            let (command_apis, query_apis) = upstreams(&instances);
            let dir = self.dir.path().join("nginx");
            let options = NginxOptions {
                dir,
                listen: self.address,
                command_apis: &command_apis,
                query_apis: &query_apis,
            };
            self.nginx.lock().await.reload(&options).expect("nginx reloads");
        }
        name
    }

    /// One more projector, to which Cassandra is at `cassandra_node`, and its name.
    ///
    /// # Panics
    /// When it does not get ready.
    pub async fn start_projector_on(&self, cassandra_node: SocketAddr) -> String {
        let mut instances = self.instances.lock().await;
        let number = instances.values().filter(|instance| instance.role == Role::Projector).count() + 1;
        let name = format!("{}-{number}", Role::Projector);
        let services = self.services.on(cassandra_node);
        let mut instance = services.start(Role::Projector, &name, self.dir.path()).expect("it starts");
        ready(&name, &mut instance).await;
        instances.insert(name.clone(), instance);
        name
    }

    /// Ends nginx, whatever is open, and starts it again on its old port.
    ///
    /// # Panics
    /// When it does not end or start.
    pub async fn restart_nginx(&self) {
        let mut nginx = self.nginx.lock().await;
        nginx.stop_with(xtask::servers::Signal::Term).expect("nginx ends");
        *nginx =
            start_nginx(self.dir.path().join("nginx"), self.address, &*self.instances.lock().await).await;
    }

    /// What every process has written so far, by its name; `nginx` is one of them.
    pub async fn logs(&self) -> BTreeMap<String, String> {
        let instances = self.instances.lock().await;
        let logs = instances.iter().map(|(name, instance)| (name.clone(), instance.process.output()));
        logs.chain([("nginx".to_owned(), self.nginx_log())]).collect()
    }

    fn nginx_log(&self) -> String {
        let log = std::fs::read(self.dir.path().join("nginx").join("nginx.log")).unwrap_or_default();
        String::from_utf8_lossy(&log).into_owned()
    }

    /// `projector migrate`, and what it says.
    ///
    /// # Panics
    /// When it fails.
    pub async fn migrate(&self) -> String {
        migrate(&self.services).await
    }

    /// `projector status`, as soon as stores that other tests keep busy answer in time.
    ///
    /// # Panics
    /// When it cannot be had.
    pub async fn status(&self) -> Value {
        let asked = self.services.asked(&["status", "--json"]);
        let text = eventually("a status", async || self.services.run("projector", &asked).await.ok()).await;
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    /// `projector status --watch`; what it prints is its output.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn watch_status(&self) -> Process {
        self.begin("status", &["status", "--watch"])
    }

    /// `projector parked`, however it ends.
    ///
    /// # Panics
    /// When it cannot be run.
    pub async fn parked(&self, arguments: &[&str]) -> Output {
        self.projector(&[&["parked"], arguments].concat()).await
    }

    /// `projector verify`, however it ends.
    ///
    /// # Panics
    /// When it cannot be run.
    pub async fn verify(&self, arguments: &[&str]) -> Output {
        self.projector(&[&["verify"], arguments].concat()).await
    }

    /// A command of the projector that asks both stores, however it ends.
    ///
    /// # Panics
    /// When it cannot be run.
    pub async fn projector(&self, arguments: &[&str]) -> Output {
        let arguments = self.services.asked(arguments);
        self.services.output("projector", &arguments).await.expect("it runs")
    }

    /// A command of the projector that asks both stores and ends well; what it says in JSON.
    ///
    /// # Panics
    /// When it does not.
    pub async fn done(&self, command: &[&str]) -> Value {
        let Output { status, stdout, stderr } = self.projector(&[command, &["--json"]].concat()).await;
        let said = String::from_utf8_lossy(&[&stdout[..], &stderr].concat()).into_owned();
        assert!(status.success(), "{command:?}: {said}");
        serde_json::from_slice(&stdout).unwrap_or_else(|error| panic!("{error}: {said}"))
    }

    /// A command of the projector as a process called `name`.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn begin(&self, name: &str, arguments: &[&str]) -> Process {
        self.services.begin(name, arguments, self.dir.path()).expect("it starts")
    }

    pub(crate) fn services(&self) -> &Services {
        &self.services
    }

    pub(crate) async fn standing(&self) -> Standing {
        standing(&self.status().await)
    }

    /// Ends everything in good order, all at once.
    pub(crate) async fn stop(&self) {
        self.nginx.lock().await.stop().expect("nginx ends");
        let mut instances = self.instances.lock().await;
        for instance in instances.values_mut() {
            if instance.process.exit_status().expect("a status").is_none() {
                instance.process.signal(Signal::TERM).expect("it runs");
            }
        }
        for instance in instances.values_mut() {
            if !instance.process.was_killed() {
                instance.process.ended().await.expect("it ends in good order");
            }
        }
    }

    pub(crate) fn show_logs(&mut self) {
        for instance in self.instances.get_mut().values() {
            eprint!("{}", instance.process.tail());
        }
        eprint!("{}", process::tail("nginx", &self.nginx_log()));
    }

    async fn with(&self, name: &str, act: impl FnOnce(&mut Process) -> Result<()>) {
        let mut instances = self.instances.lock().await;
        act(&mut instances.get_mut(name).expect("an instance of this name").process).expect("it runs");
    }
}

async fn migrate(services: &Services) -> String {
    services.run("projector", &services.migration()).await.expect("the schema is made")
}

async fn ready(name: &str, instance: &mut Instance) {
    let client = Client::new(instance.operations);
    let process = &mut instance.process;
    eventually(&format!("{name} is ready"), async || {
        if let Some(status) = process.exit_status().expect("a status") {
            panic!("{status}\n{}", process.tail());
        }
        let answer = client.get("/readyz").try_send().await.ok()?;
        (answer.status == 200).then_some(())
    })
    .await;
}

async fn start_nginx(dir: PathBuf, listen: SocketAddr, instances: &BTreeMap<String, Instance>) -> Nginx {
    let (command_apis, query_apis) = upstreams(instances);
    let starting = tokio::task::spawn_blocking(move || {
        Nginx::start(&NginxOptions { dir, listen, command_apis: &command_apis, query_apis: &query_apis })
    });
    starting.await.expect("no panic").expect("nginx starts")
}

/// Command APIs and query APIs.
fn upstreams(instances: &BTreeMap<String, Instance>) -> (Vec<SocketAddr>, Vec<SocketAddr>) {
    let of = |role| {
        instances
            .values()
            .filter(move |instance: &&Instance| instance.role == role)
            .map(|instance| instance.listen)
    };
    (of(Role::CommandApi).collect(), of(Role::QueryApi).collect())
}

fn standing(status: &Value) -> Standing {
    let all = |list: &str| {
        let generations = status["generations"].as_array().expect("generations").iter();
        generations
            .flat_map(|generation| generation[list].as_array().expect("a list").clone())
            .collect::<Vec<_>>()
    };
    let partitions = all("partitions");
    let sum = |key: &str| partitions.iter().map(|partition| partition[key].as_u64().expect("a number")).sum();
    Standing {
        lag: sum("lag"),
        pending: sum("pending"),
        parked: status["parked"].as_u64().expect("a number of parked events"),
        consumers: all("consumers").len(),
    }
}
