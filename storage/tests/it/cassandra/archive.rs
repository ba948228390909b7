//! The archive of the log: what is written is read, the longer version of a block wins, and damage has a name.

use shared::ids::Position;
use shared::limits::{ARCHIVE_BLOCK_ENTRIES, ARCHIVE_PART_BYTES_MAX};
use shared::ports::{Archive, BeingWritten, Block, LogEntry, Reach, StoreError};
use storage::cassandra::Migrator;

use super::{Connected, options, session};

/// Of partition 3. Each entry has a field that cannot be compressed.
fn block(number: u64, entries: u64, field_bytes: usize) -> Block {
    let entry = |nth: u64| {
        let mut state = number * ARCHIVE_BLOCK_ENTRIES + nth;
        let mut random = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        };
        let field = (0..field_bytes).map(|_| random()).collect();
        LogEntry {
            position: Position { partition: 3, ms: number, counter: nth },
            fields: vec![b"e".to_vec(), field],
        }
    };
    Block { partition: 3, number, entries: (0..entries).map(entry).collect() }
}

#[tokio::test]
async fn the_archive_keeps_the_longest_version_of_every_block() {
    let options = options();
    Migrator::new(&options).unwrap().migrate().await.unwrap();
    let Connected { cassandra, shutdown: _shutdown } = &Connected::to(&options).await;
    let archive = cassandra.archive();
    assert_eq!(
        (archive.reach(3).await.unwrap(), archive.block(3, 0).await.unwrap()),
        (Reach::default(), None)
    );

    let full = block(0, ARCHIVE_BLOCK_ENTRIES, 300);
    archive.put(&block(0, 5, 300), 0).await.unwrap();
    assert_eq!(archive.reach(3).await.unwrap(), Reach { entries: 5, repairs: 0 });
    archive.put(&full, 0).await.unwrap();
    archive.put(&block(0, 7, 300), 0).await.unwrap();
    assert_eq!(archive.block(3, 0).await.unwrap().as_ref(), Some(&full), "a late writer changes nothing");
    assert_eq!(archive.reach(3).await.unwrap().entries, ARCHIVE_BLOCK_ENTRIES);

    let large = block(1, 3, 3 * ARCHIVE_PART_BYTES_MAX);
    archive.put(&large, 0).await.unwrap();
    assert_eq!(archive.block(3, 1).await.unwrap().as_ref(), Some(&large), "in several parts");
    assert_eq!(archive.reach(3).await.unwrap().entries, large.reach());
    assert_eq!(
        (archive.reach(4).await.unwrap(), archive.block(4, 0).await.unwrap()),
        (Reach::default(), None)
    );

    let repaired = block(0, 9, 200);
    archive.put(&repaired, 1).await.unwrap();
    archive.put(&full, 0).await.unwrap();
    assert_eq!(
        archive.block(3, 0).await.unwrap().as_ref(),
        Some(&repaired),
        "the log has no other entries now"
    );
    assert_eq!(archive.reach(3).await.unwrap(), Reach { entries: 9, repairs: 1 });
}

#[tokio::test]
async fn a_block_that_is_not_what_was_written_is_named() {
    let options = options();
    Migrator::new(&options).unwrap().migrate().await.unwrap();
    let Connected { cassandra, shutdown: _shutdown } = &Connected::to(&options).await;
    let (archive, session) = (cassandra.archive(), session().await);
    let spoil = async |set: &str, block: u64, part: u32| {
        let place = format!("log_partition = 3 AND span = 0 AND block = {block} AND part = {part}");
        let text = format!("{} WHERE {place}", set.replace("{}", &format!("{}.archive", options.keyspace)));
        session.query_unpaged(text, ()).await.unwrap();
    };
    let said = async |block: u64| match archive.block(3, block).await {
        Err(StoreError::Damaged { what, .. }) => what,
        other => panic!("{other:?}"),
    };
    archive.put(&block(0, 5, 10), 0).await.unwrap();
    spoil("UPDATE {} USING TIMESTAMP 999999 SET bytes = 0x01000000000000000000", 0, 0).await;
    assert!(said(0).await.starts_with("block 0 of partition 3: checksum is 00000000, "), "{}", said(0).await);
    let full = block(0, ARCHIVE_BLOCK_ENTRIES, 10);
    archive.put(&full, 0).await.unwrap();
    assert!(said(0).await.starts_with("block 0 of partition 3: "), "what is damaged is later than that");
    archive.replace(&full, 0).await.unwrap();
    assert_eq!(archive.block(3, 0).await.unwrap().as_ref(), Some(&full));

    let large = block(1, 3, 2 * ARCHIVE_PART_BYTES_MAX);
    archive.put(&large, 0).await.unwrap();
    spoil("UPDATE {} USING TIMESTAMP 999999 SET length = 2", 1, 1).await;
    let torn = archive.block(3, 1).await.unwrap_err();
    assert!(torn.is_retryable() && BeingWritten::is_why(&torn), "another version is being written: {torn}");
    spoil("DELETE FROM {} USING TIMESTAMP 9999999", 1, 1).await;
    assert_eq!(said(1).await, "block 1 of partition 3: a part of it is missing");
    spoil("DELETE FROM {} USING TIMESTAMP 9999999", 1, 0).await;
    assert_eq!(
        archive.block(3, 1).await.unwrap(),
        None,
        "the first part is written last: it was never there"
    );
}
