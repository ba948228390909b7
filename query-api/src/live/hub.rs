//! The streams that are open, over one ring. A stream is a place in the ring and no queue: what it was not sent yet is
//! held once for all, and an idle one holds next to nothing.

use std::collections::{HashMap, VecDeque};
use std::task::{Context, Waker};
use std::time::Duration;

use bytes::Bytes;
use shared::limits::{LIVE_FOLLOWED_FOR, LIVE_UNSENT_BYTES_MAX, LIVE_UNSENT_MAX};
use shared::ports::{Delivery, LogEnd, SessionKey};
use shared::process::http::Hangup;
use shared::{Timestamp, Username};
use tokio::time::Instant;

use super::ring::{self, LiveEvent, Missed, Ring, Taken};

/// Everything that changes; behind one lock, never held for longer than it takes to change it.
#[derive(Default)]
pub(super) struct Hub {
    /// `None`: nobody listens, or the log was not there yet.
    ring: Option<Ring>,
    streams: HashMap<Username, Vec<Stream>>,
    /// When somebody came last to listen.
    wanted: Option<Instant>,
    opened: u64,
    has_ended: bool,
}

/// Whom a stream belongs to, and which of his it is.
#[derive(Debug, Clone)]
pub(super) struct StreamKey {
    pub(super) user: Username,
    number: u64,
}

/// What a stream is opened with.
pub(super) struct Opening {
    pub(super) user: Username,
    pub(super) session: SessionKey,
    pub(super) hangup: Hangup,
    /// Of the last event that the reader got.
    pub(super) last_event_id: Option<String>,
    /// How long it may say nothing.
    pub(super) silence: Duration,
    /// When its session is to be asked for again first.
    pub(super) ask_at: Instant,
}

struct Stream {
    number: u64,
    session: SessionKey,
    ask_at: Instant,
    hangup: Hangup,
    opened: Instant,
    /// What happened while the reader was away: numbers below `next`.
    missed: VecDeque<u64>,
    /// From this number on nothing was sent.
    next: u64,
    waker: Option<Waker>,
    silence: Duration,
    speak_at: Instant,
    /// It has said nothing for long enough.
    must_speak: bool,
    /// It has missed what nobody holds.
    must_reset: bool,
    /// Since when it is to end.
    ending: Option<Instant>,
}

/// What a stream says next.
#[derive(Debug)]
pub(super) enum Next {
    /// `live`: since when, by the log's clock, unless it is told late because its reader was away.
    Event {
        id: String,
        text: Bytes,
        live: Option<Timestamp>,
    },
    Reset {
        id: String,
    },
    /// Nothing happened up to there.
    Quiet {
        id: String,
    },
    /// Its task is woken.
    Wait,
    End,
}

/// Why a stream is not opened.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Closed {
    NotBegun,
    Ended,
}

impl Hub {
    /// Somebody comes to listen.
    pub(super) fn want(&mut self, now: Instant) {
        self.wanted = Some(now);
    }

    /// Whether the log is to be followed. The ring is given up when nobody has listened for long.
    pub(super) fn is_wanted(&mut self, now: Instant) -> bool {
        if !self.streams.is_empty() {
            self.wanted = Some(now);
        }
        let wanted = self.wanted.is_some_and(|last| last + LIVE_FOLLOWED_FOR > now);
        if !wanted {
            self.ring = None;
        }
        wanted
    }

    pub(super) fn has_begun(&self) -> bool {
        self.ring.is_some()
    }

    pub(super) fn begin(&mut self, end: LogEnd, now: Instant) {
        self.ring = Some(Ring::new(end, now));
    }

    pub(super) fn ring(&self) -> Option<&Ring> {
        self.ring.as_ref()
    }

    /// Whom to wake, and how many were cut.
    pub(super) fn take(&mut self, batch: &mut [Delivery], now: Instant) -> (Vec<Waker>, u64) {
        let Self { ring: Some(ring), streams, .. } = self else { return (Vec::new(), 0) };
        ring::in_order(batch);
        let (mut wakers, mut cut) = (Vec::new(), 0);
        for delivery in batch {
            match ring.take(delivery, now) {
                Taken::Nothing => {}
                Taken::Event(users) => {
                    for user in &users {
                        let streams = streams.get_mut(user).into_iter().flatten();
                        wakers.extend(streams.filter_map(|stream| stream.waker.take()));
                    }
                }
                Taken::Gap => {
                    for stream in streams.values_mut().flatten() {
                        stream.must_reset = true;
                        wakers.extend(stream.waker.take());
                    }
                }
            }
            while let Some((number, users)) = ring.evict_one_too_many() {
                // Who had not been sent it is slower than all the others are fast.
                for stream in users.iter().filter_map(|user| streams.get(user)).flatten() {
                    if stream.next <= number || stream.missed.front().is_some_and(|first| *first <= number) {
                        cut += u64::from(stream.hangup.cut());
                    }
                }
            }
        }
        (wakers, cut)
    }

