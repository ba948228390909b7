//! The inbox table: a user's conversations, one row each. Its cells are of three kinds, each with the version of
//! what it holds: the last message (all its cells are written together, so they never mix), the owner's own last
//! number, and the read mark. A fourth, in the lower name's row, makes parked events count for the head.

use std::collections::{BTreeMap, HashMap};

use scylla::DeserializeRow;
use scylla::client::session::Session;
use scylla::response::PagingState;
use scylla::statement::prepared::PreparedStatement;
use scylla::value::CqlTimestamp;
use shared::clock::Timestamp;
use shared::ids::{Conversation, Seq, Username};
use shared::limits::INBOX_ROWS_PER_REQUEST;
use shared::message::Message;
use shared::ports::StoreError;
use shared::view::{InboxChange, InboxRow, version};

use super::error;
use super::statement::{Value, Write, prepare_all, read, unsigned};

pub(super) struct Table {
    put_last: PreparedStatement,
    /// The last message and the owner's own number at once, where they are the same.
    put_own_last: PreparedStatement,
    put_own_seq: PreparedStatement,
    put_read_mark: PreparedStatement,
    put_parked_seq: PreparedStatement,
    select: PreparedStatement,
    select_head: PreparedStatement,
}

#[derive(DeserializeRow)]
#[scylla(flavor = "enforce_order")]
struct Row<'a> {
    peer: &'a str,
    seq: Option<i64>,
    id: Option<&'a str>,
    sender: Option<&'a str>,
    content: Option<&'a str>,
    sent_at: Option<CqlTimestamp>,
    own_seq: Option<i64>,
    read_mark: Option<i64>,
}

impl Table {
    pub(super) async fn prepare(session: &Session, keyspace: &str) -> Result<Self, StoreError> {
        let put = |cells: &str| {
            let values = ", ?".repeat(cells.split(", ").count());
            format!(
                "INSERT INTO {keyspace}.inbox (owner, peer, {cells}) VALUES (?, ?{values}) USING TIMESTAMP ?"
            )
        };
        let select = format!(
            "SELECT peer, seq, id, sender, content, sent_at, own_seq, read_mark FROM {keyspace}.inbox WHERE owner = ?"
        );
        let head = format!("SELECT seq, parked_seq FROM {keyspace}.inbox WHERE owner = ? AND peer = ?");
        let texts = [
            &put("seq, id, sender, content, sent_at"),
            &put("seq, id, sender, content, sent_at, own_seq"),
            &put("own_seq"),
            &put("read_mark"),
            &put("parked_seq"),
            &*select,
            &*head,
        ];
        let [put_last, put_own_last, put_own_seq, put_read_mark, put_parked_seq, mut select, select_head] =
            prepare_all(session, texts).await?;
        select.set_page_size(i32::try_from(INBOX_ROWS_PER_REQUEST).expect("a constant that fits"));
        Ok(Self { put_last, put_own_last, put_own_seq, put_read_mark, put_parked_seq, select, select_head })
    }

    /// Some of the rows, and where the next begin; `None`: these are the last. Most inboxes are one response, for which
    /// the driver's pager, a task of its own, costs more than the rows.
    pub(super) async fn page(
        &self,
        session: &Session,
        owner: &Username,
        at: PagingState,
    ) -> Result<(Vec<InboxRow>, Option<PagingState>), StoreError> {
        let page = session.execute_single_page(&self.select, (owner.as_str(),), at).await;
        let (page, goes_on) = page.map_err(error::of_read)?;
        let page = page.into_rows_result().map_err(|error| error::unfit(&error))?;
        let mut rows = Vec::with_capacity(page.rows_num());
        for row in page.rows::<Row<'_>>().map_err(|error| error::unfit(&error))? {
            rows.extend(row.map_err(error::damaged)?.open(owner)?);
        }
        Ok((rows, goes_on.into_paging_control_flow().continue_value()))
    }

    /// The highest number in the conversation, of a message or a parked event; 0: none.
    pub(super) async fn head(
        &self,
        session: &Session,
        conversation: &Conversation,
    ) -> Result<Seq, StoreError> {
        let key = (conversation.low().as_str(), conversation.high().as_str());
        let rows = read(session, &self.select_head, key).await?;
        let row = rows.maybe_first_row::<(Option<i64>, Option<i64>)>().map_err(error::damaged)?;
        row.and_then(|(seq, parked)| seq.max(parked)).map_or(Ok(0), unsigned)
    }
}

