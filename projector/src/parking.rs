//! Entries that cannot be applied: kept with their cause, and a marker where their number was, so that the
//! conversation stays whole for readers. A store's failure never parks anything.

use shared::Position;
use shared::limits::{CAUSE_CHARS_MAX, PARKED_BYTES_MAX};
use shared::ports::Unreadable;
use shared::view::{ParkedChange, ParkedRow, TimelineChange, ViewChange};

pub(crate) fn park(position: Position, unreadable: &Unreadable, changes: &mut Vec<ViewChange>) {
    // A cause may quote what is stored, and that may be of any length.
    let mut cause: String = unreadable.cause.to_string().chars().take(CAUSE_CHARS_MAX).collect();
    let mut bytes = unreadable.bytes.clone();
    tracing::error!(%position, cause, "an event cannot be applied; it is parked");
    if bytes.len() > PARKED_BYTES_MAX {
        // A store may refuse a write of any size; the log still has the whole entry at this position.
        cause = format!("{cause} (only the first {PARKED_BYTES_MAX} of {} bytes are kept)", bytes.len());
        bytes.truncate(PARKED_BYTES_MAX);
    }
    let parked = ParkedRow { position, cause, bytes };
    changes.push(ViewChange::Parked(ParkedChange::PutParked(parked)));
    if let Some((conversation, seq)) = unreadable.place.clone() {
        changes.push(ViewChange::Timeline(TimelineChange::PutMarker { conversation, seq }));
    }
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
            Unreadable { cause, place: Some((conversation.clone(), 7)), bytes: b"x".to_vec() };
        let parked = |changes: &[ViewChange]| match &changes[0] {
            ViewChange::Parked(ParkedChange::PutParked(row)) => {
                (row.position, row.cause.clone(), row.bytes.clone())
            }
            other => panic!("{other:?}"),
        };

        let mut changes = Vec::new();
        park(position, &unreadable, &mut changes);
        let row = (position, "unknown event type \"Exploded\"".to_owned(), b"x".to_vec());
        assert_eq!(parked(&changes), row);
        assert_eq!(changes[1..], [ViewChange::Timeline(TimelineChange::PutMarker { conversation, seq: 7 })]);

        unreadable.bytes = vec![0; PARKED_BYTES_MAX + 1];
        changes.clear();
        park(position, &unreadable, &mut changes);
        let (_, cause, bytes) = parked(&changes);
        assert_eq!(bytes.len(), PARKED_BYTES_MAX);
        assert!(cause.contains("of 1048577 bytes"), "{cause}");

        (unreadable.place, unreadable.bytes) = (None, b"x".to_vec());
        changes.clear();
        park(position, &unreadable, &mut changes);
        assert_eq!((parked(&changes), changes.len()), (row, 1));
    }
}
