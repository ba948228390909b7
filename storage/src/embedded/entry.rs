//! An entry of the log as it is stored: the envelope and the numbers that the log gave it, under one checksum.
//! It judges one entry; whether the entries are all there is for [`super::verify`].

use shared::event::{Envelope, Malformed, RecordedEvent};
use shared::ids::{Position, Seq, Trace, TraceId};
use shared::limits::PARKED_BYTES_MAX;
use shared::ports::{Delivery, Unreadable};

use super::encoding::{Decoder, Encoder};

/// Without a trace, as all entries were before there were traces; with one at the end; and with one that is sampled. A
/// single flipped bit does not make one of the other.
const UNTRACED: u8 = 1;
const TRACED: u8 = 2;
const SAMPLED: u8 = 4;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) envelope: Envelope,
    pub(super) seq: Seq,
    pub(super) ms: u64,
    /// Of the envelope, `seq`, the offset and `ms`: see [`Entry::seal`].
    checksum: u32,
}

impl Entry {
    /// The envelope's own checksum covers its fields and the lower half of `seq` and offset. A CRC-32 of all
    /// three numbers is mixed into it, so that a bit flipped anywhere in them shows as well. The lengths of the
    /// fields need no cover: another length is another field.
    pub(super) fn seal(envelope: Envelope, seq: Seq, offset: u64, ms: u64) -> Self {
        let checksum = envelope.checksum(seq, offset) ^ of_numbers(ms, seq, offset);
        Self { envelope, seq, ms, checksum }
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let Envelope { version, kind, subject, id, payload, trace } = &self.envelope;
        let shape = match trace {
            None => UNTRACED,
            Some(Trace { is_sampled: false, .. }) => TRACED,
            Some(Trace { is_sampled: true, .. }) => SAMPLED,
        };
        let encoder = [kind, subject, id, payload].into_iter().fold(
            Encoder::new(shape).u64(self.ms).u64(self.seq).u32(self.checksum).u32(*version),
            |encoder, field| encoder.bytes(field.as_bytes()),
        );
        match trace {
            Some(trace) => encoder.array(&trace.id.to_bytes()).finish(),
            None => encoder.finish(),
        }
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let shape = *bytes.first()?;
        let is_sampled = match shape {
            UNTRACED => None,
            TRACED => Some(false),
            SAMPLED => Some(true),
            _ => return None,
        };
        let mut decoder = Decoder::new(shape, bytes)?;
        let (ms, seq, checksum) = (decoder.u64()?, decoder.u64()?, decoder.u32()?);
        let envelope = Envelope {
            version: decoder.u32()?,
            kind: decoder.text()?,
            subject: decoder.text()?,
            id: decoder.text()?,
            payload: decoder.text()?,
            trace: match is_sampled {
                None => None,
                Some(is_sampled) => {
                    Some(Trace { id: TraceId::from_bytes(decoder.array()?).ok()?, is_sampled })
                }
            },
        };
        decoder.end()?;
        Some(Self { envelope, seq, ms, checksum })
    }

    pub(super) fn is_whole(&self, offset: u64) -> bool {
        self.envelope_checksum(offset) == self.envelope.checksum(self.seq, offset)
    }

    /// What the feed gives of it. `bytes` are what it was decoded from.
    pub(super) fn deliver(&self, offset: u64, bytes: &[u8]) -> Delivery {
        let position = position(self.ms, offset);
        let content = self.open(position, offset).map_err(|cause| Unreadable {
            cause,
            place: Unreadable::place(&self.envelope.subject, self.seq, offset),
            bytes: bytes[..bytes.len().min(PARKED_BYTES_MAX)].to_vec(),
            length: bytes.len(),
        });
        Delivery { position, content }
    }

    fn open(&self, position: Position, offset: u64) -> Result<RecordedEvent, Malformed> {
        self.envelope.open(position, offset, self.seq, self.envelope_checksum(offset))
    }

