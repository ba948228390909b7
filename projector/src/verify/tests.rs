//! Logs and tables as they may be, without a store: what is the same passes in whatever order it comes, and every
//! single thing that is not is named.

use std::collections::BTreeMap;

use shared::Timestamp;
use shared::event::Event;
use shared::ids::{Conversation, Position, Seq, Username};
use shared::limits::DIFFERENCES_LISTED_MAX;
use shared::message::Message;
use shared::ports::{Delivery, ScannedRow};
use shared::view::{InboxRow, TimelineEntry, UserRow};

use super::Pass;
use super::ledger::Ledger;
use super::report::Differences;
use super::rows::{Rows, windows};
use crate::deliveries::{name, pair, read, registered, sent, unreadable};

/// So few that every conversation is longer.
const ROWS_HELD: u64 = 3;

/// Two users and their conversation: three messages, a parked one between them, and a mark.
fn log() -> Vec<Delivery> {
    vec![
        registered("samer", 1),
        registered("lena", 2),
        sent("samer", "lena", 1, 3),
        sent("lena", "samer", 2, 4),
        unreadable("lena", "samer", 3, 5),
        sent("samer", "lena", 4, 6),
        read("lena", "samer", 4, 7),
    ]
}

/// Views as a store with parked numbers in its inbox has them.
#[derive(Clone, Default)]
struct Views {
    timeline: BTreeMap<(Conversation, Seq), TimelineEntry>,
    inboxes: BTreeMap<(Username, Username), (InboxRow, Seq)>,
    users: BTreeMap<Username, Timestamp>,
    parked: BTreeMap<Position, bool>,
}

impl Views {
    fn of(log: &[Delivery]) -> Self {
        let mut views = Self::default();
        log.iter().for_each(|delivery| views.apply(delivery));
        views
    }

    fn apply(&mut self, delivery: &Delivery) {
        match &delivery.content {
            Ok(recorded) => match &recorded.event {
                Event::MessageSent(sent) => self.put(&Message::new(recorded, sent)),
                Event::ConversationRead(read) => self.inbox(&read.reader, &read.peer).0.read_mark = read.seq,
                Event::UserRegistered(user) => drop(self.users.insert(user.username.clone(), recorded.at)),
            },
            Err(unreadable) => {
                let (conversation, seq) = unreadable.place.clone().unwrap();
                self.inbox(conversation.low(), conversation.high()).1 = seq;
                self.timeline.insert((conversation, seq), TimelineEntry::Parked { seq });
            }
        }
    }

    fn put(&mut self, message: &Message) {
        let (sender, recipient) = (&message.sender, &message.recipient);
        for (owner, peer) in [(sender, recipient), (recipient, sender)] {
            let (row, _) = self.inbox(owner, peer);
            row.last = Some(message.clone());
            if owner == sender {
                row.own_seq = message.seq;
            }
        }
        let place = (message.conversation(), message.seq);
        self.timeline.insert(place, TimelineEntry::Message(message.clone()));
    }

    fn inbox(&mut self, owner: &Username, peer: &Username) -> &mut (InboxRow, Seq) {
        let empty = || (InboxRow::empty(peer.clone()), 0);
        self.inboxes.entry((owner.clone(), peer.clone())).or_insert_with(empty)
    }

    fn inbox_of(&mut self, owner: &str, peer: &str) -> &mut InboxRow {
        &mut self.inbox(&name(owner), &name(peer)).0
    }

    fn message(&mut self, seq: Seq) -> &mut Message {
        match self.timeline.get_mut(&(pair("samer", "lena"), seq)) {
            Some(TimelineEntry::Message(message)) => message,
            other => panic!("{other:?}"),
        }
    }

    fn mark(&mut self, seq: Seq) {
        self.timeline.insert((pair("samer", "lena"), seq), TimelineEntry::Parked { seq });
    }

    fn remove(&mut self, seq: Seq) {
        self.timeline.remove(&(pair("samer", "lena"), seq)).unwrap();
    }

