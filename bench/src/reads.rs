//! Requests for pages and inboxes, as ready bytes: the same one again and again, or each page once, in no order.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::sends::{Always, Requests, Source, name};

/// Messages on a page.
pub(crate) const LIMIT: u64 = 50;
/// From one page to the next. A prime that divides no number of pages here, so that every page has its turn.
pub(crate) const STRIDE: u64 = 7_919;

/// The same request again and again.
pub(crate) fn same(path: &str, token: &str) -> Arc<dyn Source> {
    Arc::new(Same(request(path, token).into_bytes()))
}

struct Same(Vec<u8>);

impl Source for Same {
    fn requests(&self, _connection: usize) -> Box<dyn Requests> {
        Box::new(Always(self.0.clone()))
    }
}

/// Every page that ends before one of these numbers, of each of these conversations of one reader.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pages {
    pub(crate) reader: u64,
    pub(crate) first_peer: u64,
    pub(crate) peers: u64,
    pub(crate) first_before: u64,
    pub(crate) befores: u64,
}

impl Pages {
    fn path(&self, turn: u64) -> String {
        let Self { reader, first_peer, peers, first_before, befores } = self;
        let page = turn.wrapping_mul(STRIDE) % (peers * befores);
        let (peer, before) = (first_peer + page % peers, first_before + page / peers);
        let (reader, peer) = (name(*reader), name(peer));
        format!("/messages?sender={reader}&recipient={peer}&before={before}&limit={LIMIT}")
    }
}

/// Goes on where the measurement before has ended, so that no page comes again before all others had their turn.
pub(crate) fn each_once(pages: Pages, token: &str) -> Arc<dyn Source> {
    Arc::new(EachOnce { pages, token: token.to_owned(), turn: Arc::default() })
}

struct EachOnce {
    pages: Pages,
    token: String,
    turn: Arc<AtomicU64>,
}

impl Source for EachOnce {
    fn requests(&self, _connection: usize) -> Box<dyn Requests> {
        let (token, turn) = (self.token.clone(), self.turn.clone());
        Box::new(EachOnceOfOne { pages: self.pages, token, turn, request: Vec::new() })
    }
}

struct EachOnceOfOne {
    pages: Pages,
    token: String,
    turn: Arc<AtomicU64>,
    request: Vec<u8>,
}

impl Requests for EachOnceOfOne {
    fn next(&mut self) -> &[u8] {
        let path = self.pages.path(self.turn.fetch_add(1, Ordering::Relaxed));
        self.request = request(&path, &self.token).into_bytes();
        &self.request
    }
}

pub(crate) fn request(path: &str, token: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {token}\r\n\r\n")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_page_has_its_turn() {
        let pages = Pages { reader: 0, first_peer: 10, peers: 200, first_before: 51, befores: 51 };
        let paths: BTreeSet<_> = (0..200 * 51).map(|turn| pages.path(turn)).collect();
        assert_eq!(paths.len(), 200 * 51);
        assert!(paths.contains("/messages?sender=u0000000&recipient=u0000209&before=101&limit=50"));
    }
}
