//! What the log says: an event becomes what must be in the views, or what may be.

use shared::event::{ConversationRead, Event, MessageSent, RecordedEvent};
use shared::ids::{Conversation, Seq};
use shared::ports::Delivery;

use super::facts::{Entry, Fact, Party};
use super::ledger::Ledger;

impl Ledger {
    pub(super) fn fold_event(&mut self, recorded: &RecordedEvent) {
        match &recorded.event {
            Event::MessageSent(sent) => self.fold_message(recorded, sent),
            Event::ConversationRead(read) => {
                let Some(conversation) = Conversation::between(&read.reader, &read.peer) else { return };
                let number = self.conversation(&conversation);
                let inbox = Party::of(&read.reader, &conversation) as usize;
                let mark = &mut self.folded(number).inboxes[inbox].mark;
                *mark = read.seq.max(*mark);
            }
            Event::UserRegistered(registered) => {
                self.user(&registered.username).1.registered_at = Some(recorded.at);
            }
        }
    }

    pub(super) fn fold_message(&mut self, recorded: &RecordedEvent, sent: &MessageSent) {
        let (conversation, seq) = (sent.conversation(), recorded.seq);
        let number = self.conversation(&conversation);
        let digest = entry_of(recorded, sent, &conversation).digest(seq);
        let folded = self.folded(number);
        folded.rows += 1;
        folded.digest = folded.digest.plus(digest);
        folded.head = folded.head.max(seq);
        if folded.last < seq {
            (folded.last, folded.last_digest) = (seq, digest);
        }
        let own = &mut folded.inboxes[Party::of(&sent.sender, &conversation) as usize].own;
        *own = seq.max(*own);
    }

    pub(super) fn fold_marker(&mut self, conversation: &Conversation, seq: Seq) {
        let number = self.conversation(conversation);
        let folded = self.folded(number);
        folded.rows += 1;
        folded.digest = folded.digest.plus(Entry::Marker.digest(seq));
        folded.head = folded.head.max(seq);
        folded.parked_seq = folded.parked_seq.max(seq);
    }

    /// It was applied or given up: the views may hold its effect, and must hold its place.
    pub(super) fn fold_settled(&mut self, delivery: &Delivery) {
        for fact in self.facts(delivery) {
            if let Fact::Row { conversation, seq, .. } = fact {
                let folded = self.folded(conversation);
                folded.head = folded.head.max(seq);
                self.settled.entry((conversation, seq)).or_default();
                self.optional.insert(marker(conversation, seq));
                self.optional.insert(Fact::ParkedSeq { conversation, seq });
            }
            self.optional.insert(fact);
        }
    }

    /// What rows of the views may claim because of an entry.
    pub(super) fn facts(&mut self, delivery: &Delivery) -> Vec<Fact> {
        let recorded = match &delivery.content {
            Ok(recorded) => recorded,
            Err(unreadable) => {
                let Some((conversation, seq)) = &unreadable.place else { return Vec::new() };
                let (conversation, seq) = (self.conversation(conversation), *seq);
                return vec![marker(conversation, seq), Fact::ParkedSeq { conversation, seq }];
            }
        };
        match &recorded.event {
            Event::MessageSent(sent) => {
                let (between, seq) = (sent.conversation(), recorded.seq);
                let conversation = self.conversation(&between);
                let digest = entry_of(recorded, sent, &between).digest(seq);
                let owner = Party::of(&sent.sender, &between);
                let last = Party::BOTH.map(|owner| Fact::Last { conversation, owner, seq, digest });
                let row = Fact::Row { conversation, seq, digest };
                vec![row, Fact::Own { conversation, owner, seq }, last[0], last[1]]
            }
            Event::ConversationRead(ConversationRead { reader, peer, seq }) => {
                let Some(between) = Conversation::between(reader, peer) else { return Vec::new() };
                let (conversation, owner) = (self.conversation(&between), Party::of(reader, &between));
                vec![Fact::Mark { conversation, owner, seq: *seq }]
            }
            Event::UserRegistered(registered) => {
                let (user, _) = self.user(&registered.username);
                vec![Fact::User { user, at: recorded.at }]
            }
        }
    }
}

fn marker(conversation: u32, seq: Seq) -> Fact {
    Fact::Row { conversation, seq, digest: Entry::Marker.digest(seq) }
}

fn entry_of(recorded: &RecordedEvent, sent: &MessageSent, conversation: &Conversation) -> Entry {
    Entry::new(recorded.id, &sent.sender, conversation.low(), recorded.at, &sent.content)
}
