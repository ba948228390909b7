//! The rows that a drain has written, and what they must be: each conversation from its first message to its last,
//! and in the inboxes of both of its users the last. What the cells hold is compared by digest: whoever drains the
//! same log writes the same.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use anyhow::{Result, ensure};
use scylla::value::CqlTimestamp;

/// Conversation, seq, id, sender, content, time.
pub(crate) type MessageRow = (String, i64, String, String, String, CqlTimestamp);
/// Owner, peer; seq, id, sender, content and time of the last message; the owner's own last.
pub(crate) type InboxRow = (String, String, i64, String, String, String, CqlTimestamp, Option<i64>);

pub(crate) struct Rows<'a> {
    /// Of each conversation.
    heads: &'a BTreeMap<String, u64>,
    /// How many messages of each conversation, and the highest number.
    timeline: BTreeMap<String, (u64, u64)>,
    inbox_rows: usize,
    /// The same in whatever order the rows come.
    digest: u64,
}

impl<'a> Rows<'a> {
    pub(crate) fn new(heads: &'a BTreeMap<String, u64>) -> Self {
        Self { heads, timeline: BTreeMap::new(), inbox_rows: 0, digest: 0 }
    }

    pub(crate) fn add_message(&mut self, row: MessageRow) {
        let (conversation, seq, id, sender, content, sent_at) = row;
        self.add(&(&conversation, seq, id, sender, content, sent_at.0));
        let (count, highest) = self.timeline.entry(conversation).or_default();
        (*count, *highest) = (*count + 1, seq.unsigned_abs().max(*highest));
    }

    pub(crate) fn add_inbox_row(&mut self, row: &InboxRow) -> Result<()> {
        let (owner, peer, seq, id, sender, content, sent_at, own_seq) = row;
        self.add(&(owner, peer, seq, id, sender, content, sent_at.0, own_seq));
        self.inbox_rows += 1;
        let (low, high) = if owner < peer { (owner, peer) } else { (peer, owner) };
        let head = self.heads.get(&format!("{low}:{high}")).copied().unwrap_or_default();
        ensure!(
            head == seq.unsigned_abs(),
            "of {head} messages with {peer} the inbox of {owner} shows {seq}"
        );
        Ok(())
    }

    /// The digest.
    pub(crate) fn finish(self) -> Result<u64> {
        for (conversation, head) in self.heads {
            let (count, highest) = self.timeline.get(conversation).copied().unwrap_or_default();
            let is_whole = (count, highest) == (*head, *head);
            ensure!(is_whole, "of {head} messages of {conversation} there are {count}, up to {highest}");
        }
        let (found, expected) = (self.timeline.len(), self.heads.len());
        ensure!(found == expected, "{found} conversations where there should be {expected}");
        let (found, expected) = (self.inbox_rows, 2 * expected);
        ensure!(found == expected, "{found} rows of inboxes where there should be {expected}");
        Ok(self.digest)
    }

    fn add(&mut self, row: &impl Hash) {
        let mut hasher = DefaultHasher::new();
        row.hash(&mut hasher);
        self.digest = self.digest.wrapping_add(hasher.finish());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(conversation: &str, seq: i64, content: &str) -> MessageRow {
        (conversation.into(), seq, seq.to_string(), "anna".into(), content.into(), CqlTimestamp(seq))
    }

    fn inbox_row(owner: &str, peer: &str, seq: i64) -> InboxRow {
        let (id, sender, content) = (seq.to_string(), "anna".into(), "hi".into());
        (owner.into(), peer.into(), seq, id, sender, content, CqlTimestamp(seq), None)
    }

    /// Of a conversation of two messages.
    fn digest(messages: &[MessageRow], inboxes: &[InboxRow]) -> Result<u64> {
        let heads = BTreeMap::from([("anna:ben".to_owned(), 2)]);
        let mut rows = Rows::new(&heads);
        messages.iter().for_each(|row| rows.add_message(row.clone()));
        inboxes.iter().try_for_each(|row| rows.add_inbox_row(row))?;
        rows.finish()
    }

    #[test]
    fn what_is_missing_too_much_or_old_is_found() {
        let messages = [1, 2].map(|seq| message("anna:ben", seq, "hi"));
        let inboxes = [inbox_row("anna", "ben", 2), inbox_row("ben", "anna", 2)];
        assert!(digest(&messages, &inboxes).is_ok());
        assert!(digest(&messages[..1], &inboxes).is_err(), "the last message");
        assert!(digest(&messages[1..], &inboxes).is_err(), "the first message");
        assert!(digest(&messages, &inboxes[..1]).is_err(), "an inbox");
        assert!(
            digest(&messages, &[inboxes[0].clone(), inbox_row("ben", "anna", 1)]).is_err(),
            "an old inbox"
        );
        let more = [messages[0].clone(), messages[1].clone(), message("anna:carl", 1, "hi")];
        assert!(digest(&more, &inboxes).is_err(), "another conversation");
    }

    #[test]
    fn the_digest_knows_every_cell_and_no_order() {
        let [one, two] = [1, 2].map(|seq| message("anna:ben", seq, "hi"));
        let inboxes = [inbox_row("anna", "ben", 2), inbox_row("ben", "anna", 2)];
        let of = |messages: &[MessageRow]| digest(messages, &inboxes).unwrap();
        assert_eq!(of(&[one.clone(), two.clone()]), of(&[two.clone(), one.clone()]));
        assert_ne!(of(&[one.clone(), two]), of(&[one, message("anna:ben", 2, "ho")]));
    }
}