impl Row<'_> {
    /// `None` where there is nothing but the number of a parked event, which no user sees.
    fn open(self, owner: &Username) -> Result<Option<InboxRow>, StoreError> {
        if self.seq.is_none() && self.read_mark.is_none() {
            return Ok(None);
        }
        let peer: Username = self.peer.parse().map_err(error::damaged)?;
        let own_seq = unsigned(self.own_seq.unwrap_or(0))?;
        let read_mark = unsigned(self.read_mark.unwrap_or(0))?;
        Ok(Some(InboxRow { last: self.last(owner, &peer)?, peer, own_seq, read_mark }))
    }

    fn last(self, owner: &Username, peer: &Username) -> Result<Option<Message>, StoreError> {
        let Some(seq) = self.seq else { return Ok(None) };
        let broken = || error::damaged(format_args!("inbox row of {owner} with {peer}"));
        let (Some(id), Some(sender), Some(content), Some(sent_at)) =
            (self.id, self.sender, self.content, self.sent_at)
        else {
            return Err(broken());
        };
        let (sender, recipient) = if sender == owner.as_str() { (owner, peer) } else { (peer, owner) };
        Ok(Some(Message {
            id: id.parse().map_err(|_| broken())?,
            seq: unsigned(seq)?,
            sender: sender.clone(),
            recipient: recipient.clone(),
            content: content.to_owned(),
            timestamp: Timestamp(unsigned(sent_at.0)?),
        }))
    }
}

/// What a batch does to the table, by owner: the highest of each kind in each row.
#[derive(Default)]
pub(super) struct Changes<'a>(HashMap<Username, BTreeMap<Username, RowChange<'a>>>);

/// 0 and `None`: nothing.
#[derive(Default)]
struct RowChange<'a> {
    last: Option<&'a Message>,
    own_seq: Seq,
    read_mark: Seq,
    parked_seq: Seq,
}

impl<'a> Changes<'a> {
    pub(super) fn add(&mut self, change: &'a InboxChange) {
        match change {
            InboxChange::PutMessage { owner, message } => {
                let own = message.sender == *owner;
                let row = self.row(owner, if own { &message.recipient } else { &message.sender });
                if row.last.is_none_or(|last| message.seq > last.seq) {
                    row.last = Some(message);
                }
                if own {
                    row.own_seq = row.own_seq.max(message.seq);
                }
            }
            InboxChange::PutReadMark { owner, peer, seq } => {
                let row = self.row(owner, peer);
                row.read_mark = row.read_mark.max(*seq);
            }
        }
    }

    /// A parked event holds this number.
    pub(super) fn add_marker(&mut self, conversation: &Conversation, seq: Seq) {
        let row = self.row(conversation.low(), conversation.high());
        row.parked_seq = row.parked_seq.max(seq);
    }

    fn row(&mut self, owner: &Username, peer: &Username) -> &mut RowChange<'a> {
        if !self.0.contains_key(owner) {
            self.0.insert(owner.clone(), BTreeMap::new());
        }
        self.0.get_mut(owner).expect("just put there").entry(peer.clone()).or_default()
    }

    /// The writes, by Cassandra partition.
    pub(super) fn partitions(self, table: &'a Table) -> Result<Vec<Vec<Write<'a>>>, StoreError> {
        let partition = |(owner, rows): (Username, BTreeMap<Username, RowChange<'a>>)| {
            let mut writes = Vec::with_capacity(rows.len());
            for (peer, row) in rows {
                row.write(table, &owner, &peer, &mut writes)?;
            }
            Ok(writes)
        };
        self.0.into_iter().map(partition).collect()
    }
}

impl<'a> RowChange<'a> {
    fn write(
        self,
        table: &'a Table,
        owner: &Username,
        peer: &Username,
        writes: &mut Vec<Write<'a>>,
    ) -> Result<(), StoreError> {
        let own_is_last = self.last.is_some_and(|message| message.seq == self.own_seq);
        if let Some(message) = self.last {
            let mut values = last_values(message)?;
            if own_is_last {
                values.push(Value::seq(self.own_seq)?);
            }
            let statement = if own_is_last { &table.put_own_last } else { &table.put_last };
            writes.push(write(statement, owner, peer, values, version::effect(message.seq))?);
        }
        if self.own_seq > 0 && !own_is_last {
            let values = vec![Value::seq(self.own_seq)?];
            writes.push(write(&table.put_own_seq, owner, peer, values, version::effect(self.own_seq))?);
        }
        if self.read_mark > 0 {
            let values = vec![Value::seq(self.read_mark)?];
            writes.push(write(&table.put_read_mark, owner, peer, values, version::effect(self.read_mark))?);
        }
        if self.parked_seq > 0 {
            let values = vec![Value::seq(self.parked_seq)?];
            writes.push(write(&table.put_parked_seq, owner, peer, values, version::marker(self.parked_seq))?);
        }
        Ok(())
    }
}

fn last_values(message: &Message) -> Result<Vec<Value<'_>>, StoreError> {
    Ok(vec![
        Value::seq(message.seq)?,
        Value::text(message.id.to_string()),
        Value::text(message.sender.as_str()),
        Value::text(message.content.as_str()),
        Value::time(message.timestamp)?,
    ])
}

fn write<'a>(
    statement: &'a PreparedStatement,
    owner: &Username,
    peer: &Username,
    cells: Vec<Value<'a>>,
    version: u64,
) -> Result<Write<'a>, StoreError> {
    let mut values = vec![Value::text(owner.to_string()), Value::text(peer.to_string())];
    values.extend(cells);
    values.push(Value::big(version)?);
    Ok(Write { statement, values })
}