    fn rows(&self) -> Vec<ScannedRow> {
        let timeline = self.timeline.iter().map(|((conversation, _), entry)| {
            let (conversation, entry) = (conversation.clone(), entry.clone());
            ScannedRow::Timeline { conversation, entry }
        });
        let inboxes = self.inboxes.iter().map(|((owner, peer), (row, parked_seq))| {
            let parked_seq = (owner < peer).then_some(*parked_seq);
            ScannedRow::Inbox { owner: owner.clone(), row: row.clone(), parked_seq }
        });
        let users = self.users.iter().map(|(username, registered_at)| {
            ScannedRow::User(UserRow { username: username.clone(), registered_at: *registered_at })
        });
        timeline.chain(inboxes).chain(users).collect()
    }
}

/// The differences between the log up to the cut and the views, which may know of what came later.
fn compare(log: &[Delivery], later: &[Delivery], views: &Views) -> Differences {
    let run = |pass: &mut dyn Pass| {
        log.iter().for_each(|delivery| pass.fold(delivery));
        // Backwards, as no order is promised.
        views.rows().into_iter().rev().for_each(|row| pass.compare(row));
        later.iter().for_each(|delivery| pass.explain(delivery));
    };
    let mut ledger = Ledger::default();
    for (position, is_settled) in &views.parked {
        ledger.note_parked(&ScannedRow::Parked { position: *position, is_settled: *is_settled });
    }
    run(&mut ledger);
    let differ = ledger.finish();
    for windows in windows(&ledger, &differ, ROWS_HELD) {
        let mut rows = Rows::new(&mut ledger, windows);
        run(&mut rows);
        rows.finish();
    }
    ledger.differences.sorted()
}

fn listed(log: &[Delivery], later: &[Delivery], views: &Views) -> Vec<String> {
    let differences = compare(log, later, views);
    assert_eq!(differences.found, differences.listed.len() as u64);
    differences.listed.iter().map(ToString::to_string).collect()
}

#[test]
fn the_same_is_the_same_up_to_any_cut() {
    let log = log();
    for cut in 0..=log.len() {
        for seen in cut..=log.len() {
            let (before, after) = log.split_at(cut);
            let views = Views::of(&log[..seen]);
            assert_eq!(listed(before, after, &views), [] as [&str; 0], "cut {cut}, seen {seen}");
        }
    }
}

