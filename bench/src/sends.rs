//! The requests of the load: who sends to whom, as ready bytes. A request is a template in which two numbers of
//! fixed width are overwritten, so that making one costs next to nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Users that hold a session and send; all others only receive.
pub(crate) const SENDERS: u64 = 50;
/// What `content` holds. ASCII, so characters are bytes.
pub(crate) const CONTENT_CHARS: usize = 100;
const PEER_DIGITS: usize = 7;
const COUNT_DIGITS: usize = 10;

/// How many there are of what the sends meet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub(crate) struct Population {
    pub(crate) users: u64,
    /// Pairs that the sends go to: a multiple of [`SENDERS`].
    pub(crate) conversations: u64,
    /// The last `seq` of each of them.
    pub(crate) messages: u64,
}

impl Population {
    pub(crate) const USUAL: Self = Self { users: 1_000, conversations: 5_000, messages: 1 };

    pub(crate) fn peers_per_sender(&self) -> u64 {
        self.conversations / SENDERS
    }

    /// The number of the user that is `nth` peer of a sender: never a sender, and another one for each `nth`.
    pub(crate) fn peer(&self, sender: u64, nth: u64) -> u64 {
        SENDERS + (sender * self.peers_per_sender() + nth) % (self.users - SENDERS)
    }

    /// Each sender with each of its peers.
    pub(crate) fn pairs(self) -> impl Iterator<Item = (u64, u64)> {
        let nths = 0..self.peers_per_sender();
        (0..SENDERS).flat_map(move |sender| nths.clone().map(move |nth| (sender, self.peer(sender, nth))))
    }
}

/// All names have the same length.
pub(crate) fn name(user: u64) -> String {
    format!("u{user:0PEER_DIGITS$}")
}

/// What every message says.
pub(crate) fn content() -> String {
    let mut content = "All work and no play makes a dull chat. ".repeat(3);
    content.truncate(CONTENT_CHARS);
    content
}

