//! Entries of the log that cannot be applied: planted past every command, looked after as an operator does, and
//! repaired. On the embedded backend through the same code as `projector parked`, which has servers of its own.

use projector::Which;
use serde_json::{Value, json};
use shared::event::{Envelope, Event, MessageSent};
use shared::limits::PARTITIONS_DEFAULT;
use shared::ports::FeedMonitor;
use shared::{Clock, Position};
use storage::contract::RawEntry;

use crate::app::{System, TestApp};
use crate::real;

/// Where an entry was planted.
#[derive(Debug, Clone)]
pub struct Planted {
    offset: u64,
    /// `None` on the embedded backend, whose offsets are positions too.
    position: Option<Position>,
}

impl Planted {
    #[must_use]
    pub fn is_at(&self, position: Position) -> bool {
        self.position.map_or(position.counter == self.offset, |own| own == position)
    }
}

/// An entry as it lies in Redis, before it is spoilt in a way that no envelope can be.
#[derive(Debug, Clone)]
pub struct Fields {
    /// Version, type, subject, id, trace, seq, offset, checksum.
    pub words: Vec<Vec<u8>>,
    pub payload: Vec<u8>,
}

impl Fields {
    fn of(entry: RawEntry, offset: u64) -> Self {
        let RawEntry { subject: _, envelope, seq, checksum_flipped } = entry;
        let checksum = envelope.checksum(seq, offset) ^ checksum_flipped;
        let Envelope { version, kind, subject, id, payload, trace: _ } = envelope;
        let words = [
            version.to_string(),
            kind,
            subject,
            id,
            "-".to_owned(),
            seq.to_string(),
            offset.to_string(),
            format!("{checksum:08x}"),
        ];
        Self { words: words.map(String::into_bytes).into(), payload: payload.into_bytes() }
    }

    #[must_use]
    pub fn header(&self) -> Vec<u8> {
        self.words.join(&b' ')
    }

    /// Names and values, as they are stored when nothing is wrong.
    #[must_use]
    pub fn stored(&self) -> Vec<Vec<u8>> {
        vec![b"e".to_vec(), self.header(), b"p".to_vec(), self.payload.clone()]
    }
}

/// A message as it would be stored, to be spoilt.
#[must_use]
pub fn poison(sender: &str, recipient: &str, seq: u64, content: &str) -> RawEntry {
    let name = |text: &str| text.parse().expect("a user's name");
    let sent = MessageSent { sender: name(sender), recipient: name(recipient), content: content.to_owned() };
    let event = Event::MessageSent(sent);
    let envelope = Envelope::seal(Clock::system().new_id(), &event, None);
    RawEntry { subject: event.subject(), envelope, seq, checksum_flipped: 0 }
}

impl TestApp {
    /// Nothing else may be appended meanwhile.
    pub async fn plant(&self, entry: RawEntry) -> Planted {
        match self.system() {
            System::Embedded(system) => {
                system.store().put_raw(entry).await.expect("it is put");
                let status = system.store().status().await.expect("a status");
                Planted { offset: status.partitions[0].head, position: None }
            }
            System::Real(_) => self.plant_fields(entry, |fields| fields.stored()).await,
        }
    }

    /// The same, with the fields that `spoil` makes of it. Redis only.
    pub async fn plant_fields(&self, entry: RawEntry, spoil: impl FnOnce(Fields) -> Vec<Vec<u8>>) -> Planted {
        let system = self.processes();
        let partition = entry.subject.partition(PARTITIONS_DEFAULT);
        let (events, heads) = (system.key(partition, "events"), system.key(partition, "heads"));
        let (mut redis, subject, seq) =
            (system.redis().await, entry.subject.to_string(), entry.seq.to_string());
        let offset = redis.ask(&["HINCRBY", &heads, "#", "1"]).await.text().parse().expect("an offset");
        redis.ask(&["HSET", &heads, &subject, &seq]).await;
        let add = [b"XADD".to_vec(), events.into_bytes(), b"*".to_vec()];
        let id = redis.ask(&[&add[..], &spoil(Fields::of(entry, offset))].concat()).await.text();
        Planted { offset, position: Some(format!("{partition}/{id}").parse().expect("a position")) }
    }

    /// Puts the entry that should have been there. Everything must be applied or parked.
    pub async fn repair(&self, planted: &Planted, position: Position, entry: RawEntry) {
        match self.system() {
            System::Embedded(system) => {
                system.store().repair_raw(position, entry).await.expect("it is repaired");
            }
            System::Real(system) => repair(system, planted, position, entry).await,
        }
    }

    /// `projector parked list --json`.
    pub async fn parked(&self) -> Vec<Value> {
        let listing = match self.system() {
            System::Embedded(system) => {
                json!(system.parked().list(&Which::All, None, 1_000).await.expect("a list"))
            }
            System::Real(_) => self.parked_command(&["list", "--limit", "1000"]).await,
        };
        listing["parked"].as_array().expect("a list").clone()
    }

    /// `projector parked retry --json`.
    pub async fn retry_parked(&self, which: Which) -> Value {
        match self.system() {
            System::Embedded(system) => json!(system.parked().retry(&which).await.expect("a retry")),
            System::Real(_) => {
                let which = flags(which);
                self.parked_command(&[&["retry"], &which.each_ref().map(String::as_str)[..]].concat()).await
            }
        }
    }

    /// `projector parked discard --yes`.
    pub async fn discard_parked(&self, which: Which) {
        match self.system() {
            System::Embedded(system) => {
                system.parked().discard(&which).await.expect("they are discarded");
            }
            System::Real(_) => {
                let which = flags(which);
                let which = which.each_ref().map(String::as_str);
                self.parked_command(&[&["discard", "--yes"], &which[..]].concat()).await;
            }
        }
    }

    async fn parked_command(&self, arguments: &[&str]) -> Value {
        let output = self.processes().parked(&[arguments, &["--json"]].concat()).await;
        let text = String::from_utf8_lossy(&output.stdout);
        serde_json::from_str(&text)
            .unwrap_or_else(|error| panic!("{error}: {text}{}", String::from_utf8_lossy(&output.stderr)))
    }
}

fn flags(which: Which) -> [String; 1] {
    [match which {
        Which::One(position) => position.to_string(),
        Which::Cause(text) => format!("--cause={text}"),
        Which::All => "--all".to_owned(),
    }]
}

/// A stream takes no entry before its last one: all are put anew.
const REPAIR: &str = "
local entries = redis.call('XRANGE', KEYS[1], '-', '+')
redis.call('DEL', KEYS[1])
for _, entry in ipairs(entries) do
  local fields = entry[1] == ARGV[1] and {'e', ARGV[2], 'p', ARGV[3]} or entry[2]
  redis.call('XADD', KEYS[1], entry[1], unpack(fields))
end
redis.call('XGROUP', 'CREATE', KEYS[1], 'g1', '$')
return 1";

async fn repair(system: &real::System, planted: &Planted, position: Position, entry: RawEntry) {
    let events = system.key(position.partition, "events");
    let id = format!("{}-{}", position.ms, position.counter);
    let fields = Fields::of(entry, planted.offset);
    let arguments = ["EVAL", REPAIR, "1", &events, &id].map(|text| text.as_bytes().to_vec());
    let arguments = [&arguments[..], &[fields.header(), fields.payload]].concat();
    system.redis().await.ask(&arguments).await;
}
