//! The algebra of the views: the same changes in any order, any number of times, split anywhere, from one
//! writer or two, make equal views. Seeded, so that a failure comes again; the seed is in its message.

use std::collections::BTreeMap;

use shared::clock::Timestamp;
use shared::ids::{Conversation, Seq, Username};
use shared::message::Message;
use shared::view::{
    InboxChange, InboxRow, ParkedChange, TimelineChange, TimelineEntry, UserRow, UsersChange, ViewChange,
};

use super::words::{between, mark, marker, message, name, sent};
use crate::contract::ViewStores;

const SEEDS: u64 = 6;
/// Events of each kind per seed.
const EVENTS: usize = 40;
const SEQ_MAX: u64 = 12;

/// What each of two writers applies, batch by batch.
type Plan = [Vec<Vec<ViewChange>>; 2];

pub(super) async fn check(stores: &ViewStores) {
    for seed in 0..SEEDS {
        let mut random = Random(seed);
        for plan in [in_order, permuted, repeated_and_split, from_two_writers] {
            // The same events under other names, as nothing is ever deleted.
            let names = ["a", "b", "c"].map(|letter| format!("{letter}-{seed}-{}", random.below(u64::MAX)));
            let changes = generate(&mut Random(seed), &names);
            let [one, other] = plan(changes.clone(), &mut random);
            futures_util::join!(write(stores, &one), write(stores, &other));
            Expected::of(&changes).assert_read(stores, &names, seed).await;
        }
    }
}

async fn write(stores: &ViewStores, batches: &[Vec<ViewChange>]) {
    for batch in batches {
        stores.apply(batch).await;
    }
}

fn in_order(changes: Vec<ViewChange>, _: &mut Random) -> Plan {
    [vec![changes], vec![]]
}

fn permuted(mut changes: Vec<ViewChange>, random: &mut Random) -> Plan {
    random.shuffle(&mut changes);
    [vec![changes], vec![]]
}

fn repeated_and_split(mut changes: Vec<ViewChange>, random: &mut Random) -> Plan {
    changes.extend(changes.clone());
    random.shuffle(&mut changes);
    let mut batches = Vec::new();
    while !changes.is_empty() {
        let after = changes.split_off(changes.len().min(1 + random.below_usize(40)));
        batches.push(std::mem::replace(&mut changes, after));
    }
    [batches, vec![]]
}

fn from_two_writers(changes: Vec<ViewChange>, random: &mut Random) -> Plan {
    [(); 2].map(|()| {
        let mut own = changes.clone();
        random.shuffle(&mut own);
        own.chunks(60).map(<[_]>::to_vec).collect()
    })
}

fn generate(random: &mut Random, names: &[String; 3]) -> Vec<ViewChange> {
    let mut changes = Vec::new();
    for _ in 0..EVENTS {
        let (low, high) = [(0, 1), (0, 2), (1, 2)][random.below_usize(3)];
        let seq = 1 + random.below(SEQ_MAX);
        // Who sent number `seq` of a conversation is decided once, as in a log.
        let (sender, recipient) =
            if (seq + low as u64).is_multiple_of(3) { (low, high) } else { (high, low) };
        let message = message(&names[sender], &names[recipient], seq, &format!("{seq} from {sender}"));
        match random.below(4) {
            0 => changes.push(marker(&message.conversation(), seq)),
            1 => changes.extend([marker(&message.conversation(), seq)].into_iter().chain(sent(&message))),
            _ => changes.extend(sent(&message)),
        }
        changes.push(mark(&names[recipient], &names[sender], 1 + random.below(SEQ_MAX)));
        let registered_at = Timestamp(1_000 + seq);
        let user = UserRow { username: name(&names[sender]), registered_at };
        changes.push(ViewChange::Users(UsersChange::PutUser { user, seq }));
    }
    changes
}

/// The views by the book: one pass, every rule spelled out.
#[derive(Default)]
struct Expected {
    timeline: BTreeMap<(Conversation, Seq), TimelineEntry>,
    inbox: BTreeMap<(Username, Username), InboxRow>,
    users: BTreeMap<Username, (Seq, UserRow)>,
}

impl Expected {
    fn of(changes: &[ViewChange]) -> Self {
        let mut views = Self::default();
        for change in changes {
            match change {
                ViewChange::Timeline(TimelineChange::PutMessage(message)) => {
                    let place = (message.conversation(), message.seq);
                    views.timeline.insert(place, TimelineEntry::Message(message.clone()));
                }
                ViewChange::Timeline(TimelineChange::PutMarker { conversation, seq }) => {
                    let place = (conversation.clone(), *seq);
                    views.timeline.entry(place).or_insert(TimelineEntry::Parked { seq: *seq });
                }
                ViewChange::Inbox(InboxChange::PutMessage { owner, message }) => {
                    views.put_last(owner, message)
                }
                ViewChange::Inbox(InboxChange::PutReadMark { owner, peer, seq }) => {
                    let row = views.row(owner, peer);
                    row.read_mark = row.read_mark.max(*seq);
                }
                ViewChange::Users(UsersChange::PutUser { user, seq }) => {
                    let known = views.users.entry(user.username.clone()).or_insert((0, user.clone()));
                    if *seq > known.0 {
                        *known = (*seq, user.clone());
                    }
                }
                ViewChange::Parked(ParkedChange::PutParked(_) | ParkedChange::Settle { .. }) => {
                    unreachable!("none is generated")
                }
            }
        }
        views
    }

    fn put_last(&mut self, owner: &Username, message: &Message) {
        let own = message.sender == *owner;
        let row = self.row(owner, if own { &message.recipient } else { &message.sender });
        if message.seq >= row.head_seq() {
            row.last = Some(message.clone());
        }
        if own {
            row.own_seq = row.own_seq.max(message.seq);
        }
    }

    fn row(&mut self, owner: &Username, peer: &Username) -> &mut InboxRow {
        let empty = InboxRow { peer: peer.clone(), last: None, own_seq: 0, read_mark: 0 };
        self.inbox.entry((owner.clone(), peer.clone())).or_insert(empty)
    }

    async fn assert_read(&self, stores: &ViewStores, names: &[String; 3], seed: u64) {
        for (one, other) in [(0, 1), (0, 2), (1, 2)] {
            let pair = between(&names[one], &names[other]);
            let rows = self.timeline.iter().filter(|((conversation, _), _)| *conversation == pair);
            let expected: Vec<_> = rows.map(|(_, entry)| entry.clone()).collect();
            assert_eq!(stores.page(&pair, 1, SEQ_MAX).await, expected, "seed {seed}");
            let head = expected.last().map_or(0, TimelineEntry::seq);
            assert_eq!(stores.reader.timeline_head(&pair).await.unwrap(), head, "seed {seed}");
        }
        for text in names {
            let rows = self.inbox.iter().filter(|((owner, _), _)| owner.as_str() == text);
            assert_eq!(
                stores.inbox(text).await,
                rows.map(|(_, row)| row.clone()).collect::<Vec<_>>(),
                "seed {seed}"
            );
            let user = self.users.get(&name(text)).map(|(_, row)| row.clone());
            assert_eq!(stores.reader.user(&name(text)).await.unwrap(), user, "seed {seed}");
        }
    }
}

/// A linear congruential generator (Knuth's MMIX numbers): repeatable, and good enough to shuffle with.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }

    fn below_usize(&mut self, bound: usize) -> usize {
        usize::try_from(self.below(bound as u64)).expect("below a usize")
    }

    fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below_usize(last + 1));
        }
    }
}
