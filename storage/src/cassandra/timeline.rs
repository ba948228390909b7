//! The timeline table: the messages of a conversation by number, in buckets. It knows nothing of heads: the inbox
//! does.

use std::collections::BTreeMap;

use scylla::DeserializeRow;
use scylla::client::session::Session;
use scylla::statement::prepared::PreparedStatement;
use scylla::value::CqlTimestamp;
use shared::clock::Timestamp;
use shared::ids::{Conversation, Seq};
use shared::message::Message;
use shared::ports::StoreError;
use shared::view::timeline::bucket;
use shared::view::{TimelineChange, TimelineEntry, version};

use super::error;
use super::statement::{Value, Write, bigint, prepare_all, read, unsigned};

pub(super) struct Table {
    put_message: PreparedStatement,
    put_marker: PreparedStatement,
    /// A page within one bucket: the driver knows its partition, and asks a node that has it.
    select_in_one: PreparedStatement,
    /// A page that crosses into the next bucket.
    select_in_several: PreparedStatement,
}

#[derive(DeserializeRow)]
#[scylla(flavor = "enforce_order")]
struct Row<'a> {
    seq: i64,
    id: Option<&'a str>,
    sender: Option<&'a str>,
    content: Option<&'a str>,
    sent_at: Option<CqlTimestamp>,
    parked: Option<bool>,
}

impl Table {
    pub(super) async fn prepare(session: &Session, keyspace: &str) -> Result<Self, StoreError> {
        let put_message = format!(
            "INSERT INTO {keyspace}.timeline (conversation, bucket, seq, id, sender, content, sent_at) \
             VALUES (?, ?, ?, ?, ?, ?, ?) USING TIMESTAMP ?"
        );
        let put_marker = format!(
            "INSERT INTO {keyspace}.timeline (conversation, bucket, seq, parked) VALUES (?, ?, ?, true) \
             USING TIMESTAMP ?"
        );
        let select = format!("SELECT seq, id, sender, content, sent_at, parked FROM {keyspace}.timeline");
        let range = "AND seq >= ? AND seq <= ?";
        let in_one = format!("{select} WHERE conversation = ? AND bucket = ? {range}");
        let in_several = format!("{select} WHERE conversation = ? AND bucket IN ? {range}");
        let [put_message, put_marker, select_in_one, select_in_several] =
            prepare_all(session, [&put_message, &put_marker, &in_one, &in_several]).await?;
        Ok(Self { put_message, put_marker, select_in_one, select_in_several })
    }

    pub(super) async fn read(
        &self,
        session: &Session,
        conversation: &Conversation,
        first: Seq,
        last: Seq,
    ) -> Result<Vec<TimelineEntry>, StoreError> {
        // No number is beyond what CQL holds, so a page there is empty.
        let [first, last] = [first, last].map(|seq| seq.min(i64::MAX.unsigned_abs()));
        let (key, range) = (conversation.to_string(), (bigint(first)?, bigint(last)?));
        let buckets: Vec<_> = (bucket(first)..=bucket(last)).map(bigint).collect::<Result<_, _>>()?;
        let rows = match buckets[..] {
            [] => return Ok(Vec::new()),
            [bucket] => read(session, &self.select_in_one, (key, bucket, range.0, range.1)).await?,
            [..] => read(session, &self.select_in_several, (key, buckets, range.0, range.1)).await?,
        };
        let mut entries = Vec::with_capacity(rows.rows_num());
        for row in rows.rows::<Row<'_>>().map_err(|error| error::unfit(&error))? {
            entries.extend(entry(conversation, &row.map_err(error::damaged)?)?);
        }
        // Descending within a bucket, and buckets in no order.
        entries.sort_unstable_by_key(TimelineEntry::seq);
        Ok(entries)
    }
}

/// What stands in a row; `None` if it is neither a message nor a marker yet.
fn entry(conversation: &Conversation, row: &Row<'_>) -> Result<Option<TimelineEntry>, StoreError> {
    let seq = unsigned(row.seq)?;
    let Some(id) = row.id else {
        return Ok(row.parked.map(|_| TimelineEntry::Parked { seq }));
    };
    let broken = || error::damaged(format_args!("timeline row {seq} of {conversation}"));
    let (Some(sender), Some(content), Some(sent_at)) = (row.sender, row.content, row.sent_at) else {
        return Err(broken());
    };
    let (low, high) = (conversation.low(), conversation.high());
    let (sender, recipient) = match sender {
        sender if sender == low.as_str() => (low, high),
        sender if sender == high.as_str() => (high, low),
        _ => return Err(broken()),
    };
    Ok(Some(TimelineEntry::Message(Message {
        id: id.parse().map_err(|_| broken())?,
        seq,
        sender: sender.clone(),
        recipient: recipient.clone(),
        content: content.to_owned(),
        timestamp: Timestamp(unsigned(sent_at.0)?),
    })))
}

/// What a batch does to the table: for each number its message, or a marker where there is none.
#[derive(Default)]
pub(super) struct Changes<'a>(BTreeMap<Conversation, BTreeMap<Seq, Option<&'a Message>>>);

impl<'a> Changes<'a> {
    pub(super) fn add(&mut self, change: &'a TimelineChange) {
        match change {
            TimelineChange::PutMessage(message) => {
                self.0.entry(message.conversation()).or_default().insert(message.seq, Some(message));
            }
            TimelineChange::PutMarker { conversation, seq } => {
                self.0.entry(conversation.clone()).or_default().entry(*seq).or_default();
            }
        }
    }

    /// The writes, by Cassandra partition.
    pub(super) fn partitions(self, table: &'a Table) -> Result<Vec<Vec<Write<'a>>>, StoreError> {
        let mut partitions = Vec::with_capacity(self.0.len());
        for (conversation, rows) in self.0 {
            let key = conversation.to_string();
            let mut newest = None;
            for (seq, message) in rows {
                if newest.replace(bucket(seq)) != Some(bucket(seq)) {
                    partitions.push(Vec::new());
                }
                let partition = partitions.last_mut().expect("pushed for the first bucket");
                partition.push(table.write(key.clone(), seq, message)?);
            }
        }
        Ok(partitions)
    }
}

impl Table {
    fn write<'a>(
        &'a self,
        key: String,
        seq: Seq,
        message: Option<&'a Message>,
    ) -> Result<Write<'a>, StoreError> {
        let mut values = vec![Value::text(key), Value::big(bucket(seq))?, Value::seq(seq)?];
        let Some(message) = message else {
            values.push(Value::big(version::marker(seq))?);
            return Ok(Write { statement: &self.put_marker, values });
        };
        values.extend([
            Value::text(message.id.to_string()),
            Value::text(message.sender.as_str()),
            Value::text(message.content.as_str()),
            Value::time(message.timestamp)?,
            Value::big(version::effect(seq))?,
        ]);
        Ok(Write { statement: &self.put_message, values })
    }
}
