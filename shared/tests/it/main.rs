//! Stored shapes: every golden file is read as it was written, and today's writer still writes it.

#![expect(clippy::unwrap_used, reason = "a test fails where it stands")]

use std::path::PathBuf;

use proptest::prelude::*;
use shared::event::{
    ConversationRead, Envelope, Event, Malformed, MessageSent, RecordedEvent, SCHEMA_VERSION, UserRegistered,
};
use shared::{EventId, Position, Timestamp, Trace, Username};

/// An entry of the log, written out.
#[derive(Debug, PartialEq, serde::Deserialize)]
struct Golden {
    envelope: Envelope,
    position: Position,
    offset: u64,
    seq: u64,
    checksum: String,
}

const POSITION: Position = Position { partition: 3, ms: 1_795_339_800_125, counter: 0 };

fn name(text: &str) -> Username {
    text.parse().unwrap()
}

fn id() -> EventId {
    "01KAQ3V6B4Y6V3Z9T8S7R6Q5P4".parse().unwrap()
}

fn golden(file: &str) -> Golden {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/events").join(file);
    serde_json::from_str(
        &std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display())),
    )
    .unwrap()
}

fn check(file: &str, event: &Event) {
    check_traced(file, event, None);
}

fn check_traced(file: &str, event: &Event, trace: Option<Trace>) {
    let golden = golden(file);
    let checksum = u32::from_str_radix(&golden.checksum, 16).unwrap();
    let read = golden.envelope.open(golden.position, golden.offset, golden.seq, checksum).unwrap();
    let at = Timestamp(golden.position.ms);
    let expected = RecordedEvent {
        position: POSITION,
        offset: 1_234,
        seq: 42,
        id: id(),
        at,
        trace,
        event: event.clone(),
    };
    assert_eq!(read, expected, "reading {file}");
    assert_eq!(Envelope::seal(id(), event, trace), golden.envelope, "writing {file}");
}

#[test]
fn user_registered_v1() {
    let password_hash = "$argon2id$v=19$m=19456,t=2,p=1$c2FsdHNhbHRzYWx0$aGFzaA".to_owned();
    check(
        "user_registered.v1.json",
        &Event::UserRegistered(UserRegistered { username: name("samer"), password_hash }),
    );
}

fn message_sent() -> Event {
    let content = "hi \"lena\"\n\u{1f642}".to_owned();
    Event::MessageSent(MessageSent { sender: name("samer"), recipient: name("lena"), content })
}

#[test]
fn message_sent_v1() {
    check("message_sent.v1.json", &message_sent());
}

#[test]
fn message_sent_traced_v1() {
    let trace = "0af7651916cd43dd8448eb211c80319c".parse().ok();
    check_traced("message_sent_traced.v1.json", &message_sent(), trace);
}

#[test]
fn message_sent_sampled_v1() {
    let trace = "0af7651916cd43dd8448eb211c80319c-01".parse().ok();
    check_traced("message_sent_sampled.v1.json", &message_sent(), trace);
}

#[test]
fn conversation_read_v1() {
    let event = ConversationRead { reader: name("samer"), peer: name("lena"), seq: 42 };
    check("conversation_read.v1.json", &Event::ConversationRead(event));
}

#[test]
fn what_cannot_be_applied_is_told_apart() {
    let event =
        Event::ConversationRead(ConversationRead { reader: name("samer"), peer: name("lena"), seq: 42 });
    let sealed = Envelope::seal(id(), &event, None);
    let open = |envelope: &Envelope| envelope.open(POSITION, 7, 3, envelope.checksum(3, 7));
    assert!(open(&sealed).is_ok());

    let cause = |change: &dyn Fn(&mut Envelope)| {
        let mut envelope = sealed.clone();
        change(&mut envelope);
        open(&envelope).unwrap_err()
    };
    assert_eq!(cause(&|e| e.version = SCHEMA_VERSION + 1), Malformed::FutureVersion(SCHEMA_VERSION + 1));
    assert_eq!(cause(&|e| e.kind = "Exploded".into()), Malformed::UnknownKind("Exploded".into()));
    assert_eq!(cause(&|e| e.id = "x".into()), Malformed::Field("id"));
    assert!(matches!(cause(&|e| e.payload = "{".into()), Malformed::Payload(_)));
    assert!(matches!(cause(&|e| e.payload = "{}".into()), Malformed::Payload(_)));
    assert!(matches!(cause(&|e| e.subject = "u:lena".into()), Malformed::Subject { .. }));
    let to_self = r#"{"sender":"samer","recipient":"samer","content":"x"}"#;
    let both = |e: &mut Envelope| (e.kind, e.payload) = ("MessageSent".into(), to_self.into());
    assert!(matches!(cause(&|e| both(e)), Malformed::Payload(_)));
    // A newer program of the same version may have added a field.
    let mut newer = sealed.clone();
    newer.payload = newer.payload.replace('{', "{\"added\":true,");
    assert_eq!(open(&newer).unwrap().event, event);
}

fn names() -> impl Strategy<Value = Username> {
    "[a-z0-9][a-z0-9_.-]{1,31}".prop_map(|text| text.parse().unwrap())
}

fn events() -> impl Strategy<Value = Event> {
    let pair = || (names(), names()).prop_filter("two users", |(one, other)| one != other);
    prop_oneof![
        (names(), any::<String>()).prop_map(|(username, password_hash)| Event::UserRegistered(
            UserRegistered { username, password_hash }
        )),
        (pair(), any::<String>()).prop_map(|((sender, recipient), content)| {
            Event::MessageSent(MessageSent { sender, recipient, content })
        }),
        (pair(), any::<u64>()).prop_map(|((reader, peer), seq)| Event::ConversationRead(ConversationRead {
            reader,
            peer,
            seq
        })),
    ]
}

proptest! {
    #[test]
    fn every_event_reads_as_written(event in events(), seq in 1..u64::MAX / 4, offset in 1..u64::MAX) {
        let sealed = Envelope::seal(id(), &event, None);
        let read = sealed.open(POSITION, offset, seq, sealed.checksum(seq, offset)).unwrap();
        prop_assert_eq!((read.event, read.seq, read.offset), (event, seq, offset));
    }

    #[test]
    fn every_flipped_bit_shows(event in events(), seq in 1..1_u64 << 40, offset in 1..1_u64 << 40, at in any::<prop::sample::Index>()) {
        let sealed = Envelope::seal(id(), &event, None);
        let checksum = sealed.checksum(seq, offset);
        let mut payload = sealed.payload.clone().into_bytes();
        let bit = at.index(payload.len() * 8);
        payload[bit / 8] ^= 1 << (bit % 8);
        if let Ok(payload) = String::from_utf8(payload) {
            let flipped = Envelope { payload, ..sealed.clone() };
            prop_assert!(flipped.open(POSITION, offset, seq, checksum).is_err(), "payload bit {}", bit);
        }
        for bit in 0..32 {
            prop_assert!(sealed.open(POSITION, offset, seq ^ (1 << bit), checksum).is_err(), "seq bit {}", bit);
            prop_assert!(sealed.open(POSITION, offset ^ (1 << bit), seq, checksum).is_err(), "offset bit {}", bit);
        }
    }
}
