//! Ports for children that must be told where to listen, and that listen there again after a restart.
//!
//! They lie below the ports that the system gives to outgoing connections: a port of those could be taken by
//! any connection while its owner is down.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU16, Ordering};

const FIRST: u16 = 10_000;
/// 32,768 is the first that Linux gives away.
const COUNT: u16 = 22_000;

/// Test binaries run one after the other and each begins elsewhere; within one, nobody gets a port twice soon.
static NEXT: AtomicU16 = AtomicU16::new(0);

/// An address of 127.0.0.1 where nobody listens and that no other test is given.
///
/// # Panics
/// When every port is taken.
#[must_use]
pub fn free_address() -> SocketAddr {
    let begin = u16::try_from(std::process::id() * 37 % u32::from(COUNT)).expect("below COUNT");
    (0..COUNT)
        .map(|_| {
            let next = NEXT.fetch_add(1, Ordering::Relaxed);
            let port = FIRST
                + u16::try_from((u32::from(begin) + u32::from(next)) % u32::from(COUNT))
                    .expect("below COUNT");
            SocketAddr::from((Ipv4Addr::LOCALHOST, port))
        })
        .find(|address| TcpListener::bind(address).is_ok())
        .expect("a free port")
}
