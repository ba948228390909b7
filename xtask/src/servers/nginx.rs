//! The edge, with the one `nginx.conf` that the containers use too, in front of instances on this machine.

use std::fs;
use std::net::SocketAddr;
use std::ops::{Deref, DerefMut};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::identity::{Identity, Signal};
use super::process::Process;
use super::{check_free, http_status, packages};

const CONFIG: &str = include_str!("../../../nginx/nginx.conf");
/// The page and the API description, served as they are.
const WEB_DIR: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../web");
const READY_TIME_MAX: Duration = Duration::from_secs(10);

#[derive(Debug, Clone)]
pub struct NginxOptions<'a> {
    pub dir: PathBuf,
    pub listen: SocketAddr,
    /// At least one of each; they need not run yet.
    pub command_apis: &'a [SocketAddr],
    pub query_apis: &'a [SocketAddr],
}

#[derive(Debug)]
pub struct Nginx {
    process: Process,
    listen: SocketAddr,
}

impl Nginx {
    /// Returns when it answers `/healthz`.
    pub fn start(options: &NginxOptions<'_>) -> Result<Self> {
        check_free(options.listen)?;
        let program = packages::require("nginx", "nginx")?;
        Self::configure(options)?;
        let mut command = Process::command(program);
        command.args(["-e", "stderr", "-p"]).arg(&options.dir).arg("-c").arg(options.dir.join("nginx.conf"));
        if packages::is_root() {
            // Else the workers become `nobody`, who may not read the project's directory.
            command.args(["-g", "user root;"]);
        }
        let mut process = Process::spawn("nginx", command, &options.dir.join("nginx.log"))?;
        process.wait_until(READY_TIME_MAX, || http_status(options.listen, "/healthz") == Some(200))?;
        Ok(Self { process, listen: options.listen })
    }

    pub fn addr(&self) -> SocketAddr {
        self.listen
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.listen)
    }

    /// Ends it when the requests in flight are answered.
    pub fn stop(&mut self) -> Result<()> {
        self.process.stop_with(Signal::Quit)
    }

    /// Goes over to other instances without refusing anybody; connections in use end when they are done.
    pub fn reload(&self, options: &NginxOptions<'_>) -> Result<()> {
        Self::configure(options)?;
        self.process.identity().signal(Signal::Hup)
    }

    /// Writes what the next start or reload will read.
    pub fn configure(options: &NginxOptions<'_>) -> Result<()> {
        let NginxOptions { dir, listen, command_apis, query_apis } = options;
        ensure!(!command_apis.is_empty() && !query_apis.is_empty(), "nginx needs an instance of each API");
        let write = |name: &str, text: &str| {
            let path = dir.join(name);
            fs::write(&path, text).with_context(|| format!("{}", path.display()))
        };
        fs::create_dir_all(dir.join("run")).with_context(|| format!("{}", dir.display()))?;
        write("nginx.conf", CONFIG)?;
        write("listen.conf", &format!("listen {listen};\n"))?;
        write("command_apis.conf", &server_lines(command_apis))?;
        write("query_apis.conf", &server_lines(query_apis))?;
        let web = dir.join("web");
        if !web.is_symlink() {
            symlink(Path::new(WEB_DIR), &web).with_context(|| format!("{}", web.display()))?;
        }
        Ok(())
    }

    pub fn detach(self) -> Result<Identity> {
        self.process.detach()
    }
}

impl Deref for Nginx {
    type Target = Process;

    fn deref(&self) -> &Process {
        &self.process
    }
}

impl DerefMut for Nginx {
    fn deref_mut(&mut self) -> &mut Process {
        &mut self.process
    }
}

fn server_lines(addrs: &[SocketAddr]) -> String {
    addrs.iter().map(|addr| format!("server {addr} max_fails=0;\n")).collect()
}
