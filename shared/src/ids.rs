//! Names, ids and subjects. Every value here is checked when it is made: keys and statements are built from
//! these types only, so nothing a client wrote reaches a store unchecked.

use std::fmt;
use std::num::NonZeroU128;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize, Serializer};
pub use ulid::Ulid;

use crate::limits::{USERNAME_CHARS_MAX, USERNAME_CHARS_MIN};

/// The position of an event within its subject: 1, 2, 3, … without holes.
pub type Seq = u64;

/// The name of a user: 2–32 of `a–z 0–9 _ . -`, starting with a letter or digit, in lower case. Clones share it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(try_from = "String")]
pub struct Username(Arc<str>);

/// Why a text is not a [`Username`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "a username is {USERNAME_CHARS_MIN} to {USERNAME_CHARS_MAX} of A-Z a-z 0-9 _ . - and starts with a letter or digit"
)]
pub struct InvalidUsername;

impl Username {
    /// Folds to lower case and checks.
    ///
    /// # Errors
    /// [`InvalidUsername`] for any text that cannot be a name.
    pub fn new(text: &str) -> Result<Self, InvalidUsername> {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
        let bytes = text.as_bytes();
        let fits = (USERNAME_CHARS_MIN..=USERNAME_CHARS_MAX).contains(&bytes.len());
        if !fits || !bytes[0].is_ascii_alphanumeric() || !bytes.iter().copied().all(allowed) {
            return Err(InvalidUsername);
        }
        let mut lower = [0; USERNAME_CHARS_MAX];
        let lower = &mut lower[..bytes.len()];
        lower.copy_from_slice(bytes);
        lower.make_ascii_lowercase();
        Ok(Self(std::str::from_utf8(lower).expect("all of it is ASCII").into()))
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Username {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Username {
    type Err = InvalidUsername;
    fn from_str(text: &str) -> Result<Self, InvalidUsername> {
        Self::new(text)
    }
}

impl TryFrom<String> for Username {
    type Error = InvalidUsername;
    fn try_from(text: String) -> Result<Self, InvalidUsername> {
        Self::new(&text)
    }
}

impl From<Username> for String {
    fn from(name: Username) -> Self {
        name.as_str().to_owned()
    }
}

/// Every message has two, so nothing is copied for it.
impl Serialize for Username {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

/// The id of an event. For a message it is the message's id, which a client may choose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct EventId(pub Ulid);

/// Why a text is not an [`EventId`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an id is a ULID: 26 characters of Crockford's base 32, in upper case")]
pub struct InvalidEventId;

impl EventId {
    /// Milliseconds since the Unix epoch, as its maker's clock gave them.
    #[must_use]
    pub fn timestamp_ms(self) -> u64 {
        self.0.timestamp_ms()
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for EventId {
    type Err = InvalidEventId;
    /// Accepts the canonical form only, so that one id has one spelling.
    fn from_str(text: &str) -> Result<Self, InvalidEventId> {
        let id = Ulid::from_string(text).map_err(|_| InvalidEventId)?;
        if id.array_to_str(&mut [0; ulid::ULID_LEN]) == text { Ok(Self(id)) } else { Err(InvalidEventId) }
    }
}

/// What ties together whatever one request caused, over all programs (W3C Trace Context). Never zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceId(NonZeroU128);

/// Why something is not a [`TraceId`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a trace id is 32 of 0-9 a-f, and not only zeros")]
pub struct InvalidTraceId;

impl TraceId {
    /// # Errors
    /// [`InvalidTraceId`] for zeros.
    pub fn from_bytes(bytes: [u8; 16]) -> Result<Self, InvalidTraceId> {
        NonZeroU128::new(u128::from_be_bytes(bytes)).map(Self).ok_or(InvalidTraceId)
    }

    #[must_use]
    pub fn to_bytes(self) -> [u8; 16] {
        self.0.get().to_be_bytes()
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl FromStr for TraceId {
    type Err = InvalidTraceId;
    /// Accepts one spelling only, as [`fmt::Display`] writes it.
    fn from_str(text: &str) -> Result<Self, InvalidTraceId> {
        let allowed = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        if text.len() != 32 || !text.bytes().all(allowed) {
            return Err(InvalidTraceId);
        }
        let number = u128::from_str_radix(text, 16).map_err(|_| InvalidTraceId)?;
        Self::from_bytes(number.to_be_bytes())
    }
}

/// A trace as an event carries it: `0af7651916cd43dd8448eb211c80319c`, and with `-01` behind it one that is sampled,
/// as `traceparent` ends then.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Trace {
    pub id: TraceId,
    /// Whether the client has it recorded. Not of an event from before this was stored.
    pub is_sampled: bool,
}

const SAMPLED: &str = "-01";

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.id, if self.is_sampled { SAMPLED } else { "" })
    }
}

impl FromStr for Trace {
    type Err = InvalidTraceId;
    /// Accepts one spelling only, as [`fmt::Display`] writes it.
    fn from_str(text: &str) -> Result<Self, InvalidTraceId> {
        let sampled = text.strip_suffix(SAMPLED);
        Ok(Self { id: sampled.unwrap_or(text).parse()?, is_sampled: sampled.is_some() })
    }
}

impl TryFrom<String> for Trace {
    type Error = InvalidTraceId;
    fn try_from(text: String) -> Result<Self, InvalidTraceId> {
        text.parse()
    }
}

impl From<Trace> for String {
    fn from(trace: Trace) -> Self {
        trace.to_string()
    }
}

/// A conversation of two: the sorted pair of their names.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Conversation {
    low: Username,
    high: Username,
}

impl Conversation {
    /// `None` when both are the same user.
    #[must_use]
    pub fn between(one: &Username, other: &Username) -> Option<Self> {
        match one.cmp(other) {
            std::cmp::Ordering::Less => Some(Self { low: one.clone(), high: other.clone() }),
            std::cmp::Ordering::Greater => Some(Self { low: other.clone(), high: one.clone() }),
            std::cmp::Ordering::Equal => None,
        }
    }

    #[must_use]
    pub fn low(&self) -> &Username {
        &self.low
    }

    #[must_use]
    pub fn high(&self) -> &Username {
        &self.high
    }

    #[must_use]
    pub fn has(&self, user: &Username) -> bool {
        self.low == *user || self.high == *user
    }
}

/// `low:high`; no name holds a colon.
impl fmt::Display for Conversation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.low, self.high)
    }
}