/// What is done to the views, and what is said of it then.
type Case<'a> = (fn(&mut Views), &'a [&'a str]);

fn assert_named(cases: &[Case<'_>]) {
    for (number, (spoil, expected)) in cases.iter().enumerate() {
        let mut views = Views::of(&log());
        spoil(&mut views);
        assert_eq!(listed(&log(), &[], &views), *expected, "case {number}");
    }
}

#[test]
fn whatever_is_wrong_in_a_timeline_is_named() {
    assert_named(&[
        (|views| views.message(2).content.push('!'), &["timeline lena:samer 2: other content"]),
        (|views| views.message(2).timestamp.0 += 1, &["timeline lena:samer 2: other time"]),
        (|views| views.message(1).id.0.0 ^= 1, &["timeline lena:samer 1: other id"]),
        (
            |views| {
                let message = views.message(1);
                std::mem::swap(&mut message.sender, &mut message.recipient);
            },
            &["timeline lena:samer 1: other sender"],
        ),
        (|views| views.remove(1), &["timeline lena:samer 1: missing"]),
        (|views| views.remove(3), &["timeline lena:samer 3: missing"]),
        (|views| views.mark(2), &["timeline lena:samer 2: a marker in place of the message"]),
        (|views| views.mark(9), &["timeline lena:samer 9: extra: not in the log"]),
        (
            |views| {
                let message = Message { seq: 3, ..views.message(2).clone() };
                let entry = TimelineEntry::Message(message);
                views.timeline.insert((pair("samer", "lena"), 3), entry);
            },
            &["timeline lena:samer 3: a message, where the log has nothing that can be read"],
        ),
        (
            |views| {
                let message = Message { recipient: name("omar"), ..views.message(1).clone() };
                views.timeline.insert((pair("samer", "omar"), 1), TimelineEntry::Message(message));
            },
            &["timeline omar:samer 1: extra: not in the log"],
        ),
        (
            |views| {
                let (one, other) = (views.message(1).content.clone(), views.message(2).content.clone());
                (views.message(1).content, views.message(2).content) = (other, one);
            },
            &["timeline lena:samer 1: other content", "timeline lena:samer 2: other content"],
        ),
    ]);
}

#[test]
fn whatever_is_wrong_with_an_inbox_or_a_user_is_named() {
    assert_named(&[
        (
            |views| views.inbox_of("lena", "samer").read_mark = 3,
            &["inbox of lena with samer: read mark 3, 4 in the log"],
        ),
        (
            |views| views.inbox_of("samer", "lena").read_mark = 1,
            &["inbox of samer with lena: read mark 1 is not the log's"],
        ),
        (
            |views| views.inbox_of("lena", "samer").own_seq = 0,
            &["inbox of lena with samer: no own last number, 2 in the log"],
        ),
        (
            |views| views.inbox_of("lena", "samer").own_seq = 4,
            &["inbox of lena with samer: own last number 4 is not the log's"],
        ),
        (
            |views| views.inbox_of("samer", "lena").last.as_mut().unwrap().content.push('!'),
            &["inbox of samer with lena: other last message 4"],
        ),
        (
            |views| views.inbox_of("samer", "lena").last.as_mut().unwrap().seq = 5,
            &["inbox of samer with lena: last message 5 is not the log's"],
        ),
        (
            |views| drop(views.inboxes.remove(&(name("samer"), name("lena")))),
            &["inbox of samer with lena: missing"],
        ),
        (
            |views| views.inbox(&name("lena"), &name("samer")).1 = 0,
            &["inbox of lena with samer: no parked number, 3 in the log"],
        ),
        (
            |views| {
                views.users.remove(&name("lena"));
                views.users.insert(name("samer"), Timestamp(9));
                views.users.insert(name("omar"), Timestamp(9));
            },
            &[
                "user lena: missing",
                "user omar: extra: not in the log",
                "user samer: registered at 1970-01-01T00:00:00.009Z, 1970-01-01T00:00:00.001Z in the log",
            ],
        ),
    ]);
}

#[test]
fn a_row_that_is_newer_than_the_cut_is_compared_too() {
    let log = log();
    let (before, after) = log.split_at(4);
    let wrong = |spoil: fn(&mut Views)| {
        let mut views = Views::of(&log);
        spoil(&mut views);
        listed(before, after, &views)
    };
    assert_eq!(wrong(|views| views.message(4).content.push('!')), ["timeline lena:samer 4: other content"]);
    assert_eq!(wrong(|views| views.mark(5)), ["timeline lena:samer 5: extra: not in the log"]);
    assert_eq!(wrong(|views| views.remove(2)), ["timeline lena:samer 2: missing"]);
    assert_eq!(wrong(|views| views.remove(4)), [] as [&str; 0], "it may come yet");
    assert_eq!(
        wrong(|views| views.inbox_of("lena", "samer").read_mark = 5),
        ["inbox of lena with samer: read mark 5 is not the log's"]
    );
    assert_eq!(
        wrong(|views| views.inbox_of("samer", "lena").last.as_mut().unwrap().content.push('!')),
        ["inbox of samer with lena: last message 4 is not the log's"]
    );
}

/// Else a long comparison of busy views would leave some out.
#[test]
fn rows_that_are_explained_are_held_no_longer() {
    let log = log();
    let (before, after) = log.split_at(4);
    let mut ledger = Ledger::default();
    before.iter().for_each(|delivery| ledger.fold(delivery));
    let (early, late): (Vec<_>, Vec<_>) =
        Views::of(&log).rows().into_iter().partition(|row| matches!(row, ScannedRow::Timeline { .. }));
    for rows in [early, late] {
        rows.into_iter().for_each(|row| ledger.compare(row));
        assert!(ledger.unexplained() > 0);
        after.iter().for_each(|delivery| ledger.explain(delivery));
        assert_eq!(ledger.unexplained(), 0);
    }
    assert_eq!(ledger.finish(), [0; 0]);
    assert_eq!(ledger.differences.found, 0);
}

/// A message that another program could not read: its marker is right once it is settled, and so is the message.
#[test]
fn a_settled_event_may_be_applied_or_not() {
    let log = log();
    let without = [&log[..5], &log[6..]].concat();
    let mut views = Views::of(&without);
    views.mark(4);
    views.inbox(&name("lena"), &name("samer")).1 = 4;
    let position = log[5].position;

    views.parked.insert(position, false);
    assert_eq!(
        listed(&log, &[], &views),
        [
            "timeline lena:samer 4: parked: `projector parked retry` applies it",
            "inbox of lena with samer: last message 2, 4 in the log",
            "inbox of samer with lena: last message 2, 4 in the log, own last number 1, 4 in the log",
        ]
    );
    views.parked.insert(position, true);
    assert_eq!(listed(&log, &[], &views), [] as [&str; 0], "it is given up");
    views.remove(4);
    assert_eq!(listed(&log, &[], &views), ["timeline lena:samer 4: missing"]);
    views.apply(&log[5]);
    assert_eq!(listed(&log, &[], &views), [] as [&str; 0], "it is applied");
    views.message(4).content.push('!');
    let other = "timeline lena:samer 4: neither the log's message nor a marker";
    assert_eq!(listed(&log, &[], &views), [other]);
}

/// A damaged number may be that of a message: the message has the last word.
#[test]
fn a_marker_in_the_place_of_a_message_is_none() {
    for unreadable_first in [true, false] {
        let mut log = vec![sent("samer", "lena", 1, 1)];
        log.insert(usize::from(!unreadable_first), unreadable("samer", "lena", 1, 2));
        let mut views = Views::of(&[unreadable("samer", "lena", 1, 2), sent("samer", "lena", 1, 1)]);
        let found = compare(&log, &[], &views).listed;
        assert!(found.iter().all(|difference| difference.to_string().starts_with("log")), "{found:?}");
        views.remove(1);
        let found = compare(&log, &[], &views).listed;
        assert!(found.iter().any(|found| found.to_string() == "timeline lena:samer 1: missing"), "{found:?}");
    }
}

#[test]
fn the_differences_of_a_long_conversation_are_found_in_parts() {
    let count = 10 * ROWS_HELD + 2;
    let log: Vec<_> = (1..=count).map(|seq| sent("samer", "lena", seq, seq)).collect();
    let mut views = Views::of(&log);
    let wrong = [1, ROWS_HELD, ROWS_HELD + 1, 7 * ROWS_HELD, count];
    wrong.into_iter().for_each(|seq| views.remove(seq));
    views.mark(count + 5);
    let missing = wrong.map(|seq| format!("timeline lena:samer {seq}: missing"));
    let extra = format!("timeline lena:samer {}: extra: not in the log", count + 5);
    assert_eq!(listed(&log, &[], &views), [&missing[..], &[extra]].concat());
}

#[test]
fn no_more_than_the_bound_is_listed() {
    let users: Vec<_> =
        (0..).map(|number| format!("user{number}")).take(DIFFERENCES_LISTED_MAX + 20).collect();
    let log: Vec<_> = users.iter().zip(1..).map(|(user, offset)| registered(user, offset)).collect();
    let differences = compare(&log, &[], &Views::default());
    assert_eq!((differences.found, differences.listed.len()), (log.len() as u64, DIFFERENCES_LISTED_MAX));
}
