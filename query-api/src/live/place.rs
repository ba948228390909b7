//! Up to where a reader has seen the log: the last entry of each partition. One time for all of them would not do, as
//! the times of different partitions say nothing about each other once the log's clock has jumped.
//!
//! Its text is the `id:` of an event. It is sealed with the names of reader and log, so that another one's is as
//! unreadable as a damaged one. Nothing secret is in it, and nothing is gained by making one up: whatever it
//! says, a reader is shown only what is his.
//!
//! ```text
//! text       base64url(version, checksum, body)
//! body       varints: number of partitions, newest ms, then for each partition
//!            0, if it has no entry yet; else newest ms - its ms + 1, and its counter
//! ```

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use shared::limits::PARTITIONS_MAX;
use shared::{Position, Username};

const VERSION: u8 = 1;

/// An entry of one partition.
type At = (u64, u64);

const BEFORE_ALL: At = (0, 0);

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place(Vec<At>);

impl Place {
    /// Of one position for each partition, in their order.
    pub(super) fn new(positions: &[Position]) -> Self {
        Self(positions.iter().map(at).collect())
    }

    /// What was seen now reaches to `position`.
    pub(super) fn advance(&mut self, position: &Position) {
        if let Some(of_partition) = self.0.get_mut(usize::from(position.partition)) {
            *of_partition = at(position);
        }
    }

    /// Whether `position` was seen.
    pub(super) fn reaches(&self, position: &Position) -> bool {
        self.0.get(usize::from(position.partition)).is_some_and(|seen| *seen >= at(position))
    }

    /// Whether everything was seen that `other` has; never with another number of partitions.
    pub(super) fn covers(&self, other: &Self) -> bool {
        self.0.len() == other.0.len() && self.0.iter().zip(&other.0).all(|(own, other)| own >= other)
    }

    pub(super) fn body(&self) -> Vec<u8> {
        let newest = self.0.iter().map(|(ms, _)| *ms).max().unwrap_or(0);
        let mut body = Vec::with_capacity(10 + 6 * self.0.len());
        put(&mut body, self.0.len() as u64);
        put(&mut body, newest);
        for (ms, counter) in &self.0 {
            if (*ms, *counter) == BEFORE_ALL {
                put(&mut body, 0);
            } else {
                put(&mut body, (newest - ms).saturating_add(1));
                put(&mut body, *counter);
            }
        }
        body
    }

    fn of_body(body: &[u8]) -> Option<Self> {
        let mut rest = body;
        let partitions = usize::try_from(take(&mut rest)?).ok()?;
        if partitions > usize::from(PARTITIONS_MAX) {
            return None;
        }
        let newest = take(&mut rest)?;
        let place = (0..partitions).map(|_| match take(&mut rest)? {
            0 => Some(BEFORE_ALL),
            behind => Some((newest.checked_sub(behind - 1)?, take(&mut rest)?)),
        });
        // Only in the one spelling that is written.
        place.collect::<Option<_>>().map(Self).filter(|place| place.body() == body)
    }
}

/// The text for a reader of a log. `body` is that of a place.
pub(super) fn seal(reader: &Username, log: &str, body: &[u8]) -> String {
    let mut bytes = Vec::with_capacity(5 + body.len());
    bytes.push(VERSION);
    bytes.extend(checksum(reader, log, body).to_be_bytes());
    bytes.extend(body);
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}

/// `None` for whatever [`seal`] did not give to this reader of this log.
pub(super) fn unseal(reader: &Username, log: &str, text: &str) -> Option<Place> {
    let bytes = BASE64_URL_SAFE_NO_PAD.decode(text).ok()?;
    let (version, rest) = bytes.split_first()?;
    let (given, body) = rest.split_first_chunk()?;
    let is_whole = *version == VERSION && u32::from_be_bytes(*given) == checksum(reader, log, body);
    if is_whole { Place::of_body(body) } else { None }
}

