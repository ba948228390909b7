//! The algebra of the views: what follows from one history, delivered to two projectors up to five times, in any
//! order and split anywhere, with late writes of one that was asleep, makes the views that it makes once and in
//! order. Seeded, so that a failure comes again; the seed is in its message.

use std::collections::BTreeMap;

use shared::clock::Timestamp;
use shared::ids::{Conversation, Position, Seq, Username};
use shared::limits::BUCKET_MESSAGES;
use shared::message::Message;
use shared::ports::ViewWriter;
use shared::view::{
    InboxChange, InboxRow, ParkedChange, ParkedEvent, ParkedRow, TimelineChange, TimelineEntry, UserRow,
    UsersChange, ViewChange,
};

use crate::contract::words::{mark, marker, message, sent};
use crate::contract::{ViewStores, name, pair};

/// Per conversation and history.
const MESSAGES: u64 = 8;
const PAIRS: [(usize, usize); 3] = [(0, 1), (0, 2), (1, 2)];
const COPIES_MAX: usize = 5;
const BATCH_CHANGES_MAX: usize = 40;

type Batch = Vec<ViewChange>;

pub(super) async fn check(stores: &ViewStores) {
    for seed in 0..stores.histories {
        let once = History::of(seed, 1);
        for change in &once.changes {
            stores.apply(std::slice::from_ref(change)).await;
        }
        once.assert_read(stores).await;

        // The same under other names, as nothing is ever deleted.
        let (again, mut random) = (History::of(seed, 2), Random(!seed));
        let scrambled = random.scrambled(&again.changes);
        let [one, other] = random.dealt(scrambled);
        futures_util::join!(write(&*stores.writer, &one), write(&*stores.other_writer, &other));
        again.assert_read(stores).await;
        // One of them had been asleep, and goes on with what it once read.
        let late: Vec<_> = one.into_iter().filter(|_| random.below(3) == 0).collect();
        write(&*stores.writer, &late).await;
        again.assert_read(stores).await;
    }
}

async fn write(writer: &dyn ViewWriter, batches: &[Batch]) {
    for batch in batches {
        writer.apply(batch.to_vec(), &[]).await.unwrap();
    }
}

/// What happened among three users, in its order, and what operators did about what could not be applied.
struct History {
    seed: u64,
    names: [String; 3],
    /// Number of the first message, per pair: some histories cross the end of a bucket.
    first: [Seq; 3],
    positions: Vec<Position>,
    changes: Batch,
}

impl History {
    fn of(seed: u64, application: u64) -> Self {
        let random = &mut Random(seed);
        let names = ["a", "b", "c"].map(|letter| format!("{letter}-{seed}-{application}"));
        let first = [(); 3].map(|()| if random.below(3) == 0 { BUCKET_MESSAGES - MESSAGES / 2 } else { 1 });
        let mut history = Self { seed, names, first, positions: Vec::new(), changes: Vec::new() };
        for user in 0..3 {
            history.register(user, random);
        }
        for event in 0..MESSAGES {
            for (pair, partition) in PAIRS.iter().zip(0..) {
                let counter = event + application * MESSAGES;
                let position = Position { partition, ms: 1_000 + seed, counter };
                history.positions.push(position);
                history.send(*pair, first[usize::from(partition)] + event, position, random);
            }
        }
        history
    }

    fn register(&mut self, user: usize, random: &mut Random) {
        for seq in 1..=1 + random.below(2) {
            let user =
                UserRow { username: name(&self.names[user]), registered_at: Timestamp(random.below(1_000)) };
            self.changes.push(ViewChange::Users(UsersChange::PutUser { user, seq }));
        }
    }

    fn send(&mut self, pair: (usize, usize), seq: Seq, position: Position, random: &mut Random) {
        let (from, to) = if random.below(2) == 0 { pair } else { (pair.1, pair.0) };
        let message = message(&self.names[from], &self.names[to], seq, &format!("{seq} from {from}"));
        match random.below(4) {
            0 => self.park(&message, position, random),
            _ => self.changes.extend(sent(&message)),
        }
        if random.below(2) == 0 {
            self.changes.push(mark(&self.names[to], &self.names[from], 1 + random.below(seq)));
        }
    }

