//! When nodes were started. With a periodic commit log a node that lost power, or died with its machine, has lost
//! what it acknowledged in the last seconds, and nothing but its new start tells of it: whoever can write that again
//! should.

use std::collections::BTreeMap;

use scylla::client::session::Session;
use scylla::statement::prepared::PreparedStatement;
use shared::ports::StoreError;
use tokio::sync::watch;

use super::error;
use super::statement::{prepare, read};

/// Of whichever node answers: asked again and again, each comes to be asked. A node takes a higher generation with
/// every start (`SystemKeyspace.incrementAndGetGeneration`).
const SELECT: &str = "SELECT CAST(host_id AS text), gossip_generation FROM system.local WHERE key = 'local'";

pub(super) struct Table {
    select: PreparedStatement,
}

impl Table {
    pub(super) async fn prepare(session: &Session) -> Result<Self, StoreError> {
        Ok(Self { select: prepare(session, SELECT).await? })
    }

    /// Node and generation.
    pub(super) async fn read(&self, session: &Session) -> Result<(String, i32), StoreError> {
        let rows = read(session, &self.select, ()).await?;
        rows.single_row::<(String, i32)>().map_err(|error| error::unfit(&error))
    }
}

/// The generations of all nodes that were met, and how many starts were seen since.
pub(super) struct Starts {
    met: BTreeMap<String, i32>,
    seen: watch::Sender<u64>,
}

impl Starts {
    pub(super) fn new() -> (Self, watch::Receiver<u64>) {
        let (seen, receiver) = watch::channel(0);
        (Self { met: BTreeMap::new(), seen }, receiver)
    }

    pub(super) fn note(&mut self, (node, generation): (String, i32)) {
        let before = self.met.insert(node.clone(), generation);
        if before.is_some_and(|before| before != generation) {
            tracing::warn!(node, "a cassandra node was started again");
            self.seen.send_modify(|starts| *starts += 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_generation_of_a_known_node_is_a_start() {
        let (mut starts, seen) = Starts::new();
        for (node, generation, expected) in [("a", 5, 0), ("b", 9, 0), ("a", 5, 0), ("a", 6, 1), ("b", 10, 2)]
        {
            starts.note((node.to_owned(), generation));
            assert_eq!(*seen.borrow(), expected, "{node} {generation}");
        }
    }
}
