//! The latest events of the log, as readers are sent them: each is written once, whoever gets it. What is older than
//! the ring's bounds is forgotten, and the ring knows it: who would need it is told to reload.

use std::collections::{HashMap, VecDeque};

use bytes::Bytes;
use serde::Serialize;
use shared::event::{ConversationRead, Event};
use shared::limits::{LIVE_EVENTS_MAX, LIVE_RING_BYTES_MAX, LIVE_UNSENT_BYTES_MAX};
use shared::message::Message;
use shared::ports::{Delivery, LogEnd};
use shared::{Position, Seq, Timestamp, Username};
use tokio::time::Instant;

use super::place::{self, Place};

/// What one event takes beside its bytes: itself, and its entries in two indexes.
const EVENT_OVERHEAD_BYTES: usize = 256;

pub(super) struct Ring {
    log: String,
    /// Every event behind this is held.
    behind: Place,
    /// The last entry that was read.
    seen: Place,
    /// Of the last entry of each partition; `None`: it could not be read, or there is none.
    offsets: Vec<Option<u64>>,
    events: VecDeque<LiveEvent>,
    /// The number of the first one held. They are counted from the start of the process.
    first: u64,
    bytes: usize,
    /// The numbers of what concerns a user, rising.
    by_user: HashMap<Username, VecDeque<u64>>,
}

pub(super) struct LiveEvent {
    pub(super) position: Position,
    /// `event:` and `data:`, with the empty line behind.
    pub(super) text: Bytes,
    /// The body of the place that this event completes.
    place: Box<[u8]>,
    /// Whom it concerns: the two of a message, the reader of a mark.
    users: Vec<Username>,
    pub(super) since: Instant,
}

impl LiveEvent {
    pub(super) fn at(&self) -> Timestamp {
        Timestamp(self.position.ms)
    }

    fn bytes(&self) -> usize {
        self.text.len() + self.place.len() + EVENT_OVERHEAD_BYTES
    }
}

/// What moved with an entry.
pub(super) enum Taken {
    /// It concerns nobody who reads.
    Nothing,
    /// It concerns these.
    Event(Vec<Username>),
    /// Entries before it were not read: nothing is held any more, and all readers have missed something.
    Gap,
}

/// What a reader has missed is not held, or it is too much.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Missed;

impl Ring {
    pub(super) fn new(LogEnd { log, behind, mut entries }: LogEnd, now: Instant) -> Self {
        let behind_place = Place::new(&behind);
        let mut ring = Self {
            log,
            seen: behind_place.clone(),
            behind: behind_place,
            offsets: vec![None; behind.len()],
            events: VecDeque::new(),
            first: 0,
            bytes: 0,
            by_user: HashMap::new(),
        };
        in_order(&mut entries);
        for delivery in &entries {
            ring.take(delivery, now);
            while ring.evict_one_too_many().is_some() {}
        }
        ring
    }

    pub(super) fn take(&mut self, delivery: &Delivery, now: Instant) -> Taken {
        let position = delivery.position;
        self.seen.advance(&position);
        let Some(last) = self.offsets.get_mut(usize::from(position.partition)) else { return Taken::Nothing };
        let offset = delivery.content.as_ref().ok().map(|recorded| recorded.offset);
        let follows = last.zip(offset).is_none_or(|(last, offset)| last.checked_add(1) == Some(offset));
        *last = offset;
        if !follows {
            self.forget_all();
            return Taken::Gap;
        }
        // What cannot be read is parked by the projectors, and shown to nobody.
        let Some((users, text)) = delivery.content.as_ref().ok().and_then(|recorded| match &recorded.event {
            Event::MessageSent(sent) => {
                let users = vec![sent.sender.clone(), sent.recipient.clone()];
                Some((users, text("message", &Message::new(recorded, sent))))
            }
            Event::ConversationRead(read) => {
                Some((vec![read.reader.clone()], text("read", &Mark::new(read))))
            }
            Event::UserRegistered(_) => None,
        }) else {
            return Taken::Nothing;
        };
        let place = self.seen.body().into();
        let event = LiveEvent { position, text, place, users: users.clone(), since: now };
        self.bytes += event.bytes();
        let number = self.end();
        for user in &users {
            self.by_user.entry(user.clone()).or_default().push_back(number);
        }
        self.events.push_back(event);
        Taken::Event(users)
    }

