//! A damaged directory is refused, with its name and what is wrong; a torn tail that nobody was told of is not.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use fjall::{Keyspace, PersistMode};
use futures_util::TryStreamExt;
use shared::event::Envelope;
use shared::ids::{Seq, Subject};
use shared::ports::{Delivery, EventFeed, Heads, StoreError, ViewReader};
use shared::view::{InboxRow, TimelineEntry};

use super::super::Embedded;
use super::super::mark::Mark;
use super::{all_files, files, killed, message, name, next, open, pair, project, send};
use crate::contract::RawEntry;

/// Of which two thirds are in tables and projected, and all others only in the journal.
const MESSAGES: u64 = 30;

/// How a batch ends in fjall's journal.
const TRAILER: &[u8] = b"FJL\x03";

async fn filled() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).unwrap();
    let mut feed = store.feed("one");
    for _ in 0..2 {
        send(&store, MESSAGES / 3).await;
        let batch = next(&mut feed, 100).await;
        project(&store, &batch).await;
        feed.ack(&batch).await.unwrap();
        let directory = store.directory();
        store.applying().catch_up(directory, store.progress()).unwrap();
        [&directory.log, &directory.state, &directory.views].into_iter().for_each(flush);
    }
    send(&store, MESSAGES / 3).await;
    drop((store, feed));
    // fjall cuts the journal to its content when it opens it; only then is its middle in the middle.
    drop(open(dir.path()).unwrap());
    dir
}

fn flush(keyspace: &Keyspace) {
    keyspace.rotate_memtable_and_wait().unwrap();
}

fn refusal(dir: &Path) -> String {
    let refused = open(dir).err().expect("it is refused");
    let StoreError::Damaged { what, .. } = refused else { panic!("refused for another reason: {refused:?}") };
    assert!(what.contains(dir.to_str().unwrap()), "it names the directory: {what}");
    what
}

fn refusal_after(dir: &Path, damage: impl FnOnce()) -> String {
    damage();
    let what = refusal(dir);
    assert!(open(dir).is_err(), "and stays refused");
    what
}

/// In an entry, and in what frames it.
#[tokio::test]
async fn a_journal_with_a_flipped_bit_is_refused_and_what_follows_is_kept() {
    for flipped in [&b"message 4"[..], TRAILER] {
        let dir = filled().await;
        let journal = journal(&dir);
        let whole = fs::read(&journal).unwrap();
        let at = last_at(&whole, b"message 4");
        flip(&journal, (at + first_at(&whole[at..], flipped)) as u64, 1);
        let what = refusal(dir.path());
        let missing = format!("log entry 25 in {} is missing: all up to 30", dir.path().display());
        assert!(what.starts_with(&missing), "{what}");
        let kept = PathBuf::from(what.split("kept in ").nth(1).unwrap().trim_end_matches(')'));
        let (cut, kept) = (fs::read(&journal).unwrap(), fs::read(kept).unwrap());
        assert_eq!(cut, whole[..cut.len()]);
        assert_eq!(cut.len() + kept.len(), whole.len());
        assert!(refusal(dir.path()).starts_with(&missing), "and stays refused");
    }
}

/// The number of a batch is not under fjall's checksum.
#[tokio::test]
async fn a_journal_with_batches_out_of_order_is_refused() {
    let dir = filled().await;
    let batch = first_at(&fs::read(journal(&dir)).unwrap(), TRAILER) + TRAILER.len();
    // A byte of its number, after its kind and its length.
    let what = refusal_after(dir.path(), || flip(&journal(&dir), batch as u64 + 1 + 4 + 6, 1));
    assert!(what.ends_with("is out of order"), "{what}");
}

#[tokio::test]
async fn a_journal_that_lost_its_end_is_refused() {
    let dir = filled().await;
    let at = find(&journal(&dir), b"message 7");
    let what = refusal_after(dir.path(), || {
        File::options().write(true).open(journal(&dir)).unwrap().set_len(at).unwrap();
    });
    assert!(what.starts_with("log entry 28 in "), "{what}");
}

