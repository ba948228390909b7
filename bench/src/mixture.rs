//! What people read while they send: pages that change, pages of the past, inboxes, and what they have just sent.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use serde::Deserialize;

use crate::reads::{LIMIT, request};
use crate::sends::{Population, Random, Requests, Source, name};

/// From one page of the past to the next. A prime that divides no number of pages here.
const STRIDE: u64 = 7_919;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Read {
    /// The newest page of a conversation that everybody reads again and again, asked for by either of its names first.
    Hot,
    /// A page that ends before its conversation does, each once before any comes again.
    Past,
    Inbox,
    /// The newest page with the message that was acknowledged last (`min_seq`), by its sender.
    Own,
}

/// A message that was acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Sent {
    sender: u64,
    recipient: u64,
    seq: u64,
}

/// The message that was acknowledged last and that nobody has read yet.
#[derive(Debug, Clone, Default)]
pub(crate) struct LastSent(Arc<Mutex<Option<Sent>>>);

impl LastSent {
    fn put(&self, sent: Sent) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(sent);
    }

    fn take(&self) -> Option<Sent> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// The same sends; what they were answered is told to those that read it.
pub(crate) fn told(sends: Arc<dyn Source>, last: LastSent) -> Arc<dyn Source> {
    Arc::new(Told { sends, last })
}

struct Told {
    sends: Arc<dyn Source>,
    last: LastSent,
}

impl Source for Told {
    fn requests(&self, connection: usize) -> Box<dyn Requests> {
        Box::new(ToldOfOne { requests: self.sends.requests(connection), last: self.last.clone() })
    }
}

struct ToldOfOne {
    requests: Box<dyn Requests>,
    last: LastSent,
}

impl Requests for ToldOfOne {
    fn next(&mut self) -> &[u8] {
        self.requests.next()
    }

    fn heard(&mut self, body: &[u8]) {
        self.last.put(sent(body).expect("a send is answered with its message"));
    }
}

fn sent(body: &[u8]) -> Option<Sent> {
    #[derive(Deserialize)]
    struct Message<'a> {
        sender: &'a str,
        recipient: &'a str,
        seq: u64,
    }
    let Message { sender, recipient, seq } = serde_json::from_slice(body).ok()?;
    // Names are a letter and the user's number.
    let number = |name: &str| name.get(1..)?.parse().ok();
    Some(Sent { sender: number(sender)?, recipient: number(recipient)?, seq })
}

/// Reads of the senders of a population, of these kinds in equal parts.
pub(crate) struct Mixture {
    pub(crate) population: Population,
    /// Of the senders, in their order.
    pub(crate) tokens: Vec<String>,
    pub(crate) kinds: &'static [Read],
    pub(crate) last: LastSent,
    /// Pages of the past asked for so far.
    pub(crate) past: Arc<AtomicU64>,
}

impl Source for Mixture {
    fn requests(&self, connection: usize) -> Box<dyn Requests> {
        let Self { population, ref tokens, kinds, ref last, ref past } = *self;
        let (tokens, last, past) = (tokens.clone(), last.clone(), past.clone());
        let mixture = Self { population, tokens, kinds, last, past };
        Box::new(MixtureOfOne { mixture, random: Random::new(connection as u64), request: Vec::new() })
    }
}

struct MixtureOfOne {
    mixture: Mixture,
    random: Random,
    request: Vec<u8>,
}

impl Requests for MixtureOfOne {
    fn next(&mut self) -> &[u8] {
        let drawn = self.random.next();
        let kinds = self.mixture.kinds;
        let kind = kinds[usize::try_from(drawn >> 32).unwrap_or_default() % kinds.len()];
        let (sender, path) = self.mixture.path(kind, drawn);
        self.request =
            request(&path, &self.mixture.tokens[usize::try_from(sender).unwrap_or_default()]).into();
        &self.request
    }
}

impl Mixture {
    /// Who reads, and what.
    fn path(&self, kind: Read, drawn: u64) -> (u64, String) {
        let sender = drawn % self.tokens.len() as u64;
        let path = match kind {
            Read::Hot => self.hot(sender, drawn),
            Read::Past => return self.past(),
            Read::Inbox => "/conversations".to_owned(),
            Read::Own => match self.last.take() {
                Some(Sent { sender, recipient, seq }) => {
                    return (sender, format!("{}&min_seq={seq}", newest(sender, recipient)));
                }
                // All were read already.
                None => self.hot(sender, drawn),
            },
        };
        (sender, path)
    }

    fn hot(&self, sender: u64, drawn: u64) -> String {
        let peer = self.population.peer(sender, 0);
        if drawn >> 63 == 0 { newest(sender, peer) } else { newest(peer, sender) }
    }

    fn past(&self) -> (u64, String) {
        let Population { conversations, messages, .. } = self.population;
        let turn = self.past.fetch_add(1, Ordering::Relaxed).wrapping_mul(STRIDE);
        let page = turn % (conversations * (messages - LIMIT + 1));
        let (conversation, before) = (page % conversations, LIMIT + 1 + page / conversations);
        let peers = self.population.peers_per_sender();
        let (sender, nth) = (conversation / peers, conversation % peers);
        let path = newest(sender, self.population.peer(sender, nth));
        (sender, format!("{path}&before={before}&limit={LIMIT}"))
    }
}

fn newest(one: u64, other: u64) -> String {
    format!("/messages?sender={}&recipient={}", name(one), name(other))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn mixture(kinds: &'static [Read]) -> Mixture {
        let population = Population { users: 150, conversations: 100, messages: 100 };
        let tokens = (0..50).map(|sender| format!("T{sender}")).collect();
        Mixture { population, tokens, kinds, last: LastSent::default(), past: Arc::default() }
    }

    #[test]
    fn every_page_of_the_past_has_its_turn() {
        let mixture = mixture(&[Read::Past]);
        let paths: BTreeSet<String> = (0..100 * 51).map(|_| mixture.past().1).collect();
        assert_eq!(paths.len(), 100 * 51);
        let last = "/messages?sender=u0000049&recipient=u0000149&before=101&limit=50";
        assert!(paths.contains(last), "{paths:?}");
    }

    #[test]
    fn who_has_sent_reads_it_once() {
        let mixture = mixture(&[Read::Own]);
        let mut sends =
            ToldOfOne { requests: Box::new(crate::sends::Always(Vec::new())), last: mixture.last.clone() };
        sends.heard(br#"{"id":"1","seq":7,"sender":"u0000003","recipient":"u0000060","content":"hi"}"#);
        let mut reads = mixture.requests(0);
        let request = String::from_utf8(reads.next().to_vec()).unwrap();
        let path = "GET /messages?sender=u0000003&recipient=u0000060&min_seq=7 HTTP/1.1\r\n";
        assert!(request.starts_with(path) && request.contains("Bearer T3\r\n"), "{request}");
        assert!(!String::from_utf8_lossy(reads.next()).contains("min_seq"));
    }
}
