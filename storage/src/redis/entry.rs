//! Reads one entry of a stream. What cannot be read is kept as it is, with its cause and, if the entry says
//! it, the place of its marker. Nothing is guessed and nothing is repaired here.

use redis::Value;
use shared::Seq;
use shared::event::{Envelope, Event, Malformed, RecordedEvent, SCHEMA_VERSION};
use shared::ids::{Conversation, Position, Trace};
use shared::limits::PARKED_BYTES_MAX;
use shared::ports::{Delivery, LogEntry, Unreadable};

use super::keys::field;

/// A number above this was never given by the append script.
const SEQ_MAX: Seq = 1 << 53;

/// In the place of a trace.
const NO_TRACE: &str = "-";

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
    Some(raw(partition, entries)?.into_iter().map(open).collect())
}

/// The same entries as they are.
pub(super) fn raw(partition: u16, entries: Value) -> Option<Vec<LogEntry>> {
    let Value::Array(entries) = entries else { return None };
    entries.into_iter().map(|entry| raw_entry(partition, entry)).collect()
}

/// What an entry says.
pub(crate) fn open(entry: LogEntry) -> Delivery {
    Fields(entry.fields).delivery(entry.position)
}

/// What a read of several streams answers: `[[key, entries], …]`, in the order of the streams asked, which are those
/// of all partitions, without those that have nothing.
pub(super) fn streams(asked: &[String], answer: Value) -> Option<Vec<Delivery>> {
    let streams = match answer {
        Value::Array(streams) => streams,
        Value::Nil => return Some(Vec::new()),
        _ => return None,
    };
    let mut batch = Vec::new();
    let mut asked = (0u16..).zip(asked);
    for stream in streams {
        let (key, entries): (String, Value) = redis::from_redis_value(stream).ok()?;
        let (partition, _) = asked.find(|(_, asked)| **asked == key)?;
        batch.extend(deliveries(partition, entries)?);
    }
    Some(batch)
}

/// An entry of which only the id is left.
pub(super) fn deleted(partition: u16, id: &str) -> Option<Delivery> {
    Some(Fields(Vec::new()).delivery(position(partition, id)?))
}

fn raw_entry(partition: u16, entry: Value) -> Option<LogEntry> {
    let Value::Array(entry) = entry else { return None };
    let [id, fields] = <[Value; 2]>::try_from(entry).ok()?;
    let position = position(partition, &redis::from_redis_value::<String>(id).ok()?)?;
    let fields = match fields {
        Value::Array(words) => words.into_iter().map(bytes).collect::<Option<_>>()?,
        Value::Nil => Vec::new(),
        _ => return None,
    };
    Some(LogEntry { position, fields })
}

fn bytes(value: Value) -> Option<Vec<u8>> {
    match value {
        Value::BulkString(bytes) => Some(bytes),
        _ => None,
    }
}

/// What it takes in memory, about.
pub(crate) fn size(delivery: &Delivery) -> usize {
    let text = match &delivery.content {
        Ok(recorded) => match &recorded.event {
            Event::MessageSent(sent) => sent.content.len(),
            Event::UserRegistered(_) | Event::ConversationRead(_) => 0,
        },
        Err(unreadable) => unreadable.bytes.len(),
    };
    size_of::<Delivery>() + text
}

/// How the field [`field::HEADER`] begins; the script adds what it gives: seq, offset, checksum.
pub(super) fn header(envelope: &Envelope) -> String {
    let Envelope { version, kind, subject, id, payload: _, trace } = envelope;
    let trace = trace.map_or_else(|| NO_TRACE.to_owned(), String::from);
    format!("{version} {kind} {subject} {id} {trace}")
}

/// Name, value, name, value, …
struct Fields(Vec<Vec<u8>>);

impl Fields {
    fn delivery(mut self, position: Position) -> Delivery {
        let (header, mut payload) = (self.take(field::HEADER), self.take(field::PAYLOAD));
        let words = Header::of(header.as_deref().unwrap_or_default());
        let content = words.event(&mut payload, position).map_err(|cause| (cause, words.place()));
        let content = content.map_err(|(cause, place)| {
            self.put_back(field::HEADER, header);
            self.put_back(field::PAYLOAD, payload);
            let (bytes, length) = self.bytes();
            Unreadable { cause, place, bytes, length }
        });
        Delivery { position, content }
    }

    /// Of two fields of one name nobody knows which is right.
    fn at(&self, name: &str) -> Option<usize> {
        let mut found = (0..).zip(self.0.chunks_exact(2)).filter(|(_, pair)| pair[0] == name.as_bytes());
        let (Some((nth, _)), None) = (found.next(), found.next()) else { return None };
        Some(2 * nth + 1)
    }

    /// Taken, not copied: it may be of any size.
    fn take(&mut self, name: &str) -> Option<String> {
        let at = self.at(name)?;
        let taken = String::from_utf8(std::mem::take(&mut self.0[at]));
        taken.map_err(|bad| self.0[at] = bad.into_bytes()).ok()
    }

