//! XREADGROUP → batches of the bare driver → XACK. It writes the rows that a projector writes, with the statements
//! and the versions of a projector, and batches them as well as it can: by Cassandra partition, small ones together,
//! rows of inboxes collapsed to the last. The next page is read while one is written.
//!
//! It checks nothing, parks nothing, tells nobody, takes nothing over, and gives up at the first error.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::pin::Pin;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args;
use futures_util::{StreamExt, TryStreamExt, stream};
use redis::AsyncConnectionConfig;
use redis::aio::MultiplexedConnection;
use scylla::client::PoolSize;
use scylla::client::execution_profile::ExecutionProfile;
use scylla::client::session::Session;
use scylla::client::session_builder::SessionBuilder;
use scylla::serialize::row::SerializeRow;
use scylla::statement::Consistency;
use scylla::statement::batch::{Batch, BatchStatement, BatchType};
use scylla::statement::prepared::PreparedStatement;
use scylla::value::CqlTimestamp;
use serde::Deserialize;
use shared::limits::{BATCH_BYTES_MAX, BATCH_STATEMENTS_MAX, BUCKET_MESSAGES, PARTITIONS_DEFAULT};
use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;

const GROUP: &str = "bare";
/// Entries of each stream per read.
const COUNT: usize = 500;
/// Pages read ahead.
const PAGES_AHEAD: usize = 1;
/// Where Cassandra's rate of batches peaks.
const BATCHES_IN_FLIGHT: usize = 32;
const CONNECTIONS: usize = 2;
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// While there is nothing to read.
const BLOCK_MS: usize = 1_000;
/// Of a row beside its texts.
const ROW_BYTES: usize = 100;

#[derive(Debug, Clone, Args)]
pub(crate) struct Drain {
    #[arg(long)]
    redis_url: String,
    #[arg(long)]
    key_prefix: String,
    #[arg(long)]
    cassandra_node: String,
    /// Of the views.
    #[arg(long)]
    keyspace: String,
}

/// Drains until the process is killed.
pub(super) async fn run(drain: &Drain) -> Result<()> {
    let streams: Vec<String> = (0..PARTITIONS_DEFAULT)
        .map(|partition| format!("{}{{{partition}}}:events", drain.key_prefix))
        .collect();
    let tables = Tables::prepare(&drain.cassandra_node, &drain.keyspace).await?;
    let mut acks = connect(&drain.redis_url).await?;
    let mut groups = redis::pipe();
    for stream in &streams {
        groups.cmd("XGROUP").arg("CREATE").arg(stream).arg(GROUP).arg("0").ignore();
    }
    groups.exec_async(&mut acks).await.context("making the groups")?;

    let (sender, mut pages) = mpsc::channel(PAGES_AHEAD);
    let reading = TaskTracker::new().spawn(read(connect(&drain.redis_url).await?, streams, sender));
    while let Some(mut page) = pages.recv().await {
        tables.write(&mut page.messages).await?;
        page.acks.exec_async(&mut acks).await?;
    }
    reading.await?
}

async fn connect(url: &str) -> Result<MultiplexedConnection> {
    let config = AsyncConnectionConfig::new().set_response_timeout(None);
    Ok(redis::Client::open(url)?.get_multiplexed_async_connection_with_config(&config).await?)
}

struct Page {
    messages: Vec<Message>,
    acks: redis::Pipeline,
}

/// A message as its rows hold it.
struct Message {
    conversation: String,
    seq: i64,
    id: String,
    sender: String,
    recipient: String,
    content: String,
    sent_at: CqlTimestamp,
}

type Streams = Vec<(String, Vec<(String, Vec<Vec<u8>>)>)>;

async fn read(
    mut connection: MultiplexedConnection,
    streams: Vec<String>,
    pages: mpsc::Sender<Page>,
) -> Result<()> {
    let mut command = redis::cmd("XREADGROUP");
    command.arg("GROUP").arg(GROUP).arg(GROUP).arg("COUNT").arg(COUNT).arg("BLOCK").arg(BLOCK_MS);
    command.arg("STREAMS").arg(&streams).arg(vec![">"; streams.len()]);
    loop {
        let answer: Option<Streams> = command.query_async(&mut connection).await?;
        let mut page = Page { messages: Vec::new(), acks: redis::pipe() };
        for (stream, entries) in answer.unwrap_or_default() {
            let ack = page.acks.cmd("XACK").arg(stream).arg(GROUP);
            for (id, fields) in entries {
                page.messages.push(Message::of(&id, &fields)?);
                ack.arg(id);
            }
            ack.ignore();
        }
        if !page.messages.is_empty() && pages.send(page).await.is_err() {
            return Ok(());
        }
    }
}