/// Why a text is not a [`Conversation`] or a [`Subject`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a subject")]
pub struct InvalidSubject;

impl FromStr for Conversation {
    type Err = InvalidSubject;
    fn from_str(text: &str) -> Result<Self, InvalidSubject> {
        let (low, high) = text.split_once(':').ok_or(InvalidSubject)?;
        let pair = Self::between(
            &low.parse().map_err(|_| InvalidSubject)?,
            &high.parse().map_err(|_| InvalidSubject)?,
        );
        pair.filter(|conversation| conversation.to_string() == text).ok_or(InvalidSubject)
    }
}

/// What an event is about and numbered in.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Subject {
    User(Username),
    Conversation(Conversation),
}

impl Subject {
    /// The partition that holds this subject: always the same one for a given number of partitions.
    /// CRC-32 of the subject's text, modulo `partitions`; stored logs depend on it.
    #[must_use]
    pub fn partition(&self, partitions: u16) -> u16 {
        let hash = crc32fast::hash(self.to_string().as_bytes());
        u16::try_from(hash % u32::from(partitions)).expect("a remainder is below its divisor")
    }
}

/// `u:name` or `c:low:high`.
impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User(name) => write!(f, "u:{name}"),
            Self::Conversation(pair) => write!(f, "c:{pair}"),
        }
    }
}

impl FromStr for Subject {
    type Err = InvalidSubject;
    fn from_str(text: &str) -> Result<Self, InvalidSubject> {
        match text.split_once(':') {
            Some(("u", name)) => {
                let user: Username = name.parse().map_err(|_| InvalidSubject)?;
                if user.as_str() == name { Ok(Self::User(user)) } else { Err(InvalidSubject) }
            }
            Some(("c", pair)) => Ok(Self::Conversation(pair.parse()?)),
            _ => Err(InvalidSubject),
        }
    }
}

/// Where an event lies in the log: a partition, and an entry id that rises within it. An entry id is what
/// Redis Streams gives: milliseconds, then a counter within the millisecond.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Position {
    pub partition: u16,
    pub ms: u64,
    pub counter: u64,
}

