//! The first pass: all of the log and all of the tables, in little memory. What the log says of a conversation is
//! added up, what the timeline says is taken off again; where anything is left they differ. Inbox rows and users, of
//! which there is one each, are compared at once.
//!
//! What may be in the views and need not is no difference: rows of events later than the cut, which are explained by
//! reading those events, and events that were parked and are settled, applied or given up.

use std::collections::{HashMap, HashSet};

use shared::Timestamp;
use shared::ids::{Conversation, Position, Seq, Username};
use shared::limits::VERIFY_PARKED_MAX;
use shared::ports::{Delivery, ScannedRow};

use super::Pass;
use super::facts::{Digest, Entry, Fact, Party};
use super::names::{Names, Pairs, number_of};
use super::offsets::Offsets;
use super::report::{Difference, Differences};

#[derive(Default)]
pub(super) struct Ledger {
    names: Names,
    pairs: Pairs,
    /// By number.
    users: Vec<User>,
    conversations: Vec<Folded>,
    offsets: Offsets,
    /// What is parked, and whether it is settled.
    parked: HashMap<Position, bool>,
    /// Of events that are settled: what they say, if they were applied.
    pub(super) optional: HashSet<Fact>,
    /// Where a message or its marker must be, for such an event, and whether it is.
    pub(super) settled: HashMap<(u32, Seq), bool>,
    /// Of rows that are not of the log up to the cut.
    pub(super) unexplained: HashSet<Fact>,
    pub(super) events: u64,
    pub(super) rows: u64,
    pub(super) rows_left_out: u64,
    pub(super) differences: Differences,
}

#[derive(Clone, Copy, Default)]
pub(super) struct User {
    /// By the log.
    pub(super) registered_at: Option<Timestamp>,
    pub(super) is_seen: bool,
}

/// What the log says of a conversation up to the cut; `rows` and `digest` less what the timeline says.
#[derive(Clone, Copy, Default)]
pub(super) struct Folded {
    /// Of a message or a marker.
    pub(super) head: Seq,
    pub(super) rows: i64,
    pub(super) digest: Digest,
    /// The last message.
    pub(super) last: Seq,
    pub(super) last_digest: Digest,
    /// The last marker.
    pub(super) parked_seq: Seq,
    pub(super) inboxes: [Inbox; 2],
}

#[derive(Clone, Copy, Default)]
pub(super) struct Inbox {
    pub(super) own: Seq,
    pub(super) mark: Seq,
    pub(super) is_seen: bool,
}

impl Ledger {
    /// Of the table of parked events, before all else.
    pub(super) fn note_parked(&mut self, row: &ScannedRow) {
        if let ScannedRow::Parked { position, is_settled } = row {
            if self.parked.len() < VERIFY_PARKED_MAX {
                self.parked.insert(*position, *is_settled);
            } else {
                self.rows_left_out += 1;
            }
        }
    }

    pub(super) fn is_parked(&self, position: Position) -> bool {
        self.parked.get(&position) == Some(&false)
    }

    /// Whether a message or its marker may be there: `None` if it is no settled event's place.
    pub(super) fn settled(&mut self, conversation: u32, seq: Seq, digest: Digest) -> Option<bool> {
        let seen = self.settled.get_mut(&(conversation, seq))?;
        *seen = true;
        Some(self.optional.contains(&Fact::Row { conversation, seq, digest }))
    }

    pub(super) fn is_settled_place(&self, conversation: u32, seq: Seq) -> bool {
        self.settled.contains_key(&(conversation, seq))
    }

    pub(super) fn settled_missing(&self) -> impl Iterator<Item = (u32, Seq)> {
        self.settled.iter().filter(|(_, is_seen)| !**is_seen).map(|(place, _)| *place)
    }

    pub(super) fn conversation(&mut self, conversation: &Conversation) -> u32 {
        let number = self.pairs.number(&mut self.names, conversation);
        if self.conversations.len() < self.pairs.len() {
            self.conversations.push(Folded::default());
        }
        number
    }

    pub(super) fn head(&self, conversation: u32) -> Seq {
        self.conversations[conversation as usize].head
    }

    pub(super) fn name(&self, conversation: u32) -> String {
        let [low, high] = self.pairs.names(&self.names, conversation);
        format!("{low}:{high}")
    }

    pub(super) fn folded(&mut self, conversation: u32) -> &mut Folded {
        &mut self.conversations[conversation as usize]
    }

    pub(super) fn user(&mut self, name: &Username) -> (u32, &mut User) {
        let number = self.names.number(name);
        if self.users.len() < self.names.len() {
            self.users.resize_with(self.names.len(), User::default);
        }
        (number, &mut self.users[number as usize])
    }

