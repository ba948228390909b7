//! The log of a system as it lies in Redis, past every adapter: read as it is, for comparison with what is visible,
//! and damaged as no command does it.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use serde_json::{Value, json};
use shared::Timestamp;
use shared::limits::PARTITIONS_DEFAULT;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use crate::real::System;

/// Entries that one read of a stream brings.
const ENTRIES_PER_READ: usize = 1_000;

/// What all messages of a conversation come to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sum {
    pub count: u64,
    /// Number of the last one.
    pub head: u64,
    /// Of every one in its order, as clients see it.
    pub digest: u64,
}

impl Sum {
    /// # Panics
    /// When one has no number.
    #[must_use]
    pub fn of(messages: &[Value]) -> Self {
        let mut sum = Self::default();
        messages.iter().for_each(|message| sum.add(message));
        sum
    }

    fn add(&mut self, message: &Value) {
        let mut digest = DefaultHasher::new();
        (self.digest, message.to_string()).hash(&mut digest);
        let head = message["seq"].as_u64().expect("a number");
        *self = Self { count: self.count + 1, head, digest: digest.finish() };
    }
}

impl System {
    /// What the log holds of each conversation, by `low:high`.
    ///
    /// # Panics
    /// When an entry cannot be read.
    pub async fn stored(&self) -> BTreeMap<String, Sum> {
        let (mut redis, mut sums) = (self.redis().await, BTreeMap::<String, Sum>::new());
        for partition in 0..PARTITIONS_DEFAULT {
            let (events, mut first) = (self.key(partition, "events"), "-".to_owned());
            loop {
                let count = ENTRIES_PER_READ.to_string();
                let page = redis.ask(&["XRANGE", &events, &first, "+", "COUNT", &count]).await.array();
                let Some(Reply::Array(last)) = page.last() else { break };
                first = format!("({}", last[0].text());
                for (conversation, message) in page.into_iter().filter_map(message) {
                    sums.entry(conversation).or_default().add(&message);
                }
            }
        }
        sums
    }

    /// Destroys the consumer group of every partition. Returns how many there were.
    pub async fn destroy_groups(&self) -> usize {
        let (mut redis, mut count) = (self.redis().await, 0);
        for partition in 0..PARTITIONS_DEFAULT {
            let destroyed = redis.ask(&["XGROUP", "DESTROY", &self.key(partition, "events"), "g1"]).await;
            count += usize::from(destroyed.text() == "1");
        }
        count
    }

    /// Gives consumers nothing more of a partition; everybody else reads on.
    pub async fn withhold(&self, partition: u16) {
        let (events, end) = (self.key(partition, "events"), format!("{}-0", u64::MAX));
        self.redis().await.ask(&["XGROUP", "SETID", &events, "g1", &end]).await;
    }

    /// As a projector does that finds none, of a partition that has events.
    ///
    /// # Panics
    /// When Redis is away.
    pub async fn make_group(&self, partition: u16, generation: u32) {
        let (events, group) = (self.key(partition, "events"), format!("g{generation}"));
        self.redis().await.ask(&["XGROUP", "CREATE", &events, &group, "0"]).await;
    }

    /// Has the log say that it was repaired once more, as a repair does that is killed right after it.
    ///
    /// # Panics
    /// When Redis is away.
    pub async fn begin_epoch(&self) {
        let (log, mut redis) = (self.key(0, "log"), self.redis().await);
        let epoch = redis.ask(&["HGET", &log, "epoch"]).await.text();
        let (name, repairs) = epoch.split_once('.').unwrap_or((&epoch, "0"));
        let next = format!("{name}.{}", repairs.parse::<u32>().expect("a number") + 1);
        redis.ask(&["HSET", &log, "epoch", &next]).await;
    }

    /// So that Redis has about so much of the memory that it may take in use.
    ///
    /// # Panics
    /// When Redis does not do it.
    pub async fn bound_memory(&self, percent: u64) {
        let mut redis = self.redis().await;
        let info = redis.ask(&["INFO", "memory"]).await.text();
        let used = info.lines().find_map(|line| line.strip_prefix("used_memory:")).expect("what is in use");
        let max = used.trim().parse::<u64>().expect("a number") * 100 / percent;
        redis.ask(&["CONFIG", "SET", "maxmemory", &max.to_string()]).await;
    }

    /// What Redis keeps for a generation: its groups, and keys whose names end with that of the group.
    ///
    /// # Panics
    /// When Redis is away.
    pub async fn kept_in_log_for(&self, generation: u32) -> Vec<String> {
        let (mut redis, group) = (self.redis().await, format!("g{generation}"));
        let pattern = format!("{}*:{group}*", self.services().key_prefix());
        let mut kept: Vec<_> = redis.ask(&["KEYS", &pattern]).await.array().iter().map(Reply::text).collect();
        for partition in 0..PARTITIONS_DEFAULT {
            let stream = self.key(partition, "events");
            if redis.ask(&["EXISTS", &stream]).await.text() == "0" {
                continue;
            }
            let groups = redis.ask(&["XINFO", "GROUPS", &stream]).await.array();
            // Pairs of a name and a value; the first is the group's own name.
            let names = groups.into_iter().map(|group| group.array()[1].text());
            kept.extend(names.filter(|name| *name == group).map(|name| format!("{stream} {name}")));
        }
        kept
    }