/// `partition/ms-counter`.
impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}-{}", self.partition, self.ms, self.counter)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a position looks like 3/1795339800125-0: partition, milliseconds, counter")]
pub struct InvalidPosition;

impl FromStr for Position {
    type Err = InvalidPosition;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let read = || {
            let (partition, entry) = text.split_once('/')?;
            let (ms, counter) = entry.split_once('-')?;
            let (partition, ms) = (partition.parse().ok()?, ms.parse().ok()?);
            Some(Self { partition, ms, counter: counter.parse().ok()? })
        };
        // Only in the one spelling that is written.
        read().filter(|position| position.to_string() == text).ok_or(InvalidPosition)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usernames() {
        let longest = "a".repeat(32);
        for (text, name) in
            [("samer", Some("samer")), ("Samer", Some("samer")), ("a1", Some("a1")), ("0-._", Some("0-._"))]
                .into_iter()
                .chain([(longest.as_str(), Some(longest.as_str()))])
        {
            assert_eq!(Username::new(text).ok().as_ref().map(Username::as_str), name, "{text}");
        }
        for text in
            ["", "a", "_ab", ".ab", "-ab", "a b", "a:b", "a\0b", "a\r\nb", "é1", "ab\u{7f}", &"a".repeat(33)]
        {
            assert_eq!(Username::new(text), Err(InvalidUsername), "{text:?}");
        }
    }

    #[test]
    fn a_position_has_one_spelling() {
        let position = Position { partition: 3, ms: 1_795_339_800_125, counter: 7 };
        assert_eq!(position.to_string().parse(), Ok(position));
        for text in
            ["", "3", "3/1", "3/1-", "/1-0", "3/-1-0", "+3/1-0", "03/1-0", "65536/1-0", "3/1-0 ", "3-1/0"]
        {
            assert_eq!(text.parse::<Position>(), Err(InvalidPosition), "{text}");
        }
    }

    #[test]
    fn an_id_has_one_spelling() {
        let id = "01JD0000000000000000000000";
        assert_eq!(id.parse::<EventId>().unwrap().to_string(), id);
        for text in [
            "01jd0000000000000000000000",
            "01JD000000000000000000000",
            "01JD000000000000000000000O",
            "81JD0000000000000000000000",
            "",
            "x",
        ] {
            assert_eq!(text.parse::<EventId>(), Err(InvalidEventId), "{text:?}");
        }
    }

    #[test]
    fn a_trace_id_has_one_spelling() {
        let id = "0af7651916cd43dd8448eb211c80319c";
        assert_eq!(id.parse::<TraceId>().unwrap().to_string(), id);
        let zeros = "0".repeat(32);
        for text in ["", "1", "0AF7651916CD43DD8448EB211C80319C", "+af7651916cd43dd8448eb211c80319c", &zeros]
        {
            assert_eq!(text.parse::<TraceId>(), Err(InvalidTraceId), "{text:?}");
        }
        for (text, is_sampled) in [(id.to_owned(), false), (format!("{id}-01"), true)] {
            let trace: Trace = text.parse().unwrap();
            assert_eq!((trace.is_sampled, trace.to_string()), (is_sampled, text));
        }
        for text in ["-01", "0-01", &format!("{id}-"), &format!("{id}-00"), &format!("{id}-01-01")] {
            assert_eq!(text.parse::<Trace>(), Err(InvalidTraceId), "{text:?}");
        }
    }

    #[test]
    fn subjects_round_trip() {
        for text in ["u:samer", "c:lena:samer"] {
            assert_eq!(text.parse::<Subject>().unwrap().to_string(), text);
        }
        for text in ["", "u:", "u:Samer", "c:samer:lena", "c:lena:lena", "c:lena", "x:lena", "c:lena:samer:x"]
        {
            assert_eq!(text.parse::<Subject>(), Err(InvalidSubject), "{text:?}");
        }
    }

    #[test]
    fn partitions_never_move() {
        let of = |text: &str| text.parse::<Subject>().unwrap().partition(16);
        assert_eq!([of("u:samer"), of("u:bob"), of("c:bob:carol")], [1, 5, 8]);
    }
}