    fn envelope_checksum(&self, offset: u64) -> u32 {
        self.checksum ^ of_numbers(self.ms, self.seq, offset)
    }

    /// As a broken disk may leave it.
    #[cfg(any(test, feature = "contract"))]
    pub(super) fn flip_checksum(&mut self, bits: u32) {
        self.checksum ^= bits;
    }
}

/// The store has one partition, and the offset is what rises within it.
pub(super) fn position(ms: u64, offset: u64) -> Position {
    Position { partition: 0, ms, counter: offset }
}

fn of_numbers(ms: u64, seq: Seq, offset: u64) -> u32 {
    crc32fast::hash([ms, seq, offset].map(u64::to_be_bytes).as_flattened())
}

#[cfg(test)]
mod tests {
    use shared::event::{Event, MessageSent};
    use shared::ids::{EventId, Ulid};

    use super::*;

    /// What the program wrote then.
    const OLD_CHECKSUM: u32 = 0xc1d3_d423;

    fn entries() -> [Entry; 3] {
        let trace = |text: &str| text.parse().ok();
        let (traced, sampled) = ("0af7651916cd43dd8448eb211c80319c", "0af7651916cd43dd8448eb211c80319c-01");
        [entry(None), entry(trace(traced)), entry(trace(sampled))]
    }

    fn entry(trace: Option<Trace>) -> Entry {
        let event = Event::MessageSent(MessageSent {
            sender: "samer".parse().unwrap(),
            recipient: "lena".parse().unwrap(),
            content: "hi\n\"there\"".to_owned(),
        });
        let envelope = Envelope::seal(EventId(Ulid::from_parts(1, 2)), &event, trace);
        Entry::seal(envelope, 42, 1_234, 1_795_339_800_125)
    }

    #[test]
    fn round_trips() {
        for entry in entries() {
            let decoded = Entry::decode(&entry.encode()).unwrap();
            assert_eq!(decoded, entry);
            assert!(decoded.is_whole(1_234));
            let event = decoded.deliver(1_234, &[]).content.unwrap();
            assert_eq!((event.seq, event.offset, event.at.0), (42, 1_234, 1_795_339_800_125));
            assert_eq!(event.trace, entry.envelope.trace);
        }
    }

    #[test]
    fn an_entry_from_before_there_were_traces_opens() {
        let mut bytes = vec![1];
        bytes.extend(1_795_339_800_125_u64.to_be_bytes());
        bytes.extend(42_u64.to_be_bytes());
        bytes.extend(OLD_CHECKSUM.to_be_bytes());
        bytes.extend(1_u32.to_be_bytes());
        let payload = r#"{"sender":"samer","recipient":"lena","content":"hi\n\"there\""}"#;
        for text in ["MessageSent", "c:lena:samer", "00000000010000000000000002", payload] {
            bytes.extend(u32::try_from(text.len()).unwrap().to_be_bytes());
            bytes.extend(text.as_bytes());
        }
        assert_eq!(Entry::decode(&bytes), Some(entry(None)));
    }

    #[test]
    fn any_flipped_bit_shows() {
        for entry in entries() {
            let bytes = entry.encode();
            for bit in 0..bytes.len() * 8 {
                let mut flipped = bytes.clone();
                flipped[bit / 8] ^= 1 << (bit % 8);
                let read = Entry::decode(&flipped).filter(|entry| entry.is_whole(1_234));
                assert_eq!(read, None, "bit {bit}");
            }
            for bit in 0..64 {
                assert!(!entry.is_whole(1_234 ^ (1 << bit)), "an entry belongs to its offset");
            }
        }
    }

    #[test]
    fn a_shortened_or_lengthened_entry_is_none() {
        for entry in entries() {
            let mut bytes = entry.encode();
            for length in 0..bytes.len() {
                assert_eq!(Entry::decode(&bytes[..length]), None, "{length} bytes");
            }
            bytes.push(0);
            assert_eq!(Entry::decode(&bytes), None);
        }
    }
}
