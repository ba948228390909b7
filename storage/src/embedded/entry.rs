//! An entry of the log as it is stored: the envelope and the numbers that the log gave it, under one checksum.
//! It judges one entry; whether the entries are all there is for [`super::verify`].

use shared::event::{Envelope, Malformed, RecordedEvent};
use shared::ids::{Position, Seq};
use shared::ports::{Delivery, Unreadable};

use super::encoding::{Decoder, Encoder};

const VERSION: u8 = 1;

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
        let Envelope { version, kind, subject, id, payload } = &self.envelope;
        [kind, subject, id, payload]
            .into_iter()
            .fold(
                Encoder::new(VERSION).u64(self.ms).u64(self.seq).u32(self.checksum).u32(*version),
                |encoder, field| encoder.bytes(field.as_bytes()),
            )
            .finish()
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut decoder = Decoder::new(VERSION, bytes)?;
        let (ms, seq, checksum) = (decoder.u64()?, decoder.u64()?, decoder.u32()?);
        let envelope = Envelope {
            version: decoder.u32()?,
            kind: decoder.text()?,
            subject: decoder.text()?,
            id: decoder.text()?,
            payload: decoder.text()?,
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
            bytes: bytes.to_vec(),
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

    fn entry() -> Entry {
        let event = Event::MessageSent(MessageSent {
            sender: "samer".parse().unwrap(),
            recipient: "lena".parse().unwrap(),
            content: "hi\n\"there\"".to_owned(),
        });
        Entry::seal(Envelope::seal(EventId(Ulid::from_parts(1, 2)), &event), 42, 1_234, 1_795_339_800_125)
    }

    #[test]
    fn round_trips() {
        let decoded = Entry::decode(&entry().encode()).unwrap();
        assert_eq!(decoded, entry());
        assert!(decoded.is_whole(1_234));
        let delivery = decoded.deliver(1_234, &[]);
        let event = delivery.content.unwrap();
        assert_eq!((event.seq, event.offset, event.at.0), (42, 1_234, 1_795_339_800_125));
    }

    #[test]
    fn any_flipped_bit_shows() {
        let bytes = entry().encode();
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let read = Entry::decode(&flipped).filter(|entry| entry.is_whole(1_234));
            assert_eq!(read, None, "bit {bit}");
        }
        for bit in 0..64 {
            assert!(!entry().is_whole(1_234 ^ (1 << bit)), "an entry belongs to its offset");
        }
    }

    #[test]
    fn a_shortened_or_lengthened_entry_is_none() {
        let mut bytes = entry().encode();
        for length in 0..bytes.len() {
            assert_eq!(Entry::decode(&bytes[..length]), None, "{length} bytes");
        }
        bytes.push(0);
        assert_eq!(Entry::decode(&bytes), None);
    }
}