impl Message {
    /// Of the fields `e` (version, type, subject, id, trace, seq, offset, checksum) and `p` (JSON).
    fn of(entry: &str, fields: &[Vec<u8>]) -> Result<Self> {
        #[derive(Deserialize)]
        struct Payload {
            sender: String,
            recipient: String,
            content: String,
        }
        let [_, header, _, payload] = fields else { bail!("entry {entry} has {} words", fields.len()) };
        let words: Vec<&str> = std::str::from_utf8(header)?.split(' ').collect();
        let [_, "MessageSent", subject, id, _, seq, ..] = words[..] else {
            bail!("entry {entry} is no message")
        };
        let Payload { sender, recipient, content } = serde_json::from_slice(payload)?;
        let ms = entry.split('-').next().context("an id")?;
        Ok(Self {
            conversation: subject.strip_prefix("c:").context("a conversation")?.to_owned(),
            seq: seq.parse()?,
            id: id.to_owned(),
            sender,
            recipient,
            content,
            sent_at: CqlTimestamp(ms.parse()?),
        })
    }

    fn bucket(&self) -> i64 {
        self.seq / BUCKET_MESSAGES.cast_signed()
    }

    fn version(&self) -> i64 {
        2 * self.seq
    }

    fn bytes(&self) -> usize {
        ROW_BYTES + 2 * self.conversation.len() + self.id.len() + self.content.len()
    }
}

/// What a page does to the row of one user with another.
#[derive(Default)]
struct InboxRow<'a> {
    last: Option<&'a Message>,
    own: Option<&'a Message>,
}

struct Tables {
    session: Session,
    put_message: PreparedStatement,
    put_last: PreparedStatement,
    put_own_last: PreparedStatement,
    put_own_seq: PreparedStatement,
}

/// With the settings of the system.
pub(super) async fn session(node: &str) -> Result<Session> {
    let profile = ExecutionProfile::builder()
        .consistency(Consistency::Quorum)
        .request_timeout(Some(WRITE_TIMEOUT))
        .build();
    let connections = NonZeroUsize::new(CONNECTIONS).context("a constant above 0")?;
    let session = SessionBuilder::new()
        .known_node(node)
        .default_execution_profile_handle(profile.into_handle())
        .pool_size(PoolSize::PerHost(connections))
        .fetch_full_schema_metadata(false);
    Ok(session.build().await?)
}

type Write<'a> = Pin<Box<dyn Future<Output = Result<()>> + Send + 'a>>;

impl Tables {
    async fn prepare(node: &str, keyspace: &str) -> Result<Self> {
        let session = session(node).await?;
        let insert = |table: &str, columns: &str| {
            let values = "?, ".repeat(columns.split(", ").count());
            let values = values.trim_end_matches(", ");
            format!("INSERT INTO {keyspace}.{table} ({columns}) VALUES ({values}) USING TIMESTAMP ?")
        };
        let message = insert("timeline", "conversation, bucket, seq, id, sender, content, sent_at");
        let last = insert("inbox", "owner, peer, seq, id, sender, content, sent_at");
        let own_last = insert("inbox", "owner, peer, seq, id, sender, content, sent_at, own_seq");
        let own_seq = insert("inbox", "owner, peer, own_seq");
        Ok(Self {
            put_message: session.prepare(message).await?,
            put_last: session.prepare(last).await?,
            put_own_last: session.prepare(own_last).await?,
            put_own_seq: session.prepare(own_seq).await?,
            session,
        })
    }

    async fn write(&self, messages: &mut [Message]) -> Result<()> {
        messages.sort_unstable_by(|one, other| {
            (&one.conversation, one.seq).cmp(&(&other.conversation, other.seq))
        });
        let mut writes = self.timeline(messages);
        writes.extend(self.inbox(messages));
        stream::iter(writes).buffer_unordered(BATCHES_IN_FLIGHT).try_collect().await
    }

