//! The second pass, for timelines that differ: row by row, a bounded number of them at a time.

use std::collections::HashMap;

use shared::event::Event;
use shared::ids::{Conversation, Seq};
use shared::limits::VERIFY_NEWER_ROWS_MAX;
use shared::ports::{Delivery, ScannedRow};

use super::Pass;
use super::facts::Entry;
use super::ledger::Ledger;
use super::report::Difference;

/// Conversations and which of their numbers, first and last.
pub(super) type Windows = HashMap<u32, (Seq, Seq)>;

/// All numbers of the conversations, at most about `rows_max` at a time.
pub(super) fn windows(ledger: &Ledger, conversations: &[u32], rows_max: u64) -> Vec<Windows> {
    let (mut all, mut current, mut held) = (Vec::new(), Windows::new(), 0);
    for conversation in conversations {
        let head = ledger.head(*conversation);
        let mut first = 1;
        loop {
            let room = rows_max - held;
            let last = (first + room - 1).min(head);
            held += (last + 1).saturating_sub(first) + 1;
            let is_last = last >= head;
            // What is behind the head belongs to the last window.
            current.insert(*conversation, (first, if is_last { Seq::MAX } else { last }));
            if held >= rows_max {
                all.push(std::mem::take(&mut current));
                held = 0;
            }
            if is_last {
                break;
            }
            first = last + 1;
        }
    }
    all.extend((!current.is_empty()).then_some(current));
    all
}

pub(super) struct Rows<'a> {
    ledger: &'a mut Ledger,
    windows: Windows,
    expected: HashMap<(u32, Seq), Expected>,
    /// Behind the heads, until an event explains them.
    newer: HashMap<(u32, Seq), Entry>,
}

struct Expected {
    entry: Entry,
    /// The event is parked, though it can be read.
    is_parked: bool,
    is_seen: bool,
}

impl<'a> Rows<'a> {
    pub(super) fn new(ledger: &'a mut Ledger, windows: Windows) -> Self {
        Self { ledger, windows, expected: HashMap::new(), newer: HashMap::new() }
    }

    /// Its number, if this number of it is looked at.
    fn looked_at(&mut self, conversation: &Conversation, seq: Seq) -> Option<u32> {
        let number = self.ledger.conversation(conversation);
        self.windows.get(&number).filter(|(first, last)| (*first..=*last).contains(&seq)).map(|_| number)
    }

    fn differ(&mut self, conversation: u32, seq: Seq, what: impl Into<String>) {
        let (conversation, what) = (self.ledger.name(conversation), what.into());
        self.ledger.differences.add(Difference::Timeline { conversation, seq, what });
    }

    fn compare_row(&mut self, conversation: u32, seq: Seq, entry: Entry) {
        match self.ledger.settled(conversation, seq, entry.digest(seq)) {
            Some(true) => return,
            Some(false) => return self.differ(conversation, seq, OTHER),
            None => {}
        }
        if let Some(expected) = self.expected.get_mut(&(conversation, seq)) {
            expected.is_seen = true;
            let (log, is_parked) = (expected.entry, expected.is_parked);
            if let Some(what) = difference(log, entry, is_parked) {
                self.differ(conversation, seq, what);
            }
        } else if seq <= self.ledger.head(conversation) || self.newer.len() >= VERIFY_NEWER_ROWS_MAX {
            self.differ(conversation, seq, EXTRA);
        } else {
            self.newer.insert((conversation, seq), entry);
        }
    }

    /// Adds what is missing and what nothing explains.
    pub(super) fn finish(mut self) {
        let unseen = self.expected.iter().filter(|(_, expected)| !expected.is_seen);
        let mut missing: Vec<_> = unseen.map(|(place, _)| *place).collect();
        missing.extend(self.ledger.settled_missing().filter(|(conversation, seq)| {
            let window = self.windows.get(conversation);
            window.is_some_and(|(first, last)| (*first..=*last).contains(seq))
        }));
        missing.sort_unstable();
        for (conversation, seq) in missing {
            self.differ(conversation, seq, "missing");
        }
        let mut extra: Vec<_> = std::mem::take(&mut self.newer).into_keys().collect();
        extra.sort_unstable();
        for (conversation, seq) in extra {
            self.differ(conversation, seq, EXTRA);
        }
    }
}

const EXTRA: &str = "extra: not in the log";
const OTHER: &str = "neither the log's message nor a marker";

/// The entry at a place that the log tells of, and whether it can be read.
fn entry(delivery: &Delivery) -> Option<(Conversation, Seq, Entry)> {
    match &delivery.content {
        Ok(recorded) => match &recorded.event {
            Event::MessageSent(sent) => {
                let conversation = sent.conversation();
                let low = conversation.low();
                let entry = Entry::new(recorded.id, &sent.sender, low, recorded.at, &sent.content);
                Some((conversation, recorded.seq, entry))
            }
            Event::UserRegistered(_) | Event::ConversationRead(_) => None,
        },
        Err(unreadable) => {
            let (conversation, seq) = unreadable.place.clone()?;
            Some((conversation, seq, Entry::Marker))
        }
    }
}

/// In words; `None`: there is none.
fn difference(log: Entry, view: Entry, is_parked: bool) -> Option<String> {
    match (log, view) {
        (Entry::Marker, Entry::Marker) => None,
        (Entry::Marker, Entry::Message { .. }) => {
            Some("a message, where the log has nothing that can be read".to_owned())
        }
        (Entry::Message { .. }, Entry::Marker) if is_parked => {
            Some("parked: `projector parked retry` applies it".to_owned())
        }
        (Entry::Message { .. }, Entry::Marker) => Some("a marker in place of the message".to_owned()),
        (
            Entry::Message { id, low_sent, at, content },
            Entry::Message { id: other_id, low_sent: other_sent, at: other_at, content: other_content },
        ) => {
            let parts = [
                (id != other_id, "id"),
                (low_sent != other_sent, "sender"),
                (at != other_at, "time"),
                (content != other_content, "content"),
            ];
            let other: Vec<_> =
                parts.into_iter().filter(|(is_other, _)| *is_other).map(|(_, part)| part).collect();
            (!other.is_empty()).then(|| format!("other {}", other.join(", ")))
        }
    }
}

impl Pass for Rows<'_> {
    fn fold(&mut self, delivery: &Delivery) {
        let Some((conversation, seq, entry)) = entry(delivery) else { return };
        let Some(conversation) = self.looked_at(&conversation, seq) else { return };
        if self.ledger.is_settled_place(conversation, seq) {
            return;
        }
        let is_parked = self.ledger.is_parked(delivery.position);
        let place = self.expected.entry((conversation, seq));
        let expected = place.or_insert(Expected { entry, is_parked, is_seen: false });
        // A message is the last word on its number.
        if expected.entry == Entry::Marker {
            (expected.entry, expected.is_parked) = (entry, is_parked);
        }
    }

    fn compare(&mut self, row: ScannedRow) {
        let ScannedRow::Timeline { conversation, entry } = row else { return };
        let seq = entry.seq();
        if let Some(number) = self.looked_at(&conversation, seq) {
            self.compare_row(number, seq, Entry::in_view(&entry, &conversation));
        }
    }

    fn unexplained(&self) -> usize {
        self.newer.len()
    }

    fn explain(&mut self, delivery: &Delivery) {
        let Some((conversation, seq, log)) = entry(delivery) else { return };
        let Some(conversation) = self.looked_at(&conversation, seq) else { return };
        let Some(view) = self.newer.remove(&(conversation, seq)) else { return };
        if let Some(what) = difference(log, view, false) {
            self.differ(conversation, seq, what);
        }
    }
}
