//! What the tables say: a row takes off what the log has put there, or claims what the log has yet to explain.

use shared::ids::{Conversation, Seq, Username};
use shared::limits::VERIFY_NEWER_ROWS_MAX;
use shared::view::{InboxRow, UserRow};

use super::facts::{Entry, Fact, Party};
use super::ledger::{Inbox, Ledger};
use super::report::Difference;

impl Ledger {
    pub(super) fn compare_timeline(&mut self, conversation: &Conversation, seq: Seq, entry: Entry) {
        let conversation = self.conversation(conversation);
        let digest = entry.digest(seq);
        if self.settled(conversation, seq, digest) == Some(true) {
            return;
        }
        let folded = self.folded(conversation);
        if seq > folded.head {
            return self.claim(Fact::Row { conversation, seq, digest });
        }
        folded.rows -= 1;
        folded.digest = folded.digest.minus(digest);
    }

    pub(super) fn compare_inbox(&mut self, user: &Username, row: &InboxRow, parked_seq: Option<Seq>) {
        let Some(between) = Conversation::between(user, &row.peer) else {
            return self.differ_in_inbox(user, &row.peer, "nobody writes to himself".to_owned());
        };
        let (conversation, owner) = (self.conversation(&between), Party::of(user, &between));
        self.folded(conversation).inboxes[owner as usize].is_seen = true;
        let folded = *self.folded(conversation);
        let Inbox { own, mark, .. } = folded.inboxes[owner as usize];
        let mut behind = Vec::new();
        let last = row.last.as_ref().map(|message| Entry::of(message, &between).digest(message.seq));
        let digest = last.unwrap_or_default();
        let fact = Fact::Last { conversation, owner, seq: row.head_seq(), digest };
        match row.head_seq() {
            seq if seq < folded.last => behind.push(told("last message", seq, folded.last)),
            seq if seq > folded.last => self.claim(fact),
            seq if seq > 0 && digest != folded.last_digest => {
                behind.push(format!("other last message {seq}"))
            }
            _ => {}
        }
        let numbers = [
            ("own last number", row.own_seq, own, Fact::Own { conversation, owner, seq: row.own_seq }),
            ("read mark", row.read_mark, mark, Fact::Mark { conversation, owner, seq: row.read_mark }),
        ];
        let parked = parked_seq
            .map(|seq| ("parked number", seq, folded.parked_seq, Fact::ParkedSeq { conversation, seq }));
        for (called, is, expected, fact) in numbers.into_iter().chain(parked) {
            match is {
                is if is < expected => behind.push(told(called, is, expected)),
                is if is > expected => self.claim(fact),
                _ => {}
            }
        }
        if !behind.is_empty() {
            self.differ_in_inbox(user, &row.peer, behind.join(", "));
        }
    }

    pub(super) fn compare_user(&mut self, row: &UserRow) {
        let (user, known) = self.user(&row.username);
        known.is_seen = true;
        match known.registered_at {
            Some(at) if at == row.registered_at => {}
            Some(at) => {
                let what = format!("registered at {}, {at} in the log", row.registered_at);
                self.differences.add(Difference::Users { user: row.username.clone(), what });
            }
            None => self.claim(Fact::User { user, at: row.registered_at }),
        }
    }

    fn claim(&mut self, fact: Fact) {
        if self.optional.contains(&fact) {
            return;
        }
        if self.unexplained.len() < VERIFY_NEWER_ROWS_MAX {
            self.unexplained.insert(fact);
        } else {
            self.rows_left_out += 1;
        }
    }

    pub(super) fn differ_in_inbox(&mut self, owner: &Username, peer: &Username, what: String) {
        let (owner, peer) = (owner.clone(), peer.clone());
        self.differences.add(Difference::Inbox { owner, peer, what });
    }
}

fn told(called: &str, is: Seq, expected: Seq) -> String {
    match is {
        0 => format!("no {called}, {expected} in the log"),
        _ => format!("{called} {is}, {expected} in the log"),
    }
}
