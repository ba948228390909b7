//! How fast a comparison reads log and tables: not faster than it was told; and if it was told nothing, with rests
//! after each page while others use the system, so that live traffic keeps its latency. Both are scans that hold back;
//! the comparison behind them knows nothing of it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use shared::limits::{PROGRESS_CHECK_INTERVAL, VERIFY_POLL, VERIFY_REST_MAX, VERIFY_RESTS_FOR};
use shared::ports::{
    Delivery, FeedMonitor, LogScan, ScanCursor, ScanPage, ScannedTable, Span, StoreError, ViewScan,
};
use tokio::time::Instant;

use super::Verifier;

impl Verifier {
    /// The same, held back: `rate` is of the events of the log, and then of the rows of the tables, per second.
    #[must_use]
    pub fn paced(self, rate: Option<u32>) -> Self {
        let pace = Arc::new(match rate {
            Some(rate) => Pace::Told(Told { rate: rate.max(1), due: Mutex::new(Instant::now()) }),
            None => Pace::Resting(Live { monitor: self.monitor.clone(), seen: Mutex::default() }),
        });
        let log = Arc::new(Paced { scan: self.log, pace: pace.clone() });
        let views = Arc::new(Paced { scan: self.views, pace });
        Self { log, views, ..self }
    }
}

struct Paced<S: ?Sized> {
    scan: Arc<S>,
    pace: Arc<Pace>,
}

#[async_trait]
impl LogScan for Paced<dyn LogScan> {
    async fn extent(&self) -> Result<Vec<Span>, StoreError> {
        self.scan.extent().await
    }

    async fn page(&self, span: &Span, events_max: usize) -> Result<Vec<Delivery>, StoreError> {
        let begun = Instant::now();
        let page = self.scan.page(span, events_max).await?;
        self.pace.hold(begun, page.len()).await;
        Ok(page)
    }
}

#[async_trait]
impl ViewScan for Paced<dyn ViewScan> {
    fn parts(&self, table: ScannedTable) -> Vec<ScanCursor> {
        self.scan.parts(table)
    }

    async fn page(&self, at: &ScanCursor) -> Result<ScanPage, StoreError> {
        let begun = Instant::now();
        let page = self.scan.page(at).await?;
        self.pace.hold(begun, page.rows.len()).await;
        Ok(page)
    }
}

enum Pace {
    Told(Told),
    Resting(Live),
}

impl Pace {
    /// After a page.
    async fn hold(&self, begun: Instant, read: usize) {
        match self {
            Self::Told(told) => tokio::time::sleep_until(told.take(read, Instant::now())).await,
            Self::Resting(live) => {
                let took = begun.elapsed();
                if live.moves().await {
                    tokio::time::sleep((took * VERIFY_RESTS_FOR).min(VERIFY_REST_MAX)).await;
                }
            }
        }
    }
}

struct Told {
    /// Events or rows per second.
    rate: u32,
    /// When what was read so far may have been read.
    due: Mutex<Instant>,
}

impl Told {
    fn take(&self, read: usize, now: Instant) -> Instant {
        let read = u32::try_from(read).unwrap_or(u32::MAX);
        let mut due = self.due.lock().unwrap_or_else(PoisonError::into_inner);
        *due = (*due).max(now) + Duration::from_secs(1) * read / self.rate;
        *due
    }
}

/// Whether somebody uses the system. A generation is compared when it has all that was there at first: what it applies
/// since is live.
struct Live {
    monitor: Arc<dyn FeedMonitor>,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    looked_at: Option<Instant>,
    applied: Option<u64>,
    moved_at: Option<Instant>,
}

impl Live {
    async fn moves(&self) -> bool {
        if self.seen().is_due(Instant::now()) {
            let status = self.monitor.status().await;
            match status {
                Ok(status) => self.seen().note(status.applied(), Instant::now()),
                // It may have too much to do.
                Err(_) => self.seen().moved_at = Some(Instant::now()),
            }
        }
        self.seen().moves(Instant::now())
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seen {
    /// To one of those who ask at once, so that only one looks.
    fn is_due(&mut self, now: Instant) -> bool {
        let is_due = self.looked_at.is_none_or(|at| now.saturating_duration_since(at) >= VERIFY_POLL);
        if is_due {
            self.looked_at = Some(now);
        }
        is_due
    }

    fn note(&mut self, applied: u64, now: Instant) {
        if self.applied.replace(applied).is_some_and(|before| before != applied) {
            self.moved_at = Some(now);
        }
    }

    fn moves(&self, now: Instant) -> bool {
        self.moved_at.is_some_and(|at| now.saturating_duration_since(at) < PROGRESS_CHECK_INTERVAL)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_looked_seldom_and_what_was_seen_holds_for_a_while() {
        let (mut seen, begun) = (Seen::default(), Instant::now());
        assert!(seen.is_due(begun) && !seen.is_due(begun));
        seen.note(7, begun);
        assert!(!seen.moves(begun), "the first look says nothing");
        let later = begun + VERIFY_POLL;
        assert!(seen.is_due(later));
        seen.note(8, later);
        assert!(seen.moves(later));
        seen.note(8, later + VERIFY_POLL);
        assert!(seen.moves(later + VERIFY_POLL), "just now");
        assert!(!seen.moves(later + PROGRESS_CHECK_INTERVAL));
    }

    #[test]
    fn what_it_was_told_is_its_pace() {
        let begun = Instant::now();
        let told = Told { rate: 1_000, due: Mutex::new(begun) };
        assert_eq!(told.take(100, begun), begun + Duration::from_millis(100));
        assert_eq!(told.take(150, begun), begun + Duration::from_millis(250));
    }
}