    /// A partition's stream under another name: out of the way, or back.
    ///
    /// # Panics
    /// When there is none, or another one in its place.
    pub async fn rename_stream(&self, partition: u16, from: &str, to: &str) {
        let (from, to) = (self.key(partition, from), self.key(partition, to));
        assert_eq!(self.redis().await.ask(&["RENAMENX", &from, &to]).await.text(), "1");
    }

    /// The entries of a partition as they are: id, then names and values.
    pub async fn entries(&self, partition: u16) -> Vec<(String, Vec<Vec<u8>>)> {
        let read = ["XRANGE", &self.key(partition, "events"), "-", "+"];
        let entries = self.redis().await.ask(&read).await.array().into_iter().map(Reply::array);
        entries
            .map(|mut entry| (entry.remove(0).text(), entry.remove(0).array().into_iter().map(Reply::bytes)))
            .map(|(id, fields)| (id, fields.collect()))
            .collect()
    }

    /// Those of these entries that a partition lacks at its end, and its heads, as a human would do it.
    pub async fn put_back(&self, partition: u16, entries: Vec<(String, Vec<Vec<u8>>)>) {
        let (held, mut redis) = (self.entries(partition).await.len(), self.redis().await);
        for (id, fields) in entries.into_iter().skip(held) {
            let header = String::from_utf8_lossy(&fields[1]).into_owned();
            let words: Vec<_> = header.split(' ').collect();
            let add = [b"XADD".to_vec(), self.key(partition, "events").into(), id.into()];
            redis.ask(&[&add[..], &fields].concat()).await;
            let heads = self.key(partition, "heads");
            redis.ask(&["HSET", &heads, words[2], words[5], "#", words[6]]).await;
        }
    }

    pub(crate) fn key(&self, partition: u16, name: &str) -> String {
        format!("{}{{{partition}}}:{name}", self.services().key_prefix())
    }

    pub(crate) async fn redis(&self) -> Redis {
        let address = self.services().redis_url().trim_start_matches("redis://").trim_end_matches('/');
        Redis(BufReader::new(TcpStream::connect(address).await.expect("Redis is there")))
    }
}

/// Of an entry with a message: its conversation, and the message as clients see it.
fn message(entry: Reply) -> Option<(String, Value)> {
    let Reply::Array(entry) = entry else { panic!("not an entry: {entry:?}") };
    let [id, Reply::Array(fields)] = &entry[..] else { panic!("not an entry: {entry:?}") };
    let [_, header, _, payload] = &fields[..] else { panic!("not two fields: {fields:?}") };
    let header = header.text();
    let words: Vec<_> = header.split(' ').collect();
    let conversation = words[2].strip_prefix("c:")?.to_owned();
    let payload: Value = serde_json::from_str(&payload.text()).expect("JSON");
    let at = id.text().split('-').next().and_then(|ms| ms.parse().ok()).expect("milliseconds");
    let message = json!({
        "id": words[3],
        "seq": words[5].parse::<u64>().expect("a number"),
        "sender": payload["sender"],
        "recipient": payload["recipient"],
        "content": payload["content"],
        "timestamp": Timestamp(at).to_string(),
    });
    Some((conversation, message))
}

/// A plain connection.
pub(crate) struct Redis(BufReader<TcpStream>);

#[derive(Debug)]
pub(crate) enum Reply {
    Nil,
    /// A number, a word or a text.
    Text(Vec<u8>),
    Array(Vec<Reply>),
}

impl Reply {
    pub(crate) fn text(&self) -> String {
        let Self::Text(text) = self else { panic!("not a text: {self:?}") };
        String::from_utf8(text.clone()).expect("a text")
    }

    fn bytes(self) -> Vec<u8> {
        let Self::Text(text) = self else { panic!("not a text: {self:?}") };
        text
    }

    fn array(self) -> Vec<Self> {
        let Self::Array(replies) = self else { panic!("not an array: {self:?}") };
        replies
    }
}

impl Redis {
    /// The answer to one command.
    pub(crate) async fn ask<W: AsRef<[u8]>>(&mut self, words: &[W]) -> Reply {
        let mut command = format!("*{}\r\n", words.len()).into_bytes();
        for word in words.iter().map(AsRef::as_ref) {
            command.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
            command.extend_from_slice(word);
            command.extend_from_slice(b"\r\n");
        }
        self.0.write_all(&command).await.expect("it is sent");
        self.reply().await
    }

    async fn reply(&mut self) -> Reply {
        let mut line = String::new();
        self.0.read_line(&mut line).await.expect("an answer");
        let (kind, rest) = line.trim_end().split_at(1);
        match (kind, rest.parse::<usize>()) {
            (":" | "+", _) => Reply::Text(rest.into()),
            ("$" | "*", Err(_)) => Reply::Nil,
            ("$", Ok(length)) => {
                let mut text = vec![0; length + 2];
                self.0.read_exact(&mut text).await.expect("the rest of it");
                text.truncate(length);
                Reply::Text(text)
            }
            ("*", Ok(length)) => {
                let mut replies = Vec::with_capacity(length);
                for _ in 0..length {
                    replies.push(Box::pin(self.reply()).await);
                }
                Reply::Array(replies)
            }
            _ => panic!("{line}"),
        }
    }
}
