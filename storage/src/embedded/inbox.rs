//! The view `inbox`: one row per owner and peer. Its three parts (last message, own last message, mark) each
//! keep the highest `seq`, whatever comes first.

use std::ops::Bound;

use shared::ids::{Seq, Username};
use shared::ports::StoreError;
use shared::view::{InboxChange, InboxRow};

use super::encoding::{Decoder, Encoder};
use super::recent::Recent;
use super::rows::Rows;
use super::timeline::{decode_message, encode_message};
use super::{Embedded, damaged, keys};

const VERSION: u8 = 1;

/// Of rows that were written of late: the next message of a conversation replaces the last one, and is merged without
/// reading the row.
#[derive(Clone, Copy)]
pub(super) struct Numbers {
    head_seq: Seq,
    own_seq: Seq,
    read_mark: Seq,
}

impl Numbers {
    fn of(row: &InboxRow) -> Self {
        let InboxRow { own_seq, read_mark, .. } = *row;
        Self { head_seq: row.head_seq(), own_seq, read_mark }
    }

    /// The row, but for a last message that `change` replaces.
    fn row(self, peer: &Username, change: &InboxChange) -> Option<InboxRow> {
        let replaced = match change {
            InboxChange::PutMessage { message, .. } => self.head_seq < message.seq,
            InboxChange::PutReadMark { .. } => false,
        };
        let Self { own_seq, read_mark, .. } = self;
        replaced.then(|| InboxRow { own_seq, read_mark, ..InboxRow::empty(peer.clone()) })
    }
}

pub(super) fn put(
    rows: &mut Rows<'_>,
    recent: &mut Recent<Numbers>,
    change: &InboxChange,
) -> Result<(), StoreError> {
    let (owner, peer) = match change {
        InboxChange::PutMessage { owner, message } if *owner == message.sender => (owner, &message.recipient),
        InboxChange::PutMessage { owner, message } => (owner, &message.sender),
        InboxChange::PutReadMark { owner, peer, .. } => (owner, peer),
    };
    let key = keys::inbox(owner, peer);
    let mut row = match recent.get(&key).and_then(|numbers| numbers.row(peer, change)) {
        Some(row) => row,
        None => match rows.get(&key)? {
            Some(bytes) => read(owner, peer.clone(), &bytes)?,
            None => InboxRow::empty(peer.clone()),
        },
    };
    match change {
        InboxChange::PutMessage { owner, message } => {
            if *owner == message.sender {
                row.own_seq = row.own_seq.max(message.seq);
            }
            if row.head_seq() < message.seq {
                row.last = Some(message.clone());
            }
        }
        InboxChange::PutReadMark { seq, .. } => row.read_mark = row.read_mark.max(*seq),
    }
    recent.note(&key, Numbers::of(&row));
    rows.put(key, encode(owner, &row));
    Ok(())
}

/// At most `rows_max` of the owner's conversations, by peer: those behind `after`.
pub(super) fn page(
    store: &Embedded,
    owner: &Username,
    after: Option<&Username>,
    rows_max: usize,
) -> Result<Vec<InboxRow>, StoreError> {
    let (prefix, end) = (keys::inbox_of(owner), keys::inbox_end(owner));
    let begin = match after {
        Some(peer) => Bound::Excluded(keys::inbox(owner, peer)),
        None => Bound::Included(prefix.clone()),
    };
    let rows = store.view_rows((begin, Bound::Excluded(end)), rows_max)?.into_iter();
    rows.map(|(key, bytes)| {
        let peer = std::str::from_utf8(&key[prefix.len()..]).ok().and_then(|peer| peer.parse().ok());
        read(owner, peer.ok_or_else(|| unreadable(owner))?, &bytes)
    })
    .collect()
}

fn encode(owner: &Username, row: &InboxRow) -> Vec<u8> {
    let encoder = Encoder::new(VERSION).u64(row.own_seq).u64(row.read_mark);
    match &row.last {
        Some(message) => encode_message(encoder.u64(message.seq), message, message.sender == *owner).finish(),
        None => encoder.u64(0).finish(),
    }
}

pub(super) fn read(owner: &Username, peer: Username, bytes: &[u8]) -> Result<InboxRow, StoreError> {
    decode(owner, peer, bytes).ok_or_else(|| unreadable(owner))
}

fn decode(owner: &Username, peer: Username, bytes: &[u8]) -> Option<InboxRow> {
    let mut decoder = Decoder::new(VERSION, bytes)?;
    let (own_seq, read_mark): (Seq, Seq) = (decoder.u64()?, decoder.u64()?);
    let last = match decoder.u64()? {
        0 => None,
        seq => Some(decode_message(&mut decoder, seq, owner, &peer)?),
    };
    decoder.end()?;
    Some(InboxRow { peer, last, own_seq, read_mark })
}

fn unreadable(owner: &Username) -> StoreError {
    damaged(format!("the inbox of {owner} cannot be read"))
}
