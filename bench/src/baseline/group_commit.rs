//! `POST` → queue → one thread that writes what is queued as one batch (log and index) and syncs it → 201.

use std::path::Path;

use anyhow::Result;
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};
use tokio::sync::{mpsc, oneshot};

const QUEUED_MAX: usize = 1_024;
const GROUP_MAX: usize = 512;
/// Of the body, as the index: it begins with the recipient.
const INDEXED_BYTES: usize = 32;

type Queued = (Bytes, oneshot::Sender<()>);

struct Writer {
    database: Database,
    log: Keyspace,
    index: Keyspace,
    last: u64,
}

pub(super) fn router(dir: &Path) -> Result<Router> {
    let database = Database::builder(dir).open()?;
    let log = database.keyspace("log", KeyspaceCreateOptions::default)?;
    let index = database.keyspace("index", KeyspaceCreateOptions::default)?;
    let (queue, queued) = mpsc::channel(QUEUED_MAX);
    let writer = Writer { database, log, index, last: 0 };
    std::thread::Builder::new().name("writer".to_owned()).spawn(move || writer.run(queued))?;
    Ok(Router::new().route("/send", post(append)).with_state(queue))
}

async fn append(
    State(queue): State<mpsc::Sender<Queued>>,
    body: Bytes,
) -> Result<(StatusCode, Bytes), StatusCode> {
    let (written, is_written) = oneshot::channel();
    queue.send((body.clone(), written)).await.map_err(|_| StatusCode::SERVICE_UNAVAILABLE)?;
    is_written.await.map_err(|_| StatusCode::SERVICE_UNAVAILABLE)?;
    Ok((StatusCode::CREATED, body))
}

impl Writer {
    fn run(mut self, mut queued: mpsc::Receiver<Queued>) {
        let mut group = Vec::with_capacity(GROUP_MAX);
        while queued.blocking_recv_many(&mut group, GROUP_MAX) > 0 {
            let committed = self.commit(&group);
            for (_, written) in group.drain(..) {
                // Dropped, it is answered as unavailable.
                if committed.is_ok() {
                    let _ = written.send(());
                }
            }
        }
    }

    fn commit(&mut self, group: &[Queued]) -> fjall::Result<()> {
        let mut batch = self.database.batch().durability(Some(PersistMode::SyncData));
        for (body, _) in group {
            self.last += 1;
            let offset = self.last.to_be_bytes();
            let indexed = &body[..body.len().min(INDEXED_BYTES)];
            batch.insert(&self.log, offset, &**body);
            batch.insert(&self.index, [indexed, &offset].concat(), offset);
        }
        batch.commit()
    }
}
