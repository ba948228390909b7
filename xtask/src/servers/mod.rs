//! Real servers as child processes: Redis, Cassandra and nginx (and a browser), each with a directory and a port of its own.
//!
//! Every server ends with its handle: dropping it kills the process at once, `stop` ends it in good order,
//! and should the owner itself be killed (Ctrl-C, an abort), a guard process does it. Only `detach` leaves a
//! server running. What is missing on the machine is installed where that is possible, else the error says
//! what to install.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

mod browser;
mod cassandra;
mod identity;
mod nginx;
mod packages;
mod process;
mod redis;

pub use browser::Browser;
pub use cassandra::{Cassandra, Keeping, Ring};
pub use identity::{Identity, Signal};
pub use nginx::{Nginx, NginxOptions};
pub use process::Process;
pub use redis::Redis;

/// How long a probe waits for one connect and one answer.
const PROBE_TIMEOUT: Duration = Duration::from_millis(500);

/// A child has what its parent has open until it is a program of its own. So a port that was looked at while another thread
/// started one seems to be taken for so long.
const START_OF_CHILD_MAX: Duration = Duration::from_millis(500);
const PROBE_PAUSE: Duration = Duration::from_millis(20);

/// Where a server keeps everything it writes, and the port on 127.0.0.1 where it listens.
///
/// Starting again with the same options finds the data of the last time.
#[derive(Debug, Clone)]
pub struct Options {
    pub dir: PathBuf,
    pub port: u16,
}

/// A port on 127.0.0.1 that was free a moment ago.
pub fn free_port() -> Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no free port on 127.0.0.1")?;
    Ok(listener.local_addr()?.port())
}

/// The status of `GET path`, or nothing if no HTTP server answers in time.
pub fn http_status(addr: SocketAddr, path: &str) -> Option<u16> {
    let request = format!("GET {path} HTTP/1.1\r\nHost: {addr}\r\nConnection: close\r\n\r\n");
    let answer = ask(addr, request.as_bytes(), b"HTTP/1.1 200".len())?;
    std::str::from_utf8(&answer).ok()?.strip_prefix("HTTP/1.1 ")?.parse().ok()
}

/// An error that names the address, if somebody listens there: a probe would take his answer for our
/// server's.
pub fn check_free(addr: SocketAddr) -> Result<()> {
    let begun = Instant::now();
    loop {
        match TcpListener::bind(addr) {
            Ok(_) => return Ok(()),
            Err(_) if begun.elapsed() < START_OF_CHILD_MAX => std::thread::sleep(PROBE_PAUSE),
            Err(error) => {
                return Err(error).with_context(|| format!("{addr} is taken by another program"));
            }
        }
    }
}

fn localhost(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

/// Sends `question` over a new connection; the first `length` bytes of the answer, if they come in time.
fn ask(addr: SocketAddr, question: &[u8], length: usize) -> Option<Vec<u8>> {
    let mut stream = TcpStream::connect_timeout(&addr, PROBE_TIMEOUT).ok()?;
    stream.set_read_timeout(Some(PROBE_TIMEOUT)).ok()?;
    stream.set_write_timeout(Some(PROBE_TIMEOUT)).ok()?;
    stream.write_all(question).ok()?;
    let mut answer = vec![0; length];
    stream.read_exact(&mut answer).ok()?;
    Some(answer)
}
