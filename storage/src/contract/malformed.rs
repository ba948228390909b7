//! Entries of the log that cannot be read: delivered with their cause, harmless to their neighbours.

use shared::event::{Envelope, Event, Malformed};
use shared::ids::{EventId, Subject};
use shared::ports::Unreadable;

use super::feed::{WIDE, next, read, receipt_of};
use super::{LogStores, RawEntry, message, new_id, pair};

type IsCause = fn(&Malformed) -> bool;

pub async fn an_unreadable_entry_is_delivered_with_its_cause(stores: LogStores) {
    let conversation = Subject::Conversation(pair("anna", "ben"));
    let good = sealed("hi");
    let entry = |envelope: Envelope, seq| RawEntry {
        subject: conversation.clone(),
        envelope,
        seq,
        checksum_flipped: 0,
    };
    let cases: Vec<(RawEntry, IsCause)> = vec![
        (RawEntry { checksum_flipped: 1 << 9, ..entry(good.clone(), 1) }, |c| {
            matches!(c, Malformed::Checksum { .. })
        }),
        // The checksum of seq 2, in an entry that says 3.
        (RawEntry { checksum_flipped: 2 ^ 3, ..entry(good.clone(), 3) }, |c| {
            matches!(c, Malformed::Checksum { .. })
        }),
        (entry(Envelope { version: 99, ..good.clone() }, 3), |c| matches!(c, Malformed::FutureVersion(99))),
        (
            entry(Envelope { kind: "MessageSung".into(), ..good.clone() }, 4),
            |c| matches!(c, Malformed::UnknownKind(k) if k == "MessageSung"),
        ),
        (entry(Envelope { payload: "{\"sender\":".into(), ..good.clone() }, 5), |c| {
            matches!(c, Malformed::Payload(_))
        }),
        (entry(Envelope { id: "no-id".into(), ..good.clone() }, 6), |c| matches!(c, Malformed::Field("id"))),
        (entry(Envelope { subject: "c:anna:carl".into(), ..good.clone() }, 7), |c| {
            matches!(c, Malformed::Subject { .. })
        }),
    ];
    let put = stores.put_raw.as_ref().expect("this backend can put raw entries");
    for (raw, _) in &cases {
        put(raw.clone()).await;
    }
    let mut feed = (stores.consumer)("one").await;
    let mut batch = Vec::new();
    while batch.len() < cases.len() {
        batch.extend(next(&mut *feed, WIDE).await);
    }
    for (offset, (delivery, (raw, is_cause))) in (1..).zip(batch.iter().zip(&cases)) {
        let Unreadable { cause, place, bytes, length } =
            delivery.content.as_ref().expect_err("it cannot be read");
        assert!(is_cause(cause), "{cause} for {raw:?}");
        // The one that says seq 3 at offset 2 cannot be right.
        assert_eq!(place.is_some(), raw.seq <= offset, "{raw:?}");
        if let Some((conversation, seq)) = place {
            assert_eq!((format!("c:{conversation}"), *seq), (raw.envelope.subject.clone(), raw.seq));
        }
        let payload = raw.envelope.payload.as_bytes();
        assert!(bytes.windows(payload.len()).any(|window| window == payload), "its bytes are kept");
        assert_eq!(*length, bytes.len());
    }
    feed.ack(&batch).await.expect("ack");
    assert_eq!(stores.monitor.status().await.expect("status").lag(), 0);
}

pub async fn neighbours_of_an_unreadable_entry_are_unharmed(stores: LogStores) {
    let subject = Subject::Conversation(pair("anna", "ben"));
    let put = stores.put_raw.as_ref().expect("this backend can put raw entries");
    let before = stores.put(message("anna", "ben", "before")).await;
    put(RawEntry { subject, envelope: sealed("hi"), seq: 2, checksum_flipped: 1 }).await;
    let after = stores.put(message("anna", "ben", "after")).await;
    assert_eq!((before.seq, after.seq), (1, 3));

    let mut feed = (stores.consumer)("one").await;
    let mut batch = Vec::new();
    while batch.len() < 3 {
        batch.extend(next(&mut *feed, WIDE).await);
    }
    assert_eq!(receipt_of(read(&batch[0])), before);
    assert!(batch[1].content.is_err());
    assert_eq!(receipt_of(read(&batch[2])), after);
}

pub async fn an_unreadable_entry_is_read_again_as_it_was_delivered(stores: LogStores) {
    let subject = Subject::Conversation(pair("anna", "ben"));
    let put = stores.put_raw.as_ref().expect("this backend can put raw entries");
    put(RawEntry { subject, envelope: sealed("hi"), seq: 1, checksum_flipped: 1 }).await;
    let mut feed = (stores.consumer)("one").await;
    let batch = next(&mut *feed, WIDE).await;
    assert!(batch[0].content.is_err());
    feed.ack(&batch).await.expect("ack");
    let again = stores.reader.entries_at(&[batch[0].position]).await.expect("a read");
    assert_eq!(again, [Some(batch[0].clone())]);
}

pub async fn a_tail_gives_what_cannot_be_read_too(stores: LogStores) {
    let subject = Subject::Conversation(pair("anna", "ben"));
    let put = stores.put_raw.as_ref().expect("this backend can put raw entries");
    stores.put(message("anna", "ben", "before")).await;
    let mut tail = (stores.tail)();
    tail.end(WIDE).await.expect("an end").expect("an event");
    let damaged = RawEntry { subject, envelope: sealed("hi"), seq: 2, checksum_flipped: 1 };
    put(damaged.clone()).await;
    let after = stores.put(message("anna", "ben", "after")).await;
    let mut followed = Vec::new();
    while followed.len() < 2 {
        followed.extend(super::soon("a batch", tail.next_batch(WIDE)).await.expect("a batch"));
    }
    assert!(followed[0].content.is_err());
    assert_eq!(receipt_of(read(&followed[1])), after);
    put(RawEntry { seq: 4, ..damaged }).await;
    let end = (stores.tail)().end(1).await.expect("an end").expect("an event");
    assert!(end.entries.last().is_some_and(|last| last.content.is_err()), "{end:?}");
}

fn sealed(content: &str) -> Envelope {
    let append = message("anna", "ben", content);
    let id: EventId = new_id();
    let event: Event = append.event;
    Envelope::seal(id, &event, None)
}
