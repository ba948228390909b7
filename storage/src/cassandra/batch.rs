//! From changes to batches. Changes to the same row collapse to the last; what is left goes out by Cassandra
//! partition, and small partitions travel together: a batch within one partition is five times as fast as single
//! rows, and unrelated rows still gain twofold. It never repeats a write.

use std::collections::HashMap;

use futures_util::{StreamExt, TryStreamExt, stream};
use scylla::client::session::Session;
use scylla::cluster::ClusterState;
use scylla::statement::batch::{Batch, BatchStatement, BatchType};
use shared::limits::{BATCH_BYTES_MAX, BATCH_STATEMENTS_MAX, VIEW_BATCHES_IN_FLIGHT_MAX};
use shared::ports::StoreError;
use shared::view::{TimelineChange, ViewChange};

use super::connection::Store;
use super::statement::Write;
use super::{error, inbox, parked, timeline, users};

/// `Ok`: the store has answered for every change. Ends at the first error, leaving what is under way to itself:
/// all of it may be written again.
pub(super) async fn apply(store: &Store, generation: u32, changes: &[ViewChange]) -> Result<(), StoreError> {
    let batches = pack(partitions(store, generation, changes)?, &store.session.get_cluster_state());
    // A loop, as the compiler cannot tell that a closure here would do for every lifetime.
    let mut sends = Vec::with_capacity(batches.len());
    for writes in batches {
        sends.push(send(&store.session, writes));
    }
    stream::iter(sends).buffer_unordered(VIEW_BATCHES_IN_FLIGHT_MAX).try_collect().await
}

/// The writes of all changes, by Cassandra partition. The timeline comes first, so that the inbox seldom knows of
/// a message which the timeline does not show yet.
fn partitions<'a>(
    store: &'a Store,
    generation: u32,
    changes: &'a [ViewChange],
) -> Result<Vec<Vec<Write<'a>>>, StoreError> {
    let views = store.views(generation)?;
    let mut timeline = timeline::Changes::default();
    let mut inbox = inbox::Changes::default();
    let mut users = users::Changes::default();
    let mut parked = parked::Changes::default();
    for change in changes {
        match change {
            ViewChange::Timeline(change) => {
                timeline.add(change);
                if let TimelineChange::PutMarker { conversation, seq } = change {
                    inbox.add_marker(conversation, *seq);
                }
            }
            ViewChange::Inbox(change) => inbox.add(change),
            ViewChange::Users(change) => users.add(change),
            ViewChange::Parked(change) => parked.add(change),
        }
    }
    let mut partitions = timeline.partitions(&views.timeline)?;
    partitions.extend(inbox.partitions(&views.inbox)?);
    partitions.extend(users.partitions(&views.users)?);
    partitions.extend(parked.partitions(&store.parked, generation)?);
    Ok(partitions)
}

/// Fills batches up to their bounds. A partition is cut only where it is larger than a batch. On a ring, only
/// partitions of the same first replica share a batch, so that none has to be passed on to another node.
fn pack<'a>(partitions: Vec<Vec<Write<'a>>>, ring: &ClusterState) -> Vec<Vec<Write<'a>>> {
    let mut full = Vec::new();
    let mut open = HashMap::new();
    for partition in partitions {
        let filling: &mut Filling<'_> = open.entry(first_replica(&partition, ring)).or_default();
        let bytes = partition.iter().map(Write::bytes).sum();
        if !filling.fits(bytes, partition.len()) {
            full.push(filling.take());
        }
        for write in partition {
            if !filling.fits(write.bytes(), 1) {
                full.push(filling.take());
            }
            filling.bytes += write.bytes();
            filling.writes.push(write);
        }
    }
    full.extend(open.into_values().map(|filling| filling.writes));
    full.retain(|writes| !writes.is_empty());
    full
}

#[derive(Default)]
struct Filling<'a> {
    writes: Vec<Write<'a>>,
    bytes: usize,
}

impl<'a> Filling<'a> {
    /// What is empty takes anything: a row larger than a batch goes alone, and Cassandra's limit on the bytes of a
    /// batch is one on batches of several partitions.
    fn fits(&self, bytes: usize, statements: usize) -> bool {
        self.writes.is_empty()
            || self.bytes + bytes <= BATCH_BYTES_MAX && self.writes.len() + statements <= BATCH_STATEMENTS_MAX
    }

    fn take(&mut self) -> Vec<Write<'a>> {
        std::mem::take(self).writes
    }
}

/// Which node has the first replica of a partition. Not asked where there is but one.
fn first_replica(partition: &[Write<'_>], ring: &ClusterState) -> Option<[u8; 16]> {
    if ring.get_nodes_info().len() < 2 {
        return None;
    }
    let write = partition.first()?;
    let table = write.statement.get_table_spec()?;
    // Without a token the batch goes to any node, which passes it on: slower, and as good.
    let token = write.statement.calculate_token(&write.values).ok()??;
    let replicas = ring.get_token_endpoints(table.ks_name(), table.table_name(), token);
    replicas.first().map(|(node, _)| node.host_id.into_bytes())
}

async fn send(session: &Session, writes: Vec<Write<'_>>) -> Result<(), StoreError> {
    let statements = writes.iter().map(|write| BatchStatement::from(write.statement.clone())).collect();
    let mut batch = Batch::new_with_statements(BatchType::Unlogged, statements);
    batch.set_is_idempotent(true);
    let values: Vec<_> = writes.into_iter().map(|write| write.values).collect();
    session.batch(&batch, values).await.map_err(error::of_write)?;
    Ok(())
}