#[tokio::test]
async fn a_directory_that_lost_its_journal_is_refused() {
    let dir = filled().await;
    let what = refusal_after(dir.path(), || fs::remove_file(journal(&dir)).unwrap());
    assert!(what.starts_with("log entry 21 in "), "{what}");
}

/// The log is whole in its tables, the heads are not.
#[tokio::test]
async fn state_that_lost_what_the_log_has_is_refused() {
    let dir = filled().await;
    let store = open(dir.path()).unwrap();
    flush(&store.directory().log);
    drop(store);
    let what = refusal_after(dir.path(), || fs::remove_file(journal(&dir)).unwrap());
    assert!(what.starts_with("heads and accounts in ") && what.contains("lack log entry 21"), "{what}");
}

/// As after a power cut that took the last marks back.
#[tokio::test]
async fn a_log_behind_what_others_have_seen_of_it_is_refused_whatever_the_mark() {
    let dir = filled().await;
    let store = open(dir.path()).unwrap();
    flush(&store.directory().state);
    drop(store);
    Mark::create(&dir.path().join("mark"), 20).unwrap();
    let what = refusal_after(dir.path(), || fs::remove_file(journal(&dir)).unwrap());
    assert!(
        what.starts_with("log entry 21 in ") && what.contains("heads and accounts have seen 30"),
        "{what}"
    );

    let dir = filled().await;
    let store = open(dir.path()).unwrap();
    project(&store, &next(&mut store.feed("one"), 100).await).await;
    flush(&store.directory().views);
    drop(store);
    Mark::create(&dir.path().join("mark"), 20).unwrap();
    let what = refusal_after(dir.path(), || fs::remove_file(journal(&dir)).unwrap());
    assert!(what.starts_with("log entry 21 in ") && what.contains("the views have seen 30"), "{what}");
}

#[tokio::test]
async fn a_damaged_table_is_refused() {
    for damage in [
        |table: &Path| flip(table, find(table, b"message 3"), 4),
        |table: &Path| File::options().write(true).open(table).unwrap().set_len(100).unwrap(),
        |table: &Path| fs::remove_file(table).unwrap(),
    ] {
        let dir = filled().await;
        let tables = files(&dir.path().join("db/keyspaces/1/tables"));
        refusal_after(dir.path(), || damage(&tables[0]));
    }
}

/// fjall keeps a checksum of it and does not look.
#[tokio::test]
async fn a_damaged_manifest_is_refused() {
    for keyspace in
        ["db/keyspaces/0", "db/keyspaces/1", "db/keyspaces/2", "views/keyspaces/0", "views/keyspaces/1"]
    {
        let dir = filled().await;
        let folder = dir.path().join(keyspace);
        let manifest = files(&folder).into_iter().find(|file| !file.is_dir() && !file.ends_with("current"));
        let what = refusal_after(dir.path(), || flip(&manifest.unwrap(), 84, 1 << 5));
        assert!(what.contains("does not match its checksum"), "{what}");
        let is_of_views = keyspace.starts_with("views");
        assert_eq!(what.ends_with("made again from the log if their directory is removed"), is_of_views);
    }
}

/// After a power cut pages may be there that were written after one that is not.
#[tokio::test]
async fn a_tail_torn_in_its_middle_is_cut() {
    let dir = filled().await;
    let before = content(&open(dir.path()).unwrap()).await.unwrap();
    let (journal, end) = (journal(&dir), fs::metadata(journal(&dir)).unwrap().len());
    let store = open(dir.path()).unwrap();
    let mut batch = store.directory().log_batch(1);
    batch.insert(&store.directory().state, "z", vec![1; 10_000]);
    store.directory().commit(batch, PersistMode::Buffer).unwrap();
    drop(store);
    File::options().write(true).open(&journal).unwrap().write_all_at(&[0; 4_096], end + 4_096).unwrap();
    assert_eq!(content(&open(dir.path()).unwrap()).await.unwrap(), before);
    assert_eq!(fs::metadata(&journal).unwrap().len(), end);
}