    fn timeline<'a>(&'a self, messages: &'a [Message]) -> Vec<Write<'a>> {
        let same_partition = |one: &Message, next: &Message| {
            one.conversation == next.conversation && one.bucket() == next.bucket()
        };
        let row = |message: &'a Message| {
            let Message { conversation, seq, id, sender, content, sent_at, .. } = message;
            (conversation, message.bucket(), seq, id, sender, content, sent_at, message.version())
        };
        let partitions = messages.chunk_by(same_partition);
        let partitions =
            partitions.map(|rows| rows.iter().map(|message| (row(message), message.bytes())).collect());
        self.batches(&self.put_message, pack(partitions))
    }

    fn inbox<'a>(&'a self, messages: &'a [Message]) -> Vec<Write<'a>> {
        let mut rows: BTreeMap<(&str, &str), InboxRow<'a>> = BTreeMap::new();
        for message in messages {
            // By number within a conversation, so the last one stays.
            let (sender, recipient) = (message.sender.as_str(), message.recipient.as_str());
            let own = rows.entry((sender, recipient)).or_default();
            (own.last, own.own) = (Some(message), Some(message));
            rows.entry((recipient, sender)).or_default().last = Some(message);
        }
        let (mut last, mut own_last, mut own_seq) = (Vec::new(), Vec::new(), Vec::new());
        for ((owner, peer), row) in rows {
            let Some(message) = row.last else { continue };
            let Message { seq, id, sender, content, sent_at, .. } = message;
            let bytes = message.bytes();
            match row.own {
                Some(own) if own.seq == *seq => {
                    let row = (owner, peer, seq, id, sender, content, sent_at, seq, message.version());
                    own_last.push((row, bytes));
                    continue;
                }
                Some(own) => own_seq.push(((owner, peer, &own.seq, own.version()), ROW_BYTES)),
                None => {}
            }
            last.push(((owner, peer, seq, id, sender, content, sent_at, message.version()), bytes));
        }
        let mut writes = self.batches(&self.put_last, pack(alone(last)));
        writes.extend(self.batches(&self.put_own_last, pack(alone(own_last))));
        writes.extend(self.batches(&self.put_own_seq, pack(alone(own_seq))));
        writes
    }

    fn batches<'a, Row: SerializeRow + Send + Sync + 'a>(
        &'a self,
        statement: &'a PreparedStatement,
        batches: Vec<Vec<Row>>,
    ) -> Vec<Write<'a>> {
        batches.into_iter().map(|rows| Box::pin(self.send(statement, rows)) as Write<'a>).collect()
    }

    async fn send<Row: SerializeRow>(&self, statement: &PreparedStatement, rows: Vec<Row>) -> Result<()> {
        let statements = vec![BatchStatement::from(statement.clone()); rows.len()];
        let batch = Batch::new_with_statements(BatchType::Unlogged, statements);
        self.session.batch(&batch, rows).await?;
        Ok(())
    }
}

/// Rows of one owner follow each other, but there are few of each: they may be cut anywhere.
fn alone<Row>(rows: Vec<Row>) -> impl Iterator<Item = Vec<Row>> {
    rows.into_iter().map(|row| vec![row])
}

/// Fills batches with whole partitions; one that is larger than a batch is cut.
fn pack<Row>(partitions: impl Iterator<Item = Vec<(Row, usize)>>) -> Vec<Vec<Row>> {
    let (mut full, mut filling, mut filled) = (Vec::new(), Vec::new(), 0);
    for partition in partitions {
        let bytes: usize = partition.iter().map(|(_, bytes)| bytes).sum();
        let fits = |rows: usize, filled: usize, bytes: usize, more: usize| {
            rows + more <= BATCH_STATEMENTS_MAX && filled + bytes <= BATCH_BYTES_MAX
        };
        if !fits(filling.len(), filled, bytes, partition.len()) {
            full.push(std::mem::take(&mut filling));
            filled = 0;
        }
        for (row, bytes) in partition {
            if !fits(filling.len(), filled, bytes, 1) {
                full.push(std::mem::take(&mut filling));
                filled = 0;
            }
            filling.push(row);
            filled += bytes;
        }
    }
    full.push(filling);
    full.retain(|rows| !rows.is_empty());
    full
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_are_cut_only_where_they_must_be() {
        let of = |partitions: &[usize]| -> Vec<usize> {
            let rows = partitions.iter().map(|rows| vec![((), 10); *rows]);
            pack(rows).iter().map(Vec::len).collect()
        };
        assert_eq!(of(&[]), [0; 0]);
        assert_eq!(of(&[60, 40, 1]), [100, 1]);
        assert_eq!(of(&[60, 60]), [60, 60]);
        assert_eq!(of(&[250, 50]), [100, 100, 100]);
        let large = [vec![((), BATCH_BYTES_MAX - 1)], vec![((), 2)]];
        assert_eq!(pack(large.into_iter()).len(), 2);
    }

    #[test]
    fn a_message_is_read_from_its_entry() {
        let fields = ["e", "1 MessageSent c:anna:ben 01X - 12007 9 0badcafe", "p"];
        let payload = r#"{"sender":"ben","recipient":"anna","content":"\"hi\""}"#;
        let fields: Vec<Vec<u8>> = fields.into_iter().chain([payload]).map(|word| word.into()).collect();
        let message = Message::of("1700-3", &fields).unwrap();
        assert_eq!((message.conversation.as_str(), message.seq, message.bucket()), ("anna:ben", 12_007, 2));
        assert_eq!((message.content.as_str(), message.sent_at.0), ("\"hi\"", 1_700));
        assert!(Message::of("1-1", &fields[..2]).is_err());
    }
}