    fn put_back(&mut self, name: &str, taken: Option<String>) {
        if let Some((at, taken)) = self.at(name).zip(taken) {
            self.0[at] = taken.into_bytes();
        }
    }

    /// All names and values as they are, each behind its length, in Redis' own notation: the beginning of that, and how
    /// long it is.
    fn bytes(&self) -> (Vec<u8>, usize) {
        let (mut bytes, mut length) = (Vec::new(), 0);
        let mut add = |part: &[u8]| {
            let room = PARKED_BYTES_MAX - bytes.len();
            bytes.extend_from_slice(&part[..part.len().min(room)]);
            length += part.len();
        };
        add(format!("*{}\r\n", self.0.len()).as_bytes());
        for word in &self.0 {
            add(format!("${}\r\n", word.len()).as_bytes());
            add(word);
            add(b"\r\n");
        }
        (bytes, length)
    }
}

/// The words of the field [`field::HEADER`].
struct Header<'a>(Vec<&'a str>);

impl Header<'_> {
    const VERSION: usize = 0;
    const KIND: usize = 1;
    const SUBJECT: usize = 2;
    const ID: usize = 3;
    const TRACE: usize = 4;
    const SEQ: usize = 5;
    const OFFSET: usize = 6;
    const CHECKSUM: usize = 7;
    const WORDS: usize = 8;

    fn of(header: &str) -> Header<'_> {
        // One more than there may be.
        Header(header.splitn(Self::WORDS + 1, ' ').collect())
    }

    /// The payload is there again afterwards.
    fn event(&self, payload: &mut Option<String>, position: Position) -> Result<RecordedEvent, Malformed> {
        let version = self.number(Self::VERSION).ok_or(Malformed::Field("version"))?;
        match self.read(version, payload, position) {
            // A later version may have other fields: that they are missing is not the cause.
            Err(Malformed::Field(_)) if version > SCHEMA_VERSION => Err(Malformed::FutureVersion(version)),
            read => read,
        }
    }

    fn read(
        &self,
        version: u32,
        payload: &mut Option<String>,
        position: Position,
    ) -> Result<RecordedEvent, Malformed> {
        let owned = |word, called| self.word(word).map(str::to_owned).ok_or(Malformed::Field(called));
        let (kind, subject) = (owned(Self::KIND, "type")?, owned(Self::SUBJECT, "subject")?);
        let id = owned(Self::ID, "id")?;
        if payload.is_none() {
            return Err(Malformed::Field("payload"));
        }
        let trace = self.trace()?;
        let seq = self.seq().ok_or(Malformed::Field("seq"))?;
        let offset = self.number(Self::OFFSET).ok_or(Malformed::Field("offset"))?;
        let checksum = self.checksum().ok_or(Malformed::Field("checksum"))?;
        if self.0.len() > Self::WORDS {
            return Err(Malformed::Field("header"));
        }
        let text = payload.take().unwrap_or_default();
        let envelope = Envelope { version, kind, subject, id, payload: text, trace };
        let opened = envelope.open(position, offset, seq, checksum);
        *payload = Some(envelope.payload);
        opened
    }

    fn word(&self, at: usize) -> Option<&str> {
        self.0.get(at).copied()
    }

    /// Only in the one spelling that the script writes.
    fn number<T: std::str::FromStr + ToString>(&self, at: usize) -> Option<T> {
        let text = self.word(at)?;
        text.parse().ok().filter(|number: &T| number.to_string() == text)
    }

    fn seq(&self) -> Option<Seq> {
        self.number(Self::SEQ).filter(|seq| (1..=SEQ_MAX).contains(seq))
    }

    fn checksum(&self) -> Option<u32> {
        let text = self.word(Self::CHECKSUM)?;
        let number = u32::from_str_radix(text, 16).ok()?;
        (format!("{number:08x}") == text).then_some(number)
    }

    fn trace(&self) -> Result<Option<Trace>, Malformed> {
        match self.word(Self::TRACE) {
            Some(NO_TRACE) => Ok(None),
            Some(text) => text.parse().map(Some).map_err(|_| Malformed::Field("trace")),
            None => Err(Malformed::Field("trace")),
        }
    }

    fn place(&self) -> Option<(Conversation, Seq)> {
        Unreadable::place(self.word(Self::SUBJECT)?, self.seq()?, self.number(Self::OFFSET)?)
    }
}

#[cfg(test)]
mod tests {
    use shared::event::MessageSent;
    use shared::ids::EventId;

    use super::*;

    const AT: Position = Position { partition: 3, ms: 1_700_000_000_000, counter: 1 };

