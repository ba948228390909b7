//! Reads one entry of a stream. What cannot be read is kept as it is, with its cause and, if the entry says
//! it, the place of its marker. Nothing is guessed and nothing is repaired here.

use redis::Value;
use shared::Seq;
use shared::event::{Envelope, Malformed, RecordedEvent, SCHEMA_VERSION};
use shared::ids::{Conversation, Position, TraceId};
use shared::ports::{Delivery, Unreadable};

use super::keys::field;

/// A number above this was never given by the append script.
const SEQ_MAX: Seq = 1 << 53;

/// `ms-counter`, as Redis writes it.
pub(super) fn position(partition: u16, id: &str) -> Option<Position> {
    let (ms, counter) = id.split_once('-')?;
    Some(Position { partition, ms: ms.parse().ok()?, counter: counter.parse().ok()? })
}

/// The id of the entry at `position`.
pub(super) fn id(position: &Position) -> String {
    format!("{}-{}", position.ms, position.counter)
}

/// The entries of one stream as Redis answers them: `[[id, [name, value, …]], …]`. `None` for anything else. An
/// entry that was deleted while it was pending comes without fields.
pub(super) fn deliveries(partition: u16, entries: Value) -> Option<Vec<Delivery>> {
    let Value::Array(entries) = entries else { return None };
    entries.into_iter().map(|entry| delivery(partition, entry)).collect()
}

/// An entry of which only the id is left.
pub(super) fn deleted(partition: u16, id: &str) -> Option<Delivery> {
    Some(Fields(Vec::new()).delivery(position(partition, id)?))
}

fn delivery(partition: u16, entry: Value) -> Option<Delivery> {
    let Value::Array(entry) = entry else { return None };
    let [id, fields] = <[Value; 2]>::try_from(entry).ok()?;
    let position = position(partition, &redis::from_redis_value::<String>(id).ok()?)?;
    let fields = match fields {
        Value::Array(words) => words.into_iter().map(bytes).collect::<Option<_>>()?,
        Value::Nil => Vec::new(),
        _ => return None,
    };
    Some(Fields(fields).delivery(position))
}

fn bytes(value: Value) -> Option<Vec<u8>> {
    match value {
        Value::BulkString(bytes) => Some(bytes),
        _ => None,
    }
}

/// Name, value, name, value, …
struct Fields(Vec<Vec<u8>>);

impl Fields {
    fn delivery(&self, position: Position) -> Delivery {
        let unreadable = |cause| Unreadable { cause, place: self.place(), bytes: self.bytes() };
        Delivery { position, content: self.event(position).map_err(unreadable) }
    }

    fn text(&self, name: &str) -> Option<&str> {
        let found = self.0.chunks_exact(2).find(|pair| pair[0] == name.as_bytes())?;
        std::str::from_utf8(&found[1]).ok()
    }

    fn event(&self, position: Position) -> Result<RecordedEvent, Malformed> {
        let version = self.number(field::VERSION).ok_or(Malformed::Field("version"))?;
        let read = self.read(version, position);
        match read {
            // A later version may have other fields: that they are missing is not the cause.
            Err(Malformed::Field(_)) if version > SCHEMA_VERSION => Err(Malformed::FutureVersion(version)),
            read => read,
        }
    }

    fn read(&self, version: u32, position: Position) -> Result<RecordedEvent, Malformed> {
        let owned = |name, called| self.text(name).map(str::to_owned).ok_or(Malformed::Field(called));
        let envelope = Envelope {
            version,
            kind: owned(field::KIND, "type")?,
            subject: owned(field::SUBJECT, "subject")?,
            id: owned(field::ID, "id")?,
            payload: owned(field::PAYLOAD, "payload")?,
            trace: self.trace()?,
        };
        let seq = self.seq().ok_or(Malformed::Field("seq"))?;
        let offset = self.number(field::OFFSET).ok_or(Malformed::Field("offset"))?;
        let checksum = self.checksum().ok_or(Malformed::Field("checksum"))?;
        envelope.open(position, offset, seq, checksum)
    }

    /// Only in the one spelling that the script writes.
    fn number<T: std::str::FromStr + ToString>(&self, name: &str) -> Option<T> {
        let text = self.text(name)?;
        text.parse().ok().filter(|number: &T| number.to_string() == text)
    }

    fn seq(&self) -> Option<Seq> {
        self.number(field::SEQ).filter(|seq| (1..=SEQ_MAX).contains(seq))
    }

    fn checksum(&self) -> Option<u32> {
        let text = self.text(field::CHECKSUM)?;
        let number = u32::from_str_radix(text, 16).ok()?;
        (format!("{number:08x}") == text).then_some(number)
    }

    fn trace(&self) -> Result<Option<TraceId>, Malformed> {
        match self.text(field::TRACE) {
            None | Some("") => Ok(None),
            Some(text) => text.parse().map(Some).map_err(|_| Malformed::Field("trace")),
        }
    }

    fn place(&self) -> Option<(Conversation, Seq)> {
        Unreadable::place(self.text(field::SUBJECT)?, self.seq()?, self.number(field::OFFSET)?)
    }

