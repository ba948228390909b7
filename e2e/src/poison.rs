//! Entries of the log that cannot be applied: planted past every command, looked after as an operator does, and
//! repaired. On the embedded backend through the same code as `projector parked`, which has servers of its own.

use projector::Which;
use serde_json::{Value, json};
use shared::event::{Envelope, Event, MessageSent};
use shared::limits::PARTITIONS_DEFAULT;
use shared::{Clock, Position};
use storage::contract::RawEntry;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use crate::app::{System, TestApp};
use crate::services::Services;

/// A planted entry, and the offset that it was given.
#[derive(Debug, Clone)]
pub struct Planted {
    entry: RawEntry,
    offset: u64,
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
                system.store().put_raw(entry.clone()).await.expect("it is put");
                Planted { entry, offset: 0 }
            }
            System::Real(system) => plant(system.services(), entry).await,
        }
    }

    /// As if it had never been spoilt. Everything must be applied or parked.
    pub async fn repair(&self, planted: Planted, position: Position) {
        let Planted { entry, offset } = planted;
        match self.system() {
            System::Embedded(system) => {
                system.store().repair_raw(position, entry).await.expect("it is repaired");
            }
            System::Real(system) => repair(system.services(), entry, offset, position).await,
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

/// `{prefix}{p}:` of the keys of an entry's partition.
fn keys(services: &Services, entry: &RawEntry) -> String {
    format!("{}{{{}}}:", services.key_prefix(), entry.subject.partition(PARTITIONS_DEFAULT))
}

/// The two fields of an entry: header and payload.
fn fields(entry: RawEntry, offset: u64) -> [String; 2] {
    let RawEntry { subject: _, envelope, seq, checksum_flipped } = entry;
    let checksum = envelope.checksum(seq, offset) ^ checksum_flipped;
    let Envelope { version, kind, subject, id, payload, trace: _ } = envelope;
    [format!("{version} {kind} {subject} {id} - {seq} {offset} {checksum:08x}"), payload]
}

async fn plant(services: &Services, entry: RawEntry) -> Planted {
    let keys = keys(services, &entry);
    let (events, heads) = (format!("{keys}events"), format!("{keys}heads"));
    let (subject, seq) = (entry.subject.to_string(), entry.seq.to_string());
    let offset = redis(services, &["HINCRBY", &heads, "#", "1"]).await.parse().expect("an offset");
    redis(services, &["HSET", &heads, &subject, &seq]).await;
    let [header, payload] = fields(entry.clone(), offset);
    redis(services, &["XADD", &events, "*", "e", &header, "p", &payload]).await;
    Planted { entry, offset }
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

async fn repair(services: &Services, entry: RawEntry, offset: u64, position: Position) {
    let events = format!("{}events", keys(services, &entry));
    let id = format!("{}-{}", position.ms, position.counter);
    let [header, payload] = fields(RawEntry { checksum_flipped: 0, ..entry }, offset);
    redis(services, &["EVAL", REPAIR, "1", &events, &id, &header, &payload]).await;
}

/// The answer to one command: a number, a word or a text.
async fn redis(services: &Services, words: &[&str]) -> String {
    let address = services.redis_url().trim_start_matches("redis://").trim_end_matches('/');
    let mut stream = BufReader::new(TcpStream::connect(address).await.expect("Redis is there"));
    let mut command = format!("*{}\r\n", words.len());
    for word in words {
        command += &format!("${}\r\n{word}\r\n", word.len());
    }
    stream.write_all(command.as_bytes()).await.expect("it is sent");
    let mut line = String::new();
    stream.read_line(&mut line).await.expect("an answer");
    let (kind, rest) = line.trim_end().split_at(1);
    match kind {
        ":" | "+" => rest.to_owned(),
        "$" => {
            let mut text = vec![0; rest.parse().expect("a length")];
            stream.read_exact(&mut text).await.expect("the rest of it");
            String::from_utf8(text).expect("a text")
        }
        _ => panic!("{words:?}: {line}"),
    }
}
