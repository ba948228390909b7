//! What every [`ViewScan`](shared::ports::ViewScan) gives of what a `ViewWriter` put.

#![expect(clippy::unwrap_used, reason = "these are tests, though they live in the library")]

use shared::Seq;
use shared::clock::Timestamp;
use shared::ids::Position;
use shared::limits::{BUCKET_MESSAGES, SCAN_ROWS_PER_PAGE};
use shared::message::Message;
use shared::ports::{ScannedRow, ScannedTable};
use shared::view::{
    InboxRow, ParkedChange, ParkedEvent, ParkedRow, TimelineChange, TimelineEntry, UserRow, UsersChange,
    ViewChange,
};

use super::words::{self, mark, sent};
use super::{ViewStores, name, pair};

const TABLES: [ScannedTable; 4] =
    [ScannedTable::Timeline, ScannedTable::Inbox, ScannedTable::Users, ScannedTable::Parked];

pub async fn an_empty_view_has_no_rows(stores: ViewStores) {
    for table in TABLES {
        assert_eq!(stores.scanned(table).await, []);
    }
}

pub async fn every_row_comes_once(stores: ViewStores) {
    // In two buckets, and in the order of names and of numbers where that differs.
    let messages = [
        message("samer", "lena", 1),
        message("lena", "samer", BUCKET_MESSAGES + 1),
        message("omar", "samer", 256),
        message("omar", "a.b", 3),
    ];
    let user = UserRow { username: name("samer"), registered_at: Timestamp(1_795_339_800_125) };
    let positions = [(0, 1, 2), (3, 5, u64::MAX)];
    let [parked, settled] = positions.map(|(partition, ms, counter)| Position { partition, ms, counter });
    let mut changes: Vec<_> = messages.iter().flat_map(sent).collect();
    changes.extend([
        ViewChange::Timeline(TimelineChange::PutMarker { conversation: pair("samer", "lena"), seq: 7_000 }),
        mark("samer", "omar", 9),
        mark("nour", "omar", 2),
        ViewChange::Users(UsersChange::PutUser { user: user.clone(), seq: 1 }),
        ViewChange::Parked(ParkedChange::PutParked(parked_row(parked))),
        ViewChange::Parked(ParkedChange::PutParked(parked_row(settled))),
        ViewChange::Parked(ParkedChange::Settle { position: settled }),
    ]);
    stores.writer.apply(changes, &[]).await.unwrap();

    let mut timeline: Vec<_> = messages.iter().map(in_timeline).collect();
    let (conversation, entry) = (pair("samer", "lena"), TimelineEntry::Parked { seq: 7_000 });
    timeline.push(ScannedRow::Timeline { conversation, entry });
    assert_same(stores.scanned(ScannedTable::Timeline).await, timeline);

    let row = |owner: &str, peer: &str, last: Option<&Message>, own_seq, read_mark| {
        let row = InboxRow { last: last.cloned(), own_seq, read_mark, ..InboxRow::empty(name(peer)) };
        (name(owner), row)
    };
    let [_, to_samer, from_omar, to_ab] = messages.each_ref().map(Some);
    let inbox = vec![
        row("samer", "lena", to_samer, 1, 0),
        row("lena", "samer", to_samer, BUCKET_MESSAGES + 1, 0),
        row("samer", "omar", from_omar, 0, 9),
        row("omar", "samer", from_omar, 256, 0),
        row("omar", "a.b", to_ab, 3, 0),
        row("a.b", "omar", to_ab, 0, 0),
        row("nour", "omar", None, 0, 2),
    ];
    let scanned = stores.scanned(ScannedTable::Inbox).await;
    let mut parked_seqs = Vec::new();
    let rows = scanned.into_iter().map(|row| match row {
        ScannedRow::Inbox { owner, row, parked_seq } => {
            parked_seqs.extend(parked_seq.filter(|seq| *seq > 0).map(|seq| (owner.clone(), seq)));
            (owner, row)
        }
        other => panic!("{other:?}"),
    });
    assert_same(rows.collect(), inbox);
    assert!(parked_seqs.is_empty() || parked_seqs == [(name("lena"), 7_000)], "{parked_seqs:?}");

    assert_eq!(stores.scanned(ScannedTable::Users).await, [ScannedRow::User(user)]);
    let rows = [(parked, false), (settled, true)];
    let rows = rows.map(|(position, is_settled)| ScannedRow::Parked { position, is_settled });
    assert_same(stores.scanned(ScannedTable::Parked).await, rows.to_vec());
}

pub async fn a_large_table_comes_page_by_page(stores: ViewStores) {
    let last = 2 * SCAN_ROWS_PER_PAGE as Seq + 1;
    let messages: Vec<_> = (1..=last).map(|seq| message("samer", "lena", seq)).collect();
    let put = |message: &Message| ViewChange::Timeline(TimelineChange::PutMessage(message.clone()));
    stores.writer.apply(messages.iter().map(put).collect(), &[]).await.unwrap();
    let expected = messages.iter().map(in_timeline).collect();
    assert_same(stores.scanned(ScannedTable::Timeline).await, expected);
}

fn assert_same<T: std::fmt::Debug>(one: Vec<T>, other: Vec<T>) {
    let sorted = |rows: Vec<T>| {
        let mut texts: Vec<_> = rows.iter().map(|row| format!("{row:?}")).collect();
        texts.sort();
        texts
    };
    assert_eq!(sorted(one), sorted(other));
}

fn in_timeline(message: &Message) -> ScannedRow {
    let entry = TimelineEntry::Message(message.clone());
    ScannedRow::Timeline { conversation: message.conversation(), entry }
}

/// Of a content that no other has.
fn message(sender: &str, recipient: &str, seq: Seq) -> Message {
    words::message(sender, recipient, seq, &format!("{sender}'s \u{1f980} \"{seq}\"\n"))
}

fn parked_row(position: Position) -> ParkedRow {
    let (cause, parked_at) = ("unknown".to_owned(), Timestamp(5));
    let event = ParkedEvent { position, cause, attempts: 1, parked_at, place: None };
    ParkedRow { event, bytes: b"x".to_vec() }
}

impl ViewStores {
    /// All rows of a table, by every page of every part.
    async fn scanned(&self, table: ScannedTable) -> Vec<ScannedRow> {
        let mut rows = Vec::new();
        for part in self.scan.parts(table) {
            let mut at = Some(part);
            while let Some(cursor) = at {
                let page = self.scan.page(&cursor).await.unwrap();
                assert!(page.rows.len() <= SCAN_ROWS_PER_PAGE);
                rows.extend(page.rows);
                at = page.next;
            }
        }
        rows
    }
}
