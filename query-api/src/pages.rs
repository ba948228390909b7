//! Pages as they are sent. A range of a conversation never changes once all of it is there: it is kept as ready bytes,
//! whatever the head is by then. Who asks for a page that somebody else is reading waits for that read.
//!
//! What is not final is not kept: a page with a hole, one with the marker of a parked event (a retry replaces it), an
//! error.

use std::collections::HashMap;
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared, WeakShared};
use quick_cache::sync::{Cache, DefaultLifecycle};
use quick_cache::{DefaultHashBuilder, OptionsBuilder, Weighter};
use shared::limits::{PAGES_CACHED_BYTES_MAX, PAGES_CACHED_SHARDS};
use shared::message::Message;
use shared::ports::{StoreError, ViewReader};
use shared::view::TimelineEntry;
use shared::{Conversation, Seq};

use crate::conditional::Ready;
use crate::metrics::ReadMetrics;

/// What a range of a conversation shows: all of it, or what is there before the first hole.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) ready: Ready,
    asked: RangeInclusive<Seq>,
    /// Of `asked`, from its beginning on.
    entries: u64,
    /// The numbers among them that parked events hold.
    parked: Vec<Seq>,
    /// All of `asked` is there, and the entry behind it: where a conversation is longer, this is all there will ever be.
    is_followed: bool,
}

impl Page {
    /// Of the entries from `asked` and, if it is there, the next one.
    pub(crate) fn of(asked: RangeInclusive<Seq>, mut entries: Vec<TimelineEntry>) -> Self {
        entries.truncate(without_hole(&entries, *asked.start()));
        let is_followed = entries.pop_if(|entry| entry.seq() > *asked.end()).is_some();
        let parked = entries.iter().filter_map(|entry| match entry {
            TimelineEntry::Parked { seq } => Some(*seq),
            TimelineEntry::Message(_) => None,
        });
        let messages: Vec<&Message> = entries.iter().filter_map(visible).collect();
        let body = serde_json::to_vec(&messages).expect("strings and numbers are always JSON");
        let (entries, parked) = (entries.len() as u64, parked.collect());
        Self { ready: Ready::new(body), asked, entries, parked, is_followed }
    }

    /// The numbers that it shows, or passes over as parked.
    pub(crate) fn shown(&self) -> Option<RangeInclusive<Seq>> {
        let first = *self.asked.start();
        (self.entries > 0).then(|| first..=first + (self.entries - 1))
    }

    pub(crate) fn is_whole(&self) -> bool {
        self.asked.is_empty() || self.shown().is_some_and(|shown| shown.end() == self.asked.end())
    }

    /// Where it ends, if more follows: it is exact, whatever the head is.
    pub(crate) fn past(&self) -> Option<Seq> {
        self.is_followed.then(|| *self.asked.end())
    }

    /// Whether that message is on it.
    pub(crate) fn shows(&self, seq: Seq) -> bool {
        self.shown().is_some_and(|shown| shown.contains(&seq)) && !self.parked.contains(&seq)
    }

    /// Whether it can still change: a message may be missing, or be applied in the place of a marker.
    pub(crate) fn is_final(&self) -> bool {
        self.is_whole() && self.parked.is_empty()
    }
}

/// What users see: a marker holds a place, but is no message.
fn visible(entry: &TimelineEntry) -> Option<&Message> {
    match entry {
        TimelineEntry::Message(message) => Some(message),
        TimelineEntry::Parked { .. } => None,
    }
}

/// How many entries follow each other from `first` on.
fn without_hole(entries: &[TimelineEntry], first: Seq) -> usize {
    entries.iter().zip(first..).take_while(|(entry, seq)| entry.seq() == *seq).count()
}

/// Everything that a page depends on.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    generation: u32,
    conversation: Conversation,
    first: Seq,
    last: Seq,
}

#[derive(Clone)]
struct PageBytes;

impl Weighter<Key, Arc<Page>> for PageBytes {
    fn weight(&self, _key: &Key, page: &Arc<Page>) -> u64 {
        (page.ready.bytes() + OVERHEAD_BYTES) as u64
    }
}

/// Key, page, their places in the cache.
const OVERHEAD_BYTES: usize = 400;
/// A page of 50 short messages.
const USUAL_BYTES: u64 = 10 * 1024;

/// A read of the views that several may wait for.
type Flight = Shared<BoxFuture<'static, Result<Arc<Page>, StoreError>>>;
/// Nobody may wait any more: then it is over.
type Weak = WeakShared<BoxFuture<'static, Result<Arc<Page>, StoreError>>>;

/// Clones share everything.
#[derive(Clone)]
pub(crate) struct Pages(Arc<Inner>);

struct Inner {
    views: Arc<dyn ViewReader>,
    ready: Cache<Key, Arc<Page>, PageBytes>,
    flights: Mutex<HashMap<Key, (u64, Weak)>>,
    numbers: AtomicU64,
    metrics: ReadMetrics,
}

