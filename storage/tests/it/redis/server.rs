//! A Redis of a test's own, that can be killed, paused, starved of disk and started again.

use std::net::{Ipv4Addr, TcpListener};
use std::process::{Child, Command, Stdio};

use redis::aio::MultiplexedConnection;
use storage::redis::Options;
use tempfile::TempDir;

use super::{PARTITIONS, PATIENCE, eventually};

/// Ended when dropped.
pub(super) struct Server {
    directory: TempDir,
    pub(super) port: u16,
    process: Child,
}

impl Server {
    pub(super) async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// With settings that win over the usual ones.
    pub(super) async fn start_with(settings: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
        let process = launch(&directory, port, settings);
        let server = Self { directory, port, process };
        server.answers().await;
        server
    }

    /// A replica that follows.
    pub(super) async fn replica(&self) -> Self {
        let replica = Self::start_with(&["--replicaof", "127.0.0.1", &self.port.to_string()]).await;
        self.has_replica().await;
        replica
    }

    /// One replica is connected and has everything up to now.
    pub(super) async fn has_replica(&self) {
        eventually("the replica follows", || async {
            let mut redis = self.plain().await.unwrap();
            let mut wait = redis::pipe();
            wait.cmd("SET").arg("here").arg("").ignore().cmd("WAIT").arg(1).arg(100);
            let (replicas,): (u8,) = wait.query_async(&mut redis).await.unwrap();
            replicas == 1
        })
        .await;
    }

    pub(super) fn options(&self) -> Options {
        let url = format!("redis://127.0.0.1:{}/", self.port);
        Options { partitions: PARTITIONS, ..Options::new(url) }
    }

    /// For what is not about time.
    pub(super) fn patient(&self) -> Options {
        Options { answer_timeout: PATIENCE, ..self.options() }
    }

    pub(super) async fn plain(&self) -> redis::RedisResult<MultiplexedConnection> {
        redis::Client::open(self.options().url)?.get_multiplexed_async_connection().await
    }

    async fn answers(&self) {
        eventually("the server answers", || async {
            let Ok(mut redis) = self.plain().await else { return false };
            redis::cmd("PING").exec_async(&mut redis).await.is_ok()
        })
        .await;
    }

    pub(super) async fn ask(&self, command: &[&str]) {
        let mut redis = self.plain().await.unwrap();
        redis::cmd(command[0]).arg(&command[1..]).exec_async(&mut redis).await.unwrap();
    }

    /// SIGKILL.
    pub(super) fn kill(&mut self) {
        self.process.kill().unwrap();
        self.ended();
    }

    /// Waits for an end that was brought about otherwise.
    pub(super) fn ended(&mut self) {
        self.process.wait().unwrap();
    }

    pub(super) async fn restart(&mut self) {
        self.restart_with(&[]).await;
    }

    pub(super) async fn restart_with(&mut self, settings: &[&str]) {
        self.launch(settings);
        self.answers().await;
    }

    /// Does not wait for its data to be loaded.
    pub(super) fn launch(&mut self, settings: &[&str]) {
        self.process = launch(&self.directory, self.port, settings);
    }

    /// STOP or CONT.
    pub(super) fn signal(&self, signal: &str) {
        let pid = self.process.id().to_string();
        assert!(Command::new("kill").args(["-s", signal, &pid]).status().unwrap().success());
    }

    /// From here on no file grows beyond this: the disk is full.
    pub(super) fn limit_files(&self, bytes: &str) {
        let pid = self.process.id().to_string();
        let limit = format!("--fsize={bytes}:");
        assert!(Command::new("prlimit").args(["--pid", &pid, &limit]).status().unwrap().success());
    }
}

/// By a shell that ignores SIGXFSZ, so that a file at its limit is an error to Redis, not its end.
fn launch(directory: &TempDir, port: u16, settings: &[&str]) -> Child {
    Command::new("sh")
        .args(["-c", "trap '' XFSZ; exec redis-server \"$@\"", "redis"])
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "yes"])
        .args([
            "--appendfsync",
            "always",
            "--maxmemory-policy",
            "noeviction",
            "--repl-diskless-sync-delay",
            "0",
        ])
        .args(settings)
        .current_dir(directory.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .expect("redis-server is installed")
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
