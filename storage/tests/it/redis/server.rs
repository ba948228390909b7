//! A Redis of a test's own, that can be killed, paused and started again.

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
        let directory = tempfile::tempdir().unwrap();
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
        let process = launch(&directory, port);
        let server = Self { directory, port, process };
        server.answers().await;
        server
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
        self.process.wait().unwrap();
    }

    pub(super) async fn restart(&mut self) {
        self.process = launch(&self.directory, self.port);
        self.answers().await;
    }

    /// STOP or CONT.
    pub(super) fn signal(&self, signal: &str) {
        let pid = self.process.id().to_string();
        assert!(Command::new("kill").args(["-s", signal, &pid]).status().unwrap().success());
    }
}

fn launch(directory: &TempDir, port: u16) -> Child {
    Command::new("redis-server")
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "yes"])
        .args(["--appendfsync", "always", "--maxmemory-policy", "noeviction"])
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