/// No name holds a zero byte.
fn checksum(reader: &Username, log: &str, body: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    for part in [&[VERSION], reader.as_str().as_bytes(), &[0], log.as_bytes(), &[0], body] {
        hasher.update(part);
    }
    hasher.finalize()
}

fn at(position: &Position) -> At {
    (position.ms, position.counter)
}

/// Seven bits a byte, the lowest first; the highest bit says that there are more.
fn put(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

fn take(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..u64::BITS).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        let bits = u64::from(byte & 0x7f);
        number |= bits << shift;
        if byte & 0x80 == 0 {
            return (bits << shift >> shift == bits).then_some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Username {
        text.parse().unwrap()
    }

    fn places() -> Vec<Place> {
        let ms = 1_795_339_800_125;
        vec![
            Place(Vec::new()),
            Place(vec![BEFORE_ALL]),
            Place(vec![(0, 7), (u64::MAX - 1, u64::MAX), BEFORE_ALL]),
            Place((0..16).map(|p| (ms - 1_000 * p, p)).collect()),
            Place((0..u64::from(PARTITIONS_MAX)).map(|p| (ms - 100_000 * p, 0)).collect()),
        ]
    }

    #[test]
    fn round_trips_and_stays_small() {
        let samer = name("samer");
        for place in places() {
            let text = seal(&samer, "log", &place.body());
            assert_eq!(unseal(&samer, "log", &text), Some(place.clone()), "{text}");
            assert!(text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_')));
        }
        let of_sixteen = seal(&samer, "log", &places()[3].body());
        assert!(of_sixteen.len() < 100, "{} characters", of_sixteen.len());
        let of_all = seal(&samer, "log", &places()[4].body());
        assert!(of_all.len() < 8 * 1024, "nginx takes no longer header: {} characters", of_all.len());
    }

    #[test]
    fn of_another_reader_or_log_it_is_unreadable() {
        for place in places() {
            let text = seal(&name("samer"), "log", &place.body());
            assert_eq!(unseal(&name("lena"), "log", &text), None);
            assert_eq!(unseal(&name("samer"), "another", &text), None);
        }
    }

    #[test]
    fn garbage_is_unreadable() {
        let samer = name("samer");
        let body = places()[3].body();
        let text = seal(&samer, "log", &body);
        for at in 0..text.len() {
            assert_eq!(unseal(&samer, "log", &text[..at]), None, "{at}");
            let mut other = text.clone().into_bytes();
            other[at] = if other[at] == b'A' { b'B' } else { b'A' };
            assert_eq!(unseal(&samer, "log", std::str::from_utf8(&other).unwrap()), None, "{at}");
        }
        for text in ["", "x", "%", "AQ", "AAAAAAAA", &format!("{text}A"), &format!("{text}=")] {
            assert_eq!(unseal(&samer, "log", text), None, "{text}");
        }
        // Sealed well, and still none: nobody writes so.
        for body in [
            &[][..],
            &[1],
            &[1, 5],
            &[1, 5, 7, 0],
            &[1, 0x80, 0, 0],
            &[0xff; 11],
            &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f, 0],
            &[0xff, 0xff, 0x7f, 0],
            &[&body[..], &[0]].concat(),
        ] {
            assert_eq!(unseal(&samer, "log", &seal(&samer, "log", body)), None, "{body:?}");
        }
    }

    #[test]
    fn what_was_seen() {
        let position = |partition, ms, counter| Position { partition, ms, counter };
        let mut place = Place::new(&[position(0, 5, 1), position(1, 0, 0)]);
        assert!(place.reaches(&position(0, 5, 1)) && place.reaches(&position(0, 4, 9)));
        assert!(!place.reaches(&position(0, 5, 2)) && !place.reaches(&position(1, 0, 1)));
        assert!(!place.reaches(&position(2, 0, 0)), "there is no such partition");
        let before = place.clone();
        place.advance(&position(1, 7, 0));
        assert!(place.covers(&before) && place.covers(&place) && !before.covers(&place));
        assert!(!place.covers(&Place::new(&[position(0, 1, 1)])), "another number of partitions");
    }
}