    /// Forgets the oldest event if there are more than the bounds allow: its number, and whom it concerned.
    pub(super) fn evict_one_too_many(&mut self) -> Option<(u64, Vec<Username>)> {
        if self.events.len() <= LIVE_EVENTS_MAX && self.bytes <= LIVE_RING_BYTES_MAX {
            return None;
        }
        let event = self.events.pop_front()?;
        let number = self.first;
        self.first += 1;
        self.bytes -= event.bytes();
        self.behind.advance(&event.position);
        for user in &event.users {
            if let Some(numbers) = self.by_user.get_mut(user) {
                numbers.pop_front();
                if numbers.is_empty() {
                    self.by_user.remove(user);
                }
            }
        }
        Some((number, event.users))
    }

    fn forget_all(&mut self) {
        self.first = self.end();
        self.events.clear();
        self.by_user.clear();
        self.bytes = 0;
        self.behind = self.seen.clone();
    }

    /// The number of the next event.
    pub(super) fn end(&self) -> u64 {
        self.first + self.events.len() as u64
    }

    pub(super) fn get(&self, number: u64) -> Option<&LiveEvent> {
        self.events.get(usize::try_from(number.checked_sub(self.first)?).ok()?)
    }

    /// What concerns the user, from a number on.
    pub(super) fn of_user(&self, user: &Username, from: u64) -> impl Iterator<Item = u64> {
        let numbers = self.by_user.get(user);
        let begin = numbers.map_or(0, |numbers| numbers.partition_point(|number| *number < from));
        numbers.into_iter().flat_map(move |numbers| numbers.range(begin..)).copied()
    }

    /// The numbers of what concerns the user and lies behind the place of this text.
    pub(super) fn missed(&self, user: &Username, text: &str) -> Result<Vec<u64>, Missed> {
        let seen = place::unseal(user, &self.log, text).ok_or(Missed)?;
        if !seen.covers(&self.behind) {
            return Err(Missed);
        }
        let is_new = |number: &u64| self.get(*number).is_some_and(|event| !seen.reaches(&event.position));
        let missed: Vec<u64> = self.of_user(user, 0).filter(is_new).collect();
        let bytes: usize =
            missed.iter().filter_map(|number| self.get(*number)).map(|event| event.text.len()).sum();
        if bytes > LIVE_UNSENT_BYTES_MAX { Err(Missed) } else { Ok(missed) }
    }

    /// The text of the place that an event completes, for one of its readers.
    pub(super) fn id(&self, reader: &Username, event: &LiveEvent) -> String {
        place::seal(reader, &self.log, &event.place)
    }

    /// The text of the place that everything read so far completes.
    pub(super) fn last_id(&self, reader: &Username) -> String {
        place::seal(reader, &self.log, &self.seen.body())
    }

    pub(super) fn len(&self) -> usize {
        self.events.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}

/// By time, and so in log order within each partition: what is sent is roughly in the order in which it happened.
pub(super) fn in_order(entries: &mut [Delivery]) {
    entries.sort_by_key(|Delivery { position, .. }| (position.ms, position.partition, position.counter));
}

#[derive(Serialize)]
struct Mark<'a> {
    peer: &'a Username,
    seq: Seq,
}

impl<'a> Mark<'a> {
    fn new(read: &'a ConversationRead) -> Self {
        Self { peer: &read.peer, seq: read.seq }
    }
}

/// JSON has no line break in it.
fn text(kind: &str, data: &impl Serialize) -> Bytes {
    let data = serde_json::to_string(data).expect("strings and numbers are always JSON");
    format!("event: {kind}\ndata: {data}\n\n").into()
}
