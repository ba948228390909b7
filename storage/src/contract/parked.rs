//! What every `ParkedEvents` gives of what a `ViewWriter` put.

#![expect(clippy::unwrap_used, reason = "these are tests, though they live in the library")]

use shared::clock::Timestamp;
use shared::ids::Position;
use shared::view::{ParkedChange, ParkedEvent, ParkedRow, ViewChange};

use super::{ViewStores, pair};

pub async fn parked_events_come_in_the_order_of_their_positions(stores: ViewStores) {
    let positions =
        [(0, 9, 1), (0, 10, 0), (2, 5, 0), (2, 5, 3), (2, 1_795_339_800_125, 0), (15, 1, 0), (300, 1, 0)]
            .map(|(partition, ms, counter)| Position { partition, ms, counter });
    let rows = positions.map(row);
    assert_eq!(stores.parked.parked(None, 10).await.unwrap(), []);
    stores.put(&[4, 6, 0, 2, 5, 1, 3, 4, 0].map(|at| put(&rows[at]))).await;
    stores.put(&[put(&rows[3])]).await;
    let events = rows.map(|row| row.event);
    for max in [0, 1, 3, 7, 100] {
        assert_eq!(stores.parked.parked(None, max).await.unwrap(), events[..max.min(events.len())]);
    }
    for (at, after) in positions.iter().enumerate() {
        assert_eq!(
            stores.parked.parked(Some(*after), 2).await.unwrap(),
            events[at + 1..(at + 3).min(events.len())]
        );
    }
    let between = Position { partition: 2, ms: 5, counter: 1 };
    assert_eq!(stores.parked.parked(Some(between), 1).await.unwrap(), events[3..4]);
}

pub async fn a_parked_row_reads_back_as_it_was_put(stores: ViewStores) {
    let position = Position { partition: 3, ms: 1, counter: u64::MAX };
    let placed = row(position);
    let mut nowhere = row(Position { ms: 2, ..position });
    (nowhere.event.place, nowhere.bytes) = (None, Vec::new());
    stores.put(&[put(&placed), put(&nowhere)]).await;
    for row in [&placed, &nowhere] {
        assert_eq!(stores.parked.parked_row(row.event.position).await.unwrap().as_ref(), Some(row));
    }
    assert_eq!(stores.parked.parked_row(Position { partition: 4, ..position }).await.unwrap(), None);
}

pub async fn a_parked_row_may_hold_a_mebibyte(stores: ViewStores) {
    let rows = [1, 2].map(|counter| ParkedRow {
        bytes: vec![0xa5; 1024 * 1024],
        ..row(Position { partition: 0, ms: 1, counter })
    });
    stores.put(&rows.clone().map(|row| put(&row))).await;
    for row in rows {
        assert!(stores.parked.parked_row(row.event.position).await.unwrap() == Some(row));
    }
}

/// And of the same attempt, which two projectors made, the later.
pub async fn the_last_attempt_stays(stores: ViewStores) {
    let attempt = |counter, attempts, at| {
        let mut row = row(Position { partition: 0, ms: 1, counter });
        (row.event.attempts, row.event.parked_at) = (attempts, Timestamp(at));
        row
    };
    for (counter, order) in (0..).zip([[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]]) {
        let rows = [attempt(counter, 1, 7), attempt(counter, 3, 5), attempt(counter, 3, 6)];
        for at in order {
            stores.put(&[put(&rows[at])]).await;
        }
        let at_once = rows.clone().map(|row| {
            let position = Position { counter: counter + 100, ..row.event.position };
            ParkedRow { event: ParkedEvent { position, ..row.event }, bytes: row.bytes }
        });
        stores.put(&order.map(|at| put(&at_once[at]))).await;
        for last in [&rows[2], &at_once[2]] {
            assert_eq!(
                stores.parked.parked_row(last.event.position).await.unwrap().as_ref(),
                Some(last),
                "{order:?}"
            );
        }
    }
}

/// Whoever parks it late does not park it again.
pub async fn a_settled_event_is_parked_no_longer(stores: ViewStores) {
    let positions = [1, 2, 3, 4].map(|counter| Position { partition: 0, ms: 1, counter });
    let [before, after, at_once, kept] = positions.map(row);
    let settle = |row: &ParkedRow| ViewChange::Parked(ParkedChange::Settle { position: row.event.position });
    stores.put(&[put(&before), put(&kept)]).await;
    stores.put(&[settle(&before), settle(&after), put(&at_once), settle(&at_once)]).await;
    let mut again = after;
    again.event.attempts = u32::MAX >> 1;
    stores.put(&[put(&again), put(&before)]).await;
    assert_eq!(stores.parked.parked(None, 10).await.unwrap(), [kept.event]);
    for position in &positions[..3] {
        assert_eq!(stores.parked.parked_row(*position).await.unwrap(), None);
    }
}

impl ViewStores {
    async fn put(&self, changes: &[ViewChange]) {
        self.writer.apply(changes.to_vec(), &[]).await.unwrap();
    }
}

fn row(position: Position) -> ParkedRow {
    let event = ParkedEvent {
        position,
        cause: format!("cause of {position}"),
        attempts: 1,
        parked_at: Timestamp(1_795_339_800_125),
        place: Some((pair("samer", "lena"), 7)),
    };
    ParkedRow { event, bytes: (0..=255).collect() }
}

fn put(row: &ParkedRow) -> ViewChange {
    ViewChange::Parked(ParkedChange::PutParked(row.clone()))
}