#[tokio::test]
async fn an_entry_that_does_not_match_its_checksum_is_refused_by_its_number() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).unwrap();
    send(&store, 10).await;
    let append = message("samer", "lena", "hi");
    let subject = Subject::Conversation(pair("samer", "lena"));
    let envelope = Envelope::seal(append.id, &append.event, append.trace);
    store.put_raw(RawEntry { subject, envelope, seq: 1, checksum_flipped: 1 }).await.unwrap();
    send(&store, 10).await;
    drop(store);
    let what = refusal_after(dir.path(), || {});
    assert_eq!(what, format!("log entry 11 in {} does not match its checksum", dir.path().display()));
}

#[tokio::test]
async fn a_directory_that_lost_a_file_is_refused_before_fjall_deletes_more() {
    for file in [
        "mark",
        "db/version",
        "db/keyspaces/0/current",
        "db/keyspaces/1/current",
        "views/version",
        "views/keyspaces/1/current",
    ] {
        let dir = filled().await;
        let what = refusal_after(dir.path(), || fs::remove_file(dir.path().join(file)).unwrap());
        assert!(what.contains("is missing"), "{file}: {what}");
        assert_eq!(fs::read_dir(dir.path().join("db/keyspaces")).unwrap().count(), 3, "{file}");
        assert_eq!(fs::read_dir(dir.path().join("views/keyspaces")).unwrap().count(), 2, "{file}");
    }
    for keyspace in ["db/keyspaces/2", "views/keyspaces/1"] {
        let dir = filled().await;
        let what = refusal_after(dir.path(), || fs::remove_dir_all(dir.path().join(keyspace)).unwrap());
        assert!(what.contains("is missing"), "{what}");
    }
}

#[tokio::test]
async fn a_torn_tail_is_cut_and_nothing_else() {
    let dir = filled().await;
    let before = content(&open(dir.path()).unwrap()).await.unwrap();
    let journal = journal(&dir);
    let whole = fs::read(&journal).unwrap();
    // The number of the next batch, so that only its end is missing.
    let mut torn = whole[..first_at(&whole, TRAILER)].to_vec();
    torn[5..13].copy_from_slice(&1_000_000_u64.to_le_bytes());
    fs::write(&journal, [&whole[..], &torn].concat()).unwrap();
    let store = open(dir.path()).unwrap();
    assert_eq!(content(&store).await.unwrap(), before);
    assert_eq!(files(dir.path()).len(), 4, "db, lock, mark and views: no copy is left");
    send(&store, 1).await;
    drop(store);
    assert_eq!(open(dir.path()).unwrap().head(&pair("samer", "peer0")).await.unwrap(), 13);
}

/// A journal before the last was synced before the next was begun: there is nothing torn about it.
#[tokio::test]
async fn a_damaged_journal_before_the_last_is_refused_untouched() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).unwrap();
    send(&store, 10).await;
    // fjall begins a journal when a keyspace is flushed and the last one has 64 MB.
    let log = &store.directory().log;
    for number in 0..33 {
        let mut batch = store.directory().log_batch(1);
        batch.insert(log, format!("z{number}"), vec![number; 2 << 20]);
        store.directory().commit(batch, PersistMode::Buffer).unwrap();
    }
    flush(log);
    send(&store, 10).await;
    drop(store);
    let [sealed, last] = journals(&dir).try_into().unwrap();

    let at = first_at(&fs::read(&sealed).unwrap(), TRAILER) as u64;
    flip(&sealed, at, 1);
    let length = fs::metadata(&sealed).unwrap().len();
    let what = refusal_after(dir.path(), || {});
    assert_eq!(what, format!("{} cannot be read from byte 0 on", sealed.display()));
    assert_eq!(fs::metadata(&sealed).unwrap().len(), length);

    flip(&sealed, at, 1);
    fs::rename(&last, last.with_file_name("9.jnl")).unwrap();
    assert!(refusal(dir.path()).ends_with("9.jnl is missing"));
}