/// Reads of the views that one request has caused.
#[derive(Debug, Default)]
pub(crate) struct StoreReads(AtomicU32);

impl StoreReads {
    pub(crate) fn one_more(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn count(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Pages {
    pub(crate) fn new(views: Arc<dyn ViewReader>, metrics: ReadMetrics) -> Self {
        let options = OptionsBuilder::new()
            .shards(PAGES_CACHED_SHARDS)
            .weight_capacity(PAGES_CACHED_BYTES_MAX)
            .estimated_items_capacity(usize::try_from(PAGES_CACHED_BYTES_MAX / USUAL_BYTES).expect("it fits"))
            .build()
            .expect("both capacities are set");
        let hasher = DefaultHashBuilder::default();
        let ready = Cache::with_options(options, PageBytes, hasher, DefaultLifecycle::default());
        Self(Arc::new(Inner { views, ready, flights: Mutex::default(), numbers: AtomicU64::new(0), metrics }))
    }

    /// The page if it is ready: exact, without asking the views.
    pub(crate) fn ready(
        &self,
        conversation: &Conversation,
        range: &RangeInclusive<Seq>,
    ) -> Option<Arc<Page>> {
        let page = self.0.ready.get(&self.key(conversation, range))?;
        self.0.metrics.hits.inc();
        Some(page)
    }

    /// The page as the views have it now, or had it when a read began that is not over yet.
    pub(crate) async fn read(
        &self,
        conversation: &Conversation,
        range: &RangeInclusive<Seq>,
        reads: &StoreReads,
    ) -> Result<Arc<Page>, StoreError> {
        match self.join(self.key(conversation, range), reads) {
            Ok(page) => Ok(page),
            Err(flight) => flight.await,
        }
    }

    fn key(&self, conversation: &Conversation, range: &RangeInclusive<Seq>) -> Key {
        let generation = self.0.views.generation();
        Key { generation, conversation: conversation.clone(), first: *range.start(), last: *range.end() }
    }

    fn join(&self, key: Key, reads: &StoreReads) -> Result<Arc<Page>, Flight> {
        let mut flights = self.0.flights();
        // A page is ready before its flight is over, so it is one or the other, or must be read.
        if let Some(page) = self.0.ready.get(&key) {
            self.0.metrics.hits.inc();
            return Ok(page);
        }
        if let Some(flight) = flights.get(&key).and_then(|(_, flight)| flight.upgrade()) {
            self.0.metrics.coalesced.inc();
            return Err(flight);
        }
        reads.one_more();
        let number = self.0.numbers.fetch_add(1, Ordering::Relaxed);
        let landing = Landing { pages: self.clone(), key: key.clone(), number };
        let flight = fly(landing).boxed().shared();
        flights.insert(key, (number, flight.downgrade().expect("it has not been polled")));
        Err(flight)
    }
}

async fn fly(landing: Landing) -> Result<Arc<Page>, StoreError> {
    let Landing { pages: Pages(inner), key, .. } = &landing;
    // One more: a page that something follows is exact without a head.
    let entries = inner.views.timeline(&key.conversation, key.first, key.last.saturating_add(1)).await?;
    let page = Arc::new(Page::of(key.first..=key.last, entries));
    if page.is_final() {
        inner.ready.insert(key.clone(), page.clone());
        inner.metrics.cached_bytes.set(i64::try_from(inner.ready.weight()).unwrap_or(i64::MAX));
    }
    Ok(page)
}

impl Inner {
    fn flights(&self) -> MutexGuard<'_, HashMap<Key, (u64, Weak)>> {
        self.flights.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Strikes a flight off the list when it is over, or when everybody has left it.
struct Landing {
    pages: Pages,
    key: Key,
    number: u64,
}

impl Drop for Landing {
    fn drop(&mut self) {
        let mut flights = self.pages.0.flights();
        // The next one may have begun between the last of this one leaving and here.
        if flights.get(&self.key).is_some_and(|(number, _)| *number == self.number) {
            flights.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parked(seqs: impl IntoIterator<Item = Seq>) -> Vec<TimelineEntry> {
        seqs.into_iter().map(|seq| TimelineEntry::Parked { seq }).collect()
    }

    #[test]
    fn a_page_is_of_the_past_if_all_of_it_and_the_next_are_there() {
        for (entries, shown, past) in [
            (parked(4..=7), Some(4..=6), Some(6)),
            (parked(4..=6), Some(4..=6), None),
            (parked([4, 5, 7]), Some(4..=5), None),
            (parked([5, 6, 7]), None, None),
            (parked([]), None, None),
        ] {
            let page = Page::of(4..=6, entries);
            assert_eq!((page.shown(), page.past()), (shown, past));
        }
    }
}