    /// Delivered to two projectors, whose clocks differ; one of a newer version may have applied it. Then tried
    /// again or not, in vain or not, or given up.
    fn park(&mut self, message: &Message, position: Position, random: &mut Random) {
        let (conversation, changes) = (message.conversation(), &mut self.changes);
        let attempt = |attempts, at| {
            let row = parked_row(position, &conversation, message.seq, attempts, at);
            [marker(&conversation, message.seq), ViewChange::Parked(ParkedChange::PutParked(row))]
        };
        for _ in 0..=random.below(2) {
            changes.extend(attempt(1, random.below(1_000)));
        }
        if random.below(4) == 0 {
            changes.extend(sent(message));
        }
        for attempts in 2..2 + u32::try_from(random.below(3)).expect("it is small") {
            changes.extend(attempt(attempts, random.below(1_000)));
        }
        let settled = ViewChange::Parked(ParkedChange::Settle { position });
        match random.below(3) {
            0 => {}
            1 => changes.push(settled),
            _ => changes.extend(sent(message).into_iter().chain([settled])),
        }
    }

    async fn assert_read(&self, stores: &ViewStores) {
        let (seed, expected) = (self.seed, Expected::of(&self.changes));
        for ((one, other), first) in PAIRS.into_iter().zip(self.first) {
            let pair = pair(&self.names[one], &self.names[other]);
            let rows = expected.timeline.iter().filter(|((conversation, _), _)| *conversation == pair);
            let rows: Vec<_> = rows.map(|(_, entry)| entry.clone()).collect();
            assert_eq!(stores.page(&pair, first, first + MESSAGES - 1).await, rows, "seed {seed}");
            let head = rows.last().map_or(0, TimelineEntry::seq);
            assert_eq!(stores.reader.timeline_head(&pair).await.unwrap(), head, "seed {seed}");
        }
        for text in &self.names {
            let rows = expected.inbox.iter().filter(|((owner, _), _)| owner.as_str() == text);
            let rows: Vec<_> = rows.map(|(_, row)| row.clone()).collect();
            assert_eq!(stores.inbox(text).await, rows, "seed {seed}");
            let user = expected.users.get(&name(text)).map(|(_, row)| row.clone());
            assert_eq!(stores.reader.user(&name(text)).await.unwrap(), user, "seed {seed}");
        }
        for position in &self.positions {
            let row = expected.parked.get(position).cloned().flatten();
            assert_eq!(stores.parked.parked_row(*position).await.unwrap(), row, "seed {seed}");
        }
    }
}

fn parked_row(
    position: Position,
    conversation: &Conversation,
    seq: Seq,
    attempts: u32,
    at: u64,
) -> ParkedRow {
    let place = Some((conversation.clone(), seq));
    // A later program may give another cause.
    let cause = format!("attempt {attempts}");
    let event = ParkedEvent { position, cause, attempts, parked_at: Timestamp(at), place };
    ParkedRow { event, bytes: seq.to_be_bytes().to_vec() }
}

/// The views by the book: one pass, every rule spelled out.
#[derive(Default)]
struct Expected {
    timeline: BTreeMap<(Conversation, Seq), TimelineEntry>,
    inbox: BTreeMap<(Username, Username), InboxRow>,
    users: BTreeMap<Username, (Seq, UserRow)>,
    /// `None`: settled.
    parked: BTreeMap<Position, Option<ParkedRow>>,
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
                ViewChange::Parked(ParkedChange::PutParked(row)) => views.put_parked(row),
                ViewChange::Parked(ParkedChange::Settle { position }) => {
                    views.parked.insert(*position, None);
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
        let place = (owner.clone(), peer.clone());
        self.inbox.entry(place).or_insert_with(|| InboxRow::empty(peer.clone()))
    }

    fn put_parked(&mut self, row: &ParkedRow) {
        let rank = |row: &ParkedRow| (row.event.attempts, row.event.parked_at);
        let stands = self.parked.entry(row.event.position).or_insert_with(|| Some(row.clone()));
        if let Some(stands) = stands
            && rank(stands) < rank(row)
        {
            *stands = row.clone();
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

    /// Each once or more, in any order, split anywhere.
    fn scrambled(&mut self, changes: &[ViewChange]) -> Vec<Batch> {
        let mut left = Vec::new();
        for change in changes {
            left.extend(std::iter::repeat_n(change.clone(), 1 + self.below_usize(COPIES_MAX)));
        }
        self.shuffle(&mut left);
        let mut batches = Vec::new();
        while !left.is_empty() {
            let after = left.split_off(left.len().min(1 + self.below_usize(BATCH_CHANGES_MAX)));
            batches.push(std::mem::replace(&mut left, after));
        }
        batches
    }

    fn dealt(&mut self, batches: Vec<Batch>) -> [Vec<Batch>; 2] {
        let (one, other) = batches.into_iter().partition(|_| self.below(2) == 0);
        [one, other]
    }
}
