//! The whole log on both stores: what Redis has forgotten is read from the archive.

use std::sync::Arc;

use shared::ids::Position;
use shared::limits::ARCHIVE_BLOCK_ENTRIES;
use shared::ports::{
    Archive, Block, EventFeed, HotLog, LogEntry, LogScan, LogTail, Span, StoreError, Trimmed,
};
use storage::archive;
use storage::cassandra::Migrator;

use super::trim::{age_trail, filled};
use super::{Fresh, GENERATION, read, scan};
use crate::cassandra::{self, Connected};

const BLOCK: usize = ARCHIVE_BLOCK_ENTRIES as usize;
/// Behind two blocks that are trimmed.
const LEFT: usize = 5;

struct Both {
    fresh: Fresh,
    connected: Connected,
    keyspace: String,
    /// All that there ever were.
    positions: Vec<Position>,
}

impl Both {
    async fn start() -> Self {
        let (fresh, hot, entries) = filled(2 * BLOCK + LEFT).await;
        let options = cassandra::options();
        Migrator::new(&options).unwrap().migrate().await.unwrap();
        let connected = Connected::to(&options).await;
        let (archive, partition) = (connected.cassandra.archive(), entries[0].position.partition);
        for (number, entries) in (0..2).zip(entries.chunks(BLOCK)) {
            archive.put(&Block { partition, number, entries: entries.to_vec() }, 0).await.unwrap();
        }
        let mut feed = fresh.store.feed(GENERATION, "one");
        let given = read(&mut feed, entries.len()).await;
        feed.ack(&given).await.unwrap();
        age_trail(&fresh, partition).await;
        assert_eq!(hot.trim(entries[2 * BLOCK - 1].position, 2).await.unwrap(), Trimmed::Done);
        let positions = entries.iter().map(|entry: &LogEntry| entry.position).collect();
        Self { fresh, connected, keyspace: options.keyspace, positions }
    }

    fn archive(&self) -> Arc<dyn Archive> {
        Arc::new(self.connected.cassandra.archive())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_span_may_begin_and_end_inside_a_trimmed_block() {
    let both = Both::start().await;
    let (positions, hot) = (&both.positions, both.fresh.store.hot());
    let scan = archive::Scan::new(scan(&both.fresh.store).await, hot, both.archive());
    let spans = [(0, 9), (3, BLOCK - 1), (BLOCK - 3, BLOCK + 3), (BLOCK + 5, BLOCK + 5), (9, 2 * BLOCK + 1)];
    for (first, last) in spans {
        let (mut found, mut left) =
            (Vec::new(), Some(Span { first: positions[first], last: positions[last] }));
        while let Some(span) = left {
            let page = scan.page(&span, 100).await.unwrap();
            let Some(end) = page.last() else { break };
            left = span.behind(end.position);
            found.extend(page.iter().map(|delivery| delivery.position));
        }
        assert_eq!(found, &positions[first..=last], "{first} to {last}");
    }

    // Whoever was told of something that is trimmed since is told to reload: it lies before all that is known.
    let end = both.fresh.store.tail().end(100 * BLOCK).await.unwrap().unwrap();
    let (there, partition) = (&positions[2 * BLOCK..], usize::from(positions[0].partition));
    assert_eq!(end.behind[partition], there[0]);
    assert_eq!(end.entries.iter().map(|one| one.position).collect::<Vec<_>>(), &there[1..]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_can_be_read_is_given_though_a_block_behind_it_cannot() {
    let both = Both::start().await;
    let Both { fresh, keyspace, positions, .. } = &both;
    let place = format!("log_partition = {} AND span = 0 AND block = 1 AND part = 0", positions[0].partition);
    let spoil = format!("UPDATE {keyspace}.archive USING TIMESTAMP 999999 SET bytes = 0x01 WHERE {place}");
    cassandra::session().await.query_unpaged(spoil, ()).await.unwrap();

    let (stream, backlog) = (fresh.store.feed(2, "late"), fresh.store.backlog(2, "late"));
    let mut feed = archive::Feed::new(stream, backlog, both.archive());
    let given = read(&mut feed, LEFT).await;
    feed.ack(&given).await.unwrap();
    let given = read(&mut feed, BLOCK).await;
    assert_eq!(given.iter().map(|one| one.position).collect::<Vec<_>>(), &positions[..BLOCK]);
    feed.ack(&given).await.unwrap();
    let said = loop {
        match feed.next_batch(BLOCK).await {
            Ok(batch) => assert_eq!(batch, [], "nothing else can be read"),
            Err(StoreError::Damaged { what, .. }) => break what,
            Err(error) => panic!("{error}"),
        }
    };
    assert!(said.starts_with("block 1 of partition "), "{said}");
}
