//! Entries that cannot be applied: kept with their cause, and a marker where their number was, so that the
//! conversation stays whole for readers. A store's failure never parks anything.

use shared::limits::CAUSE_CHARS_MAX;
use shared::ports::Unreadable;
use shared::view::{ParkedChange, ParkedEvent, ParkedRow, TimelineChange, ViewChange};
use shared::{Position, Timestamp};

/// The first attempt.
pub(crate) fn park(
    position: Position,
    unreadable: &Unreadable,
    at: Timestamp,
    changes: &mut Vec<ViewChange>,
) {
    let row = row(position, unreadable, 1, at);
    tracing::error!(%position, cause = row.event.cause, "an event cannot be applied; it is parked");
    put(row, changes);
}

pub(crate) fn put(row: ParkedRow, changes: &mut Vec<ViewChange>) {
    if let Some((conversation, seq)) = row.event.place.clone() {
        changes.push(ViewChange::Timeline(TimelineChange::PutMarker { conversation, seq }));
    }
    changes.push(ViewChange::Parked(ParkedChange::PutParked(row)));
}

pub(crate) fn row(
    position: Position,
    unreadable: &Unreadable,
    attempts: u32,
    parked_at: Timestamp,
) -> ParkedRow {
    // A cause may quote what is stored, and that may be of any length.
    let mut cause: String = unreadable.cause.to_string().chars().take(CAUSE_CHARS_MAX).collect();
    let Unreadable { bytes, length, place, .. } = unreadable.clone();
    if length > bytes.len() {
        // A store may refuse a write of any size; the log still has the whole entry at this position.
        cause = format!("{cause} (only the first {} of {length} bytes are kept)", bytes.len());
    }
    ParkedRow { event: ParkedEvent { position, cause, attempts, parked_at, place }, bytes }
}

#[cfg(test)]
mod tests {
    use shared::Conversation;
    use shared::event::Malformed;

    use super::*;

    #[test]
    fn a_parked_entry_is_kept_and_marked() {
        let position = Position { partition: 3, ms: 1_000, counter: 0 };
        let conversation =
            Conversation::between(&"lena".parse().unwrap(), &"samer".parse().unwrap()).unwrap();
        let cause = Malformed::UnknownKind("Exploded".to_owned());
        let mut unreadable =
            Unreadable { cause, place: Some((conversation.clone(), 7)), bytes: b"x".to_vec(), length: 1 };
        let parked = |unreadable: &Unreadable| {
            let mut changes = Vec::new();
            park(position, unreadable, Timestamp(5), &mut changes);
            match changes.pop() {
                Some(ViewChange::Parked(ParkedChange::PutParked(row))) => (changes, row),
                other => panic!("{other:?}"),
            }
        };

        let place = unreadable.place.clone();
        let cause = "unknown event type \"Exploded\"".to_owned();
        let event = ParkedEvent { position, cause, attempts: 1, parked_at: Timestamp(5), place };
        let expected = ParkedRow { event, bytes: b"x".to_vec() };
        let marker = ViewChange::Timeline(TimelineChange::PutMarker { conversation, seq: 7 });
        assert_eq!(parked(&unreadable), (vec![marker.clone()], expected.clone()));

        unreadable.length = 7;
        let (markers, row) = parked(&unreadable);
        assert_eq!((markers, row.bytes.len()), (vec![marker], 1));
        assert!(row.event.cause.ends_with("(only the first 1 of 7 bytes are kept)"), "{}", row.event.cause);

        (unreadable.place, unreadable.length) = (None, 1);
        let event = ParkedEvent { place: None, ..expected.event };
        assert_eq!(parked(&unreadable), (Vec::new(), ParkedRow { event, ..expected }));
    }
}
