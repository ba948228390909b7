//! Several nodes on one machine, each with an address of its own, that keep copies for each other.

use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;

use anyhow::Result;

use super::config::Node;
use super::{Cassandra, Keeping, READY_TIME_MAX};
use crate::servers::free_port;

/// A fresh ring that keeps nothing beyond its end.
#[derive(Debug)]
pub struct Ring {
    nodes: Vec<Cassandra>,
}

impl Ring {
    /// Returns when every node answers and knows of every other one. All of them listen on `port`, on 127.0.0.1 and
    /// the addresses behind it.
    pub fn start(dir: &Path, port: u16, nodes: u8) -> Result<Self> {
        let ring: Vec<_> = (1..=nodes).map(|number| Ipv4Addr::new(127, 0, 0, number)).collect();
        let storage_port = free_port()?;
        let mut nodes = Vec::with_capacity(ring.len());
        for &host in &ring {
            let node = Node { host, port, ring: ring.clone(), storage_port, keeping: Keeping::Nothing };
            nodes.push(Cassandra::launch(&dir.join(host.to_string()), &node)?);
        }
        for node in &mut nodes {
            node.answers(READY_TIME_MAX)?;
        }
        for (node, own) in nodes.iter_mut().zip(&ring) {
            let log = dir.join(own.to_string()).join("cassandra.log");
            let others = || ring.iter().filter(|host| *host != own);
            node.process.wait_until(READY_TIME_MAX, || {
                let log = fs::read_to_string(&log).unwrap_or_default();
                others().all(|host| log.contains(&format!("/{host}:{storage_port} is now UP")))
            })?;
        }
        Ok(Self { nodes })
    }

    /// Every node, with commas between.
    pub fn addresses(&self) -> String {
        self.nodes.iter().map(|node| node.addr().to_string()).collect::<Vec<_>>().join(",")
    }

    /// From 0.
    pub fn node(&mut self, at: usize) -> &mut Cassandra {
        &mut self.nodes[at]
    }
}