    /// All names and values as they are, each behind its length, in Redis' own notation.
    fn bytes(&self) -> Vec<u8> {
        let mut bytes = format!("*{}\r\n", self.0.len()).into_bytes();
        for word in &self.0 {
            bytes.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
            bytes.extend_from_slice(word);
            bytes.extend_from_slice(b"\r\n");
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use shared::event::{Event, MessageSent};
    use shared::ids::EventId;

    use super::*;

    const AT: Position = Position { partition: 3, ms: 1_700_000_000_000, counter: 1 };

    /// As it was written before there were traces.
    fn entry() -> Vec<(&'static str, String)> {
        fields(None)
    }

    fn traced() -> Vec<(&'static str, String)> {
        fields("0af7651916cd43dd8448eb211c80319c".parse().ok())
    }

    fn fields(trace: Option<TraceId>) -> Vec<(&'static str, String)> {
        let id: EventId = "01JD0000000000000000000000".parse().unwrap();
        let (sender, recipient) = ("anna".parse().unwrap(), "ben".parse().unwrap());
        let event = Event::MessageSent(MessageSent { sender, recipient, content: "hi".into() });
        let envelope = Envelope::seal(id, &event, trace);
        let checksum = format!("{:08x}", envelope.checksum(7, 9));
        let Envelope { version, kind, subject, id, payload, trace } = envelope;
        let mut fields = vec![
            ("v", version.to_string()),
            ("t", kind),
            ("s", subject),
            ("q", "7".into()),
            ("n", "9".into()),
            ("i", id),
            ("p", payload),
            ("c", checksum),
        ];
        fields.extend(trace.map(|trace| ("r", trace.to_string())));
        fields
    }

    fn read(fields: &[(&str, String)]) -> Delivery {
        let text = |text: &str| Value::BulkString(text.into());
        let words = fields.iter().flat_map(|(name, value)| [text(name), text(value)]).collect();
        let entry = Value::Array(vec![text("1700000000000-1"), Value::Array(words)]);
        deliveries(3, Value::Array(vec![entry])).unwrap().remove(0)
    }

    #[test]
    fn a_good_entry() {
        let delivery = read(&entry());
        assert_eq!(delivery.position, AT);
        let event = delivery.content.unwrap();
        assert_eq!((event.seq, event.offset, event.at.0, event.event.kind()), (7, 9, AT.ms, "MessageSent"));
    }

    #[test]
    fn a_trace_is_given_back() {
        let trace = |fields: &[_]| read(fields).content.map(|event| event.trace.map(String::from));
        assert_eq!(trace(&traced()), Ok(Some("0af7651916cd43dd8448eb211c80319c".to_owned())));
        let mut without = entry();
        assert_eq!(trace(&without), Ok(None));
        without.push(("r", String::new()));
        assert_eq!(trace(&without), Ok(None));
        let mut lost = traced();
        lost.pop();
        assert!(matches!(trace(&lost).unwrap_err().cause, Malformed::Checksum { .. }));
    }

    #[test]
    fn each_field_is_needed() {
        let names = ["version", "type", "subject", "seq", "offset", "id", "payload", "checksum"];
        for (at, name) in names.into_iter().enumerate() {
            let mut fields = entry();
            fields.remove(at);
            assert_eq!(read(&fields).content.unwrap_err().cause, Malformed::Field(name));
        }
    }

    #[test]
    fn each_field_has_one_spelling() {
        for (at, name, text) in [
            (0, "version", "01"),
            (3, "seq", "0"),
            (3, "seq", "+7"),
            (4, "offset", "-1"),
            (7, "checksum", "ABCDEF01"),
        ] {
            let mut fields = entry();
            fields[at].1 = text.into();
            assert_eq!(read(&fields).content.unwrap_err().cause, Malformed::Field(name), "{text}");
        }
    }

    #[test]
    fn every_flipped_bit_shows() {
        let good = traced();
        for at in 0..good.len() {
            for bit in 0..good[at].1.len() * 8 {
                let mut bytes = good[at].1.clone().into_bytes();
                bytes[bit / 8] ^= 1 << (bit % 8);
                let Ok(text) = String::from_utf8(bytes) else { continue };
                let mut fields = good.clone();
                fields[at].1 = text;
                assert!(read(&fields).content.is_err(), "bit {bit} of {}", good[at].0);
            }
        }
    }

    #[test]
    fn a_later_version_may_have_other_fields() {
        let fields = [("v", "2"), ("s", "c:anna:ben"), ("q", "7"), ("n", "9"), ("x", "y")];
        let fields = fields.map(|(name, value)| (name, value.to_owned()));
        let unreadable = read(&fields).content.unwrap_err();
        assert_eq!(unreadable.cause, Malformed::FutureVersion(2));
        assert_eq!(
            unreadable.place.map(|(conversation, seq)| (conversation.to_string(), seq)),
            Some(("anna:ben".into(), 7))
        );
        assert!(unreadable.bytes.starts_with(b"*10\r\n$1\r\nv\r\n$1\r\n2\r\n"));
    }

    #[test]
    fn a_deleted_entry_is_not_skipped() {
        let entry = Value::Array(vec![Value::BulkString(b"5-0".to_vec()), Value::Nil]);
        let delivery = deliveries(3, Value::Array(vec![entry])).unwrap().remove(0);
        assert_eq!(delivery.content.unwrap_err().cause, Malformed::Field("version"));
    }
}