    pub(super) fn counted(&self) -> (u64, u64) {
        let conversations = self.conversations.iter().filter(|folded| folded.head > 0).count();
        let users = self.users.iter().filter(|user| user.registered_at.is_some()).count();
        (conversations as u64, users as u64)
    }
}

impl Pass for Ledger {
    fn fold(&mut self, delivery: &Delivery) {
        self.events += 1;
        if let Some(difference) = self.offsets.note(delivery) {
            self.differences.add(difference);
        }
        let parked = if self.parked.is_empty() { None } else { self.parked.get(&delivery.position).copied() };
        match (&delivery.content, parked) {
            (Ok(_), Some(true)) => self.fold_settled(delivery),
            (Ok(recorded), Some(false) | None) => {
                if parked.is_some() {
                    // Its number as a parked event's stays where it was noted, even once the event is applied.
                    let facts = self.facts(delivery).into_iter();
                    self.optional.extend(facts.filter_map(Fact::as_parked));
                }
                self.fold_event(recorded);
            }
            (Err(unreadable), _) => {
                if let Some((conversation, seq)) = &unreadable.place {
                    self.fold_marker(conversation, *seq);
                }
            }
        }
    }

    fn compare(&mut self, row: ScannedRow) {
        self.rows += 1;
        match &row {
            ScannedRow::Timeline { conversation, entry } => {
                self.compare_timeline(conversation, entry.seq(), Entry::in_view(entry, conversation));
            }
            ScannedRow::Inbox { owner, row, parked_seq } => self.compare_inbox(owner, row, *parked_seq),
            ScannedRow::User(user) => self.compare_user(user),
            ScannedRow::Parked { .. } => self.note_parked(&row),
            ScannedRow::Broken(what) => self.differences.add(Difference::Broken { what: what.clone() }),
        }
    }

    fn unexplained(&self) -> usize {
        self.unexplained.len()
    }

    fn explain(&mut self, delivery: &Delivery) {
        for fact in self.facts(delivery) {
            self.unexplained.remove(&fact);
        }
    }
}

impl Ledger {
    /// Adds what is missing, and what nothing explains; gives the conversations whose timelines differ.
    pub(super) fn finish(&mut self) -> Vec<u32> {
        let mut differ: HashSet<u32> = self.settled_missing().map(|(conversation, _)| conversation).collect();
        for fact in std::mem::take(&mut self.unexplained) {
            if let Some(conversation) = self.differ_by(fact) {
                differ.insert(conversation);
            }
        }
        for number in 0..self.conversations.len() {
            let (folded, number) = (self.conversations[number], number_of(number));
            if folded.rows != 0 || folded.digest != Digest::default() {
                differ.insert(number);
            }
            for (owner, inbox) in Party::BOTH.into_iter().zip(folded.inboxes) {
                if !inbox.is_seen && (folded.last > 0 || inbox.mark > 0) {
                    self.differ_in_inbox_of(number, owner, "missing".to_owned());
                }
            }
        }
        for number in 0..self.users.len() {
            if self.users[number].registered_at.is_some() && !self.users[number].is_seen {
                let user = self.names.name(number_of(number));
                self.differences.add(Difference::Users { user, what: "missing".to_owned() });
            }
        }
        let mut differ: Vec<_> = differ.into_iter().collect();
        differ.sort_unstable();
        differ
    }

    /// No event says this. A conversation's number, if its timeline says it.
    fn differ_by(&mut self, fact: Fact) -> Option<u32> {
        let (conversation, owner, what) = match fact {
            Fact::Row { conversation, .. } => return Some(conversation),
            Fact::User { user, .. } => {
                let (user, what) = (self.names.name(user), "extra: not in the log".to_owned());
                self.differences.add(Difference::Users { user, what });
                return None;
            }
            Fact::Last { conversation, owner, seq, .. } => {
                (conversation, owner, format!("last message {seq} is not the log's"))
            }
            Fact::Own { conversation, owner, seq } => {
                (conversation, owner, format!("own last number {seq} is not the log's"))
            }
            Fact::Mark { conversation, owner, seq } => {
                (conversation, owner, format!("read mark {seq} is not the log's"))
            }
            Fact::ParkedSeq { conversation, seq } => {
                (conversation, Party::Low, format!("parked number {seq} is not the log's"))
            }
        };
        self.differ_in_inbox_of(conversation, owner, what);
        None
    }

    fn differ_in_inbox_of(&mut self, conversation: u32, owner: Party, what: String) {
        let [low, high] = self.pairs.names(&self.names, conversation);
        let (owner, peer) = match owner {
            Party::Low => (low, high),
            Party::High => (high, low),
        };
        self.differences.add(Difference::Inbox { owner, peer, what });
    }
}