    pub(super) fn open(&mut self, opening: Opening, now: Instant) -> Result<StreamKey, Closed> {
        if self.has_ended {
            return Err(Closed::Ended);
        }
        let ring = self.ring.as_ref().ok_or(Closed::NotBegun)?;
        let Opening { user, session, hangup, last_event_id, silence, ask_at } = opening;
        let missed = last_event_id.map_or(Ok(Vec::new()), |text| ring.missed(&user, &text));
        self.opened += 1;
        let number = self.opened;
        self.streams.entry(user.clone()).or_default().push(Stream {
            number,
            session,
            ask_at,
            hangup,
            opened: now,
            must_reset: missed == Err(Missed),
            missed: missed.unwrap_or_default().into(),
            next: ring.end(),
            waker: None,
            silence,
            speak_at: now + silence,
            // A reader who has heard nothing yet has a position to come back with.
            must_speak: true,
            ending: None,
        });
        Ok(StreamKey { user, number })
    }

    pub(super) fn close(&mut self, key: &StreamKey) {
        if let Some(of_user) = self.streams.get_mut(&key.user) {
            of_user.retain(|stream| stream.number != key.number);
            if of_user.is_empty() {
                self.streams.remove(&key.user);
            }
        }
    }

    pub(super) fn next(&mut self, key: &StreamKey, context: &Context<'_>, now: Instant) -> Next {
        let Self { ring: Some(ring), streams, has_ended: false, .. } = self else { return Next::End };
        let StreamKey { user, number } = key;
        let of_user = streams.get_mut(user).map(|streams| streams.iter_mut()).into_iter().flatten();
        let Some(stream) = of_user.into_iter().find(|stream| stream.number == *number) else {
            return Next::End;
        };
        if stream.ending.is_some() {
            return Next::End;
        }
        if stream.must_reset {
            (stream.must_reset, stream.next) = (false, ring.end());
            stream.missed.clear();
            stream.speaks(now);
            return Next::Reset { id: ring.last_id(user) };
        }
        if let Some(event) = stream.advance(ring, user) {
            stream.speaks(now);
            let live = (event.since >= stream.opened).then(|| event.at());
            return Next::Event { id: ring.id(user, event), text: event.text.clone(), live };
        }
        if stream.must_speak {
            stream.speaks(now);
            return Next::Quiet { id: ring.last_id(user) };
        }
        stream.waker = Some(context.waker().clone());
        Next::Wait
    }

    /// Once a second or so: has those speak that said nothing for long, and cuts off those that are not listened to.
    /// Whom to wake, and how many were cut.
    pub(super) fn look_after(&mut self, now: Instant) -> (Vec<Waker>, u64) {
        let Self { ring: Some(ring), streams, .. } = self else { return (Vec::new(), 0) };
        let (mut wakers, mut cut) = (Vec::new(), 0);
        for (user, streams) in streams {
            for stream in streams {
                if stream.is_stuck(ring, user, now) {
                    cut += u64::from(stream.hangup.cut());
                } else if now >= stream.speak_at {
                    stream.must_speak = true;
                    wakers.extend(stream.waker.take());
                }
            }
        }
        (wakers, cut)
    }

    /// The sessions to ask for now, each with its user, and when to do so next.
    pub(super) fn sessions_to_ask(&mut self, now: Instant, again: Duration) -> HashMap<SessionKey, Username> {
        let mut due = HashMap::new();
        for (user, streams) in &mut self.streams {
            for stream in streams.iter_mut().filter(|stream| stream.ask_at <= now) {
                stream.ask_at = now + again;
                due.insert(stream.session, user.clone());
            }
        }
        due
    }

    /// The session of the user is lost: its streams end.
    pub(super) fn end_session(&mut self, user: &Username, session: SessionKey, now: Instant) -> Vec<Waker> {
        let streams = self.streams.get_mut(user).map(|streams| streams.iter_mut()).into_iter().flatten();
        let lost = streams.filter(|stream| stream.session == session);
        lost.filter_map(|stream| {
            stream.ending.get_or_insert(now);
            stream.waker.take()
        })
        .collect()
    }

    /// All streams end. Others can be opened when it has begun again.
    pub(super) fn give_up(&mut self, now: Instant) -> Vec<Waker> {
        self.ring = None;
        let streams = self.streams.values_mut().flatten();
        let ended = streams.filter_map(|stream| {
            stream.ending.get_or_insert(now);
            stream.waker.take()
        });
        ended.collect()
    }

    /// All streams end, and none is opened any more.
    pub(super) fn end(&mut self) -> Vec<Waker> {
        self.has_ended = true;
        self.streams.values_mut().flatten().filter_map(|stream| stream.waker.take()).collect()
    }
}

impl Stream {
    fn speaks(&mut self, now: Instant) {
        (self.must_speak, self.speak_at) = (false, now + self.silence);
    }

    /// The next event for its reader, if there is one.
    fn advance<'a>(&mut self, ring: &'a Ring, user: &Username) -> Option<&'a LiveEvent> {
        if let Some(number) = self.missed.pop_front() {
            return ring.get(number);
        }
        let number = ring.of_user(user, self.next).next();
        self.next = number.map_or(ring.end(), |number| number + 1);
        number.and_then(|number| ring.get(number))
    }

    /// Whether its reader takes too little, or does not see that it is at its end.
    fn is_stuck(&self, ring: &Ring, user: &Username, now: Instant) -> bool {
        if self.ending.is_some_and(|since| now > since) {
            return true;
        }
        let mut bytes = 0;
        let unsent = self.missed.iter().copied().chain(ring.of_user(user, self.next));
        unsent.filter_map(|number| ring.get(number)).any(|event| {
            bytes += event.text.len();
            bytes > LIVE_UNSENT_BYTES_MAX || event.since.max(self.opened) + LIVE_UNSENT_MAX < now
        })
    }
}

#[cfg(test)]
mod tests;