/// Nothing in it was acknowledged to anybody.
#[tokio::test]
async fn what_the_journal_of_the_views_lost_is_delivered_again() {
    let dir = filled().await;
    let store = open(dir.path()).unwrap();
    project(&store, &next(&mut store.feed("one"), 100).await).await;
    drop(store);
    let journal = files(&dir.path().join("views")).into_iter().find(|path| path.ends_with("0.jnl")).unwrap();
    let at = find(&journal, b"message 7");
    flip(&journal, at, 1);
    let store = open(dir.path()).unwrap();
    let mut feed = store.feed("one");
    let again = next(&mut feed, 100).await;
    assert_eq!(again.first().unwrap().position.counter, 21, "what was flushed is still there");
    project(&store, &again).await;
    assert_eq!(store.timeline(&pair("samer", "peer0"), 1, 100).await.unwrap().len(), 12);
    let inbox: Vec<_> = store.inbox(&name("samer")).try_collect().await.unwrap();
    assert_eq!(inbox.iter().map(InboxRow::head_seq).collect::<Vec<_>>(), [12, 9, 9]);
    assert_eq!(files(dir.path()).len(), 4, "no copy is left");
}

/// Wherever a bit flips, what is read is what was written, or it is refused.
#[tokio::test]
async fn no_flipped_bit_is_ever_served() {
    const FLIPS: u64 = 40;
    let dir = filled().await;
    let whole = content(&open(dir.path()).unwrap()).await.unwrap();
    let files = all_files(dir.path());
    let (mut random, mut refused) = (7_u64, 0);
    for flips in 0..FLIPS {
        let damaged = killed(dir.path());
        let mut below = |end: u64| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (random >> 33) % end
        };
        let file = &files[usize::try_from(below(files.len() as u64)).unwrap()];
        let length = fs::metadata(file).unwrap().len();
        if length == 0 {
            continue;
        }
        let (at, bit) = (below(length), below(8));
        flip(&damaged.path().join(file.strip_prefix(dir.path()).unwrap()), at, 1 << bit);
        let read = match open(damaged.path()) {
            Ok(store) => content(&store).await,
            Err(error) => Err(error),
        };
        let place = format!("flip {flips}: bit {bit} of byte {at} of {}", file.display());
        match read {
            Ok(content) => assert!(content == whole, "{place}"),
            Err(StoreError::Damaged { .. } | StoreError::Unfit { .. }) => refused += 1,
            Err(other) => panic!("{place}: {other:?}"),
        }
    }
    assert!(refused > FLIPS / 4, "{refused} of {FLIPS} were refused");
}

type Content = (Vec<(Seq, Vec<TimelineEntry>, Vec<InboxRow>)>, Vec<Delivery>);

/// All that the views have, and all of the log that they do not.
async fn content(store: &Embedded) -> Result<Content, StoreError> {
    let mut views = Vec::new();
    for peer in ["peer0", "peer1", "peer2"] {
        let pair = pair("samer", peer);
        let (head, page) = (store.head(&pair).await?, store.timeline(&pair, 1, 100).await?);
        views.push((head, page, store.inbox(&name(peer)).try_collect::<Vec<_>>().await?));
    }
    Ok((views, store.feed("reader").next_batch(100).await?))
}

fn journals(dir: &tempfile::TempDir) -> Vec<PathBuf> {
    let is_journal = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "jnl");
    files(&dir.path().join("db")).into_iter().filter(is_journal).collect()
}

fn journal(dir: &tempfile::TempDir) -> PathBuf {
    journals(dir).pop().unwrap()
}

fn flip(path: &Path, at: u64, bits: u8) {
    let file = File::options().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ bits], at).unwrap();
}

/// Where a message stands for the last time.
fn find(path: &Path, bytes: &[u8]) -> u64 {
    last_at(&fs::read(path).unwrap(), bytes) as u64
}

fn first_at(content: &[u8], bytes: &[u8]) -> usize {
    content.windows(bytes.len()).position(|window| window == bytes).expect("it is there")
}

fn last_at(content: &[u8], bytes: &[u8]) -> usize {
    content.windows(bytes.len()).rposition(|window| window == bytes).expect("it is there")
}