/// Numbers in no order, and the same in every run: xorshift.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        // Any odd number will do.
        Self((seed + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

/// Where the requests of a measurement come from.
pub(crate) trait Source: Send + Sync {
    fn requests(&self, connection: usize) -> Box<dyn Requests>;
}

/// The requests of one connection, without end.
pub(crate) trait Requests: Send {
    fn next(&mut self) -> &[u8];

    /// The body of the answer to the last one, if it was accepted; told in an open loop only.
    fn heard(&mut self, _body: &[u8]) {}
}

/// `POST /send` from users with sessions, over all conversations of a population.
pub(crate) struct Sends {
    population: Population,
    /// Of the senders, in their order.
    tokens: Vec<String>,
    /// Whether each send carries an `Idempotency-Key`.
    keyed: bool,
    /// In every key, so that no two runs use the same.
    run: String,
    /// Connections that were given requests so far: no two use the same key.
    streams: AtomicU64,
}

impl Sends {
    pub(crate) fn new(population: Population, tokens: Vec<String>, keyed: bool, run: String) -> Arc<Self> {
        Arc::new(Self { population, tokens, keyed, run, streams: AtomicU64::new(0) })
    }
}

impl Source for Sends {
    fn requests(&self, connection: usize) -> Box<dyn Requests> {
        let sender = connection % self.tokens.len();
        let key = self.keyed.then(|| {
            let stream = self.streams.fetch_add(1, Ordering::Relaxed);
            format!("Idempotency-Key: {}-{stream:07}-{:0COUNT_DIGITS$}\r\n", self.run, 0)
        });
        let request = send(&self.tokens[sender], key.as_deref().unwrap_or_default(), 0);
        let at = |text: &str| request.find(text).expect("it is in the template") + text.len();
        let peer_at = at(r#"{"recipient":"u"#);
        let count_at = key.map(|key| at(&key) - COUNT_DIGITS - "\r\n".len());
        Box::new(SendsOfOne {
            population: self.population,
            sender: sender as u64,
            request: request.into_bytes(),
            peer_at,
            count_at,
            count: 0,
            // Connections begin at different peers.
            random: Random::new(connection as u64),
        })
    }
}

struct SendsOfOne {
    population: Population,
    sender: u64,
    request: Vec<u8>,
    peer_at: usize,
    count_at: Option<usize>,
    count: u64,
    random: Random,
}

impl Requests for SendsOfOne {
    fn next(&mut self) -> &[u8] {
        // Peers in no order, so that no cache is helped by one.
        let peer = self.population.peer(self.sender, self.random.next() % self.population.peers_per_sender());
        put_digits(&mut self.request[self.peer_at..][..PEER_DIGITS], peer);
        if let Some(at) = self.count_at {
            self.count += 1;
            put_digits(&mut self.request[at..][..COUNT_DIGITS], self.count);
        }
        &self.request
    }
}

/// The whole request; `key` is a line of the header, or nothing.
pub(crate) fn send(token: &str, key: &str, peer: u64) -> String {
    let body = format!(r#"{{"recipient":"{}","content":"{}"}}"#, name(peer), content());
    let length = body.len();
    format!(
        "POST /send HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {token}\r\n{key}\
         Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    )
}

fn put_digits(place: &mut [u8], mut number: u64) {
    for digit in place.iter_mut().rev() {
        *digit = b'0' + u8::try_from(number % 10).expect("one digit");
        number /= 10;
    }
}

/// `POST /login` of the senders, with the right password: the most expensive request there is.
pub(crate) struct Logins;

impl Source for Logins {
    fn requests(&self, connection: usize) -> Box<dyn Requests> {
        Box::new(Always(login(&name(connection as u64 % SENDERS))))
    }
}

/// The same request again and again.
pub(crate) struct Always(pub(crate) Vec<u8>);

impl Requests for Always {
    fn next(&mut self) -> &[u8] {
        &self.0
    }
}

/// Of every user of a population.
pub(crate) const PASSWORD: &str = "password123";

pub(crate) fn login(user: &str) -> Vec<u8> {
    let body = format!(r#"{{"username":"{user}","password":"{PASSWORD}"}}"#);
    let head = "POST /login HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\nContent-Length:";
    format!("{head} {}\r\n\r\n{body}", body.len()).into_bytes()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_population_has_as_many_conversations_as_it_says() {
        for (users, conversations) in [(100, 100), (1_000, 5_000), (10_000, 100), (10_000, 10_000)] {
            let population = Population { users, conversations, messages: 0 };
            let pairs: BTreeSet<(u64, u64)> = population.pairs().collect();
            assert_eq!(pairs.len() as u64, conversations);
            assert!(pairs.iter().all(|(_, peer)| (SENDERS..users).contains(peer)));
        }
    }

    #[test]
    fn requests_are_whole_and_differ() {
        for keyed in [false, true] {
            let sends = Sends::new(Population::USUAL, vec!["T0".into(), "T1".into()], keyed, "run".into());
            let mut requests = sends.requests(3);
            let text: Vec<String> =
                (0..2).map(|_| String::from_utf8(requests.next().to_vec()).unwrap()).collect();
            assert_ne!(text[0], text[1]);
            let (head, body) = text[1].split_once("\r\n\r\n").unwrap();
            assert!(
                head.starts_with("POST /send HTTP/1.1\r\n") && head.contains("Authorization: Bearer T1\r\n")
            );
            assert!(head.contains(&format!("Content-Length: {}", body.len())), "{head}");
            assert_eq!(head.contains("Idempotency-Key: run-0000000-0000000002\r\n"), keyed, "{head}");
            let body: serde_json::Value = serde_json::from_str(body).unwrap();
            assert_eq!(body["content"].as_str().unwrap().len(), CONTENT_CHARS);
            assert_eq!(body["recipient"].as_str().unwrap().len(), name(0).len());
        }
    }
}
