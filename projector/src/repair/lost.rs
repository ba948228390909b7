//! What was found to be lost, and how it is told.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use serde::Serialize;
use shared::ids::{EventId, Seq, Username};
use shared::limits::DIFFERENCES_LISTED_MAX;
use shared::message::Message;
use shared::ports::{Epoch, Loss};

/// What views or archive have and the log has not.
#[derive(Default, Serialize)]
pub struct Lost {
    pub generation: u32,
    /// The partitions that it is lost from.
    pub partitions: BTreeMap<u16, Loss>,
    pub users: Vec<Username>,
    /// Those of them whose password is not in the archive: it is in no view, and only their names can be kept.
    pub without_password: Vec<Username>,
    /// Whose names were registered anew after the loss, by themselves or by somebody else: nobody can tell, so what
    /// they wrote, were sent and have read is not given to whoever has the name now.
    pub registered_again: BTreeSet<Username>,
    /// By conversation and number, as they were.
    pub messages: Vec<LostMessage>,
    pub read_marks: Vec<LostMark>,
    /// Numbers of events that could not be read: views have nothing of them.
    pub parked: Vec<(String, Seq)>,
    /// Of the archive, by partition and number: what only they had stays lost.
    pub unreadable_blocks: BTreeSet<(u16, u64)>,
    /// Partitions in which views go on that stood still, as a repair before was cut short.
    pub resumed: BTreeSet<u16>,
    /// `None`: nothing was done yet.
    pub repaired: Option<Repaired>,
}

/// Without `Debug`: it holds what users wrote.
#[derive(Serialize)]
pub struct LostMessage {
    pub(super) conversation: String,
    pub(super) seq: Seq,
    pub(super) id: EventId,
    #[serde(skip)]
    pub(super) message: Message,
}

#[derive(Serialize)]
pub struct LostMark {
    pub(super) reader: Username,
    pub(super) peer: Username,
    pub(super) seq: Seq,
}

/// What was done.
#[derive(Debug, Serialize)]
pub struct Repaired {
    /// Of the log from now on.
    pub epoch: Epoch,
    /// That were appended.
    pub events: u64,
}

impl Lost {
    pub(super) fn sort(&mut self) {
        self.messages.sort_by_cached_key(|one| (one.conversation.clone(), one.seq));
        self.parked.sort();
        self.parked.dedup();
        self.users.sort();
        // Of several marks the highest is enough.
        let pair = |one: &LostMark| (one.reader.clone(), one.peer.clone());
        self.read_marks.sort_by_cached_key(|one| (pair(one), Reverse(one.seq)));
        self.read_marks.dedup_by_key(|one| pair(one));
    }

    pub(super) fn is_withheld(&self, names: [&Username; 2]) -> bool {
        names.into_iter().any(|name| self.registered_again.contains(name))
    }

    /// For a person.
    #[must_use]
    pub fn lines(&self) -> String {
        let Self {
            generation,
            partitions,
            users,
            without_password,
            registered_again,
            messages,
            read_marks,
            parked,
            unreadable_blocks,
            resumed,
            repaired,
        } = self;
        if partitions.is_empty() {
            let mut text =
                format!("the log holds all that generation {generation} has seen and all that is archived");
            if !resumed.is_empty() {
                let resumed = resumed.len();
                text += &format!("\na repair was cut short: views go on in {resumed} partitions now");
            }
            return text;
        }
        let mut lines: Vec<String> =
            partitions.iter().map(|(partition, loss)| loss.text(*partition)).collect();
        listed(&mut lines, "message", messages, |one| format!("{} {} {}", one.conversation, one.seq, one.id));
        listed(&mut lines, "user", users, |user| {
            let without = if without_password.contains(user) { ": the password is nowhere" } else { "" };
            format!("{user}{without}")
        });
        let again: Vec<_> = registered_again.iter().collect();
        listed(&mut lines, "user", &again, |user| {
            format!(
                "{user}: registered again since, maybe by somebody else; messages with this name stay lost"
            )
        });
        listed(&mut lines, "read mark", read_marks, |one| format!("{} {} {}", one.reader, one.peer, one.seq));
        let nothing_of_it = |(conversation, seq): &(String, Seq)| {
            format!("{conversation} {seq}: it could not be read, and views have nothing of it")
        };
        listed(&mut lines, "parked event", parked, nothing_of_it);
        let blocks: Vec<_> = unreadable_blocks.iter().collect();
        listed(&mut lines, "block", &blocks, |(partition, number)| {
            format!(
                "{number} of partition {partition}: the archive has it no more; what only it had stays lost"
            )
        });
        let mut text = lines.join("\n");
        let end = match repaired {
            None => "\nnothing was done: --apply appends what is lost".to_owned(),
            Some(Repaired { epoch, events }) => format!(
                "\n{events} events were appended; the log is {epoch} from now on, and views that have seen what \
                 was lost stand still: `projector rebuild` makes new ones"
            ),
        };
        write!(text, "{end}").expect("a string takes what it is given");
        text
    }
}

fn listed<T>(lines: &mut Vec<String>, name: &str, all: &[T], line: impl Fn(&T) -> String) {
    lines.extend(all.iter().take(DIFFERENCES_LISTED_MAX).map(|one| format!("{name} {}", line(one))));
    if all.len() > DIFFERENCES_LISTED_MAX {
        lines.push(format!("and {} more: --json lists all", all.len() - DIFFERENCES_LISTED_MAX));
    }
}