    type Entry = [(&'static str, String); 2];

    fn entry(trace: Option<&str>) -> Entry {
        let id: EventId = "01JD0000000000000000000000".parse().unwrap();
        let (sender, recipient) = ("anna".parse().unwrap(), "ben".parse().unwrap());
        let event = Event::MessageSent(MessageSent { sender, recipient, content: "hi".into() });
        let envelope = Envelope::seal(id, &event, trace.map(|trace| trace.parse().unwrap()));
        let header = format!("{} 7 9 {:08x}", header(&envelope), envelope.checksum(7, 9));
        [("e", header), ("p", envelope.payload)]
    }

    fn traced() -> Entry {
        entry(Some("0af7651916cd43dd8448eb211c80319c-01"))
    }

    /// A good entry with another word in its header.
    fn with_word(at: usize, word: &str) -> Entry {
        let [(name, header), payload] = traced();
        let mut words: Vec<&str> = header.split(' ').collect();
        words[at] = word;
        [(name, words.join(" ")), payload]
    }

    fn read(fields: &[(&str, String)]) -> Delivery {
        let text = |text: &str| Value::BulkString(text.into());
        let words = fields.iter().flat_map(|(name, value)| [text(name), text(value)]).collect();
        let entry = Value::Array(vec![text("1700000000000-1"), Value::Array(words)]);
        deliveries(3, Value::Array(vec![entry])).unwrap().remove(0)
    }

    fn cause(fields: &[(&str, String)]) -> Malformed {
        read(fields).content.unwrap_err().cause
    }

    #[test]
    fn a_good_entry() {
        let delivery = read(&entry(None));
        assert_eq!(delivery.position, AT);
        let event = delivery.content.unwrap();
        assert_eq!((event.seq, event.offset, event.at.0, event.event.kind()), (7, 9, AT.ms, "MessageSent"));
    }

    #[test]
    fn a_trace_is_given_back() {
        let trace = |fields: &[_]| read(fields).content.map(|event| event.trace.map(String::from));
        for text in ["0af7651916cd43dd8448eb211c80319c", "0af7651916cd43dd8448eb211c80319c-01"] {
            assert_eq!(trace(&entry(Some(text))), Ok(Some(text.to_owned())));
        }
        assert_eq!(trace(&entry(None)), Ok(None));
        assert!(matches!(cause(&with_word(Header::TRACE, NO_TRACE)), Malformed::Checksum { .. }));
    }

    #[test]
    fn each_word_is_needed_and_no_other() {
        let names = ["type", "subject", "id", "trace", "seq", "offset", "checksum"];
        let [(name, header), payload] = traced();
        for (words, called) in (1..).zip(names) {
            let header = header.split(' ').take(words).collect::<Vec<_>>().join(" ");
            assert_eq!(cause(&[(name, header), payload.clone()]), Malformed::Field(called));
        }
        assert_eq!(cause(&[(name, format!("{header} more")), payload.clone()]), Malformed::Field("header"));
        assert_eq!(cause(std::slice::from_ref(&payload)), Malformed::Field("version"));
        assert_eq!(cause(&[(name, header.clone())]), Malformed::Field("payload"));
        assert_eq!(cause(&[payload.clone(), (name, header), payload]), Malformed::Field("payload"));
    }

    #[test]
    fn each_word_has_one_spelling() {
        for (at, name, text) in [
            (Header::VERSION, "version", "01"),
            (Header::TRACE, "trace", ""),
            (Header::TRACE, "trace", "no-trace"),
            (Header::TRACE, "trace", "0af7651916cd43dd8448eb211c80319c-00"),
            (Header::SEQ, "seq", "0"),
            (Header::SEQ, "seq", "+7"),
            (Header::OFFSET, "offset", "-1"),
            (Header::CHECKSUM, "checksum", "ABCDEF01"),
        ] {
            assert_eq!(cause(&with_word(at, text)), Malformed::Field(name), "{text}");
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
        let fields = [("e", "2 MessageEdited c:anna:ben x - 7 9 00000000 more"), ("x", "y")];
        let fields = fields.map(|(name, value)| (name, value.to_owned()));
        let unreadable = read(&fields).content.unwrap_err();
        assert_eq!(unreadable.cause, Malformed::FutureVersion(2));
        assert_eq!(
            unreadable.place.map(|(conversation, seq)| (conversation.to_string(), seq)),
            Some(("anna:ben".into(), 7))
        );
        assert!(unreadable.bytes.starts_with(b"*4\r\n$1\r\ne\r\n$48\r\n2 MessageEdited"));
    }

    #[test]
    fn of_a_large_entry_the_beginning_is_kept() {
        let [header, (name, _)] = entry(None);
        let payload = "x".repeat(PARKED_BYTES_MAX);
        let unreadable = read(&[header.clone(), (name, payload.clone())]).content.unwrap_err();
        let whole = format!(
            "*4\r\n$1\r\ne\r\n${}\r\n{}\r\n$1\r\np\r\n$1048576\r\n{payload}\r\n",
            header.1.len(),
            header.1
        );
        assert_eq!((unreadable.length, unreadable.bytes.len()), (whole.len(), PARKED_BYTES_MAX));
        assert!(whole.as_bytes().starts_with(&unreadable.bytes));
        assert!(matches!(unreadable.cause, Malformed::Checksum { .. }));
    }

    #[test]
    fn a_deleted_entry_is_not_skipped() {
        let entry = Value::Array(vec![Value::BulkString(b"5-0".to_vec()), Value::Nil]);
        let delivery = deliveries(3, Value::Array(vec![entry])).unwrap().remove(0);
        assert_eq!(delivery.content.unwrap_err().cause, Malformed::Field("version"));
    }
}
