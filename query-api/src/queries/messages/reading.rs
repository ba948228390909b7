//! How a page is read: what is ready as it is, the rest from the views, waiting for what the log says is there. It
//! knows nothing of HTTP but the problems that end a read.

use std::ops::RangeInclusive;
use std::sync::Arc;

use shared::Seq;
use shared::limits::FRESHNESS_WAIT_MAX;
use shared::ports::StoreError;
use shared::process::problem::{Code, Problem};
use tokio::time::Instant;

use super::query::{Cursor, PageQuery};
use crate::error::of_views;
use crate::freshness::{Awaited, Wait, moved};
use crate::metrics::{Kind, Outcome};
use crate::pages::{Page, StoreReads};
use crate::state::AppState;

/// A page as it is shown.
pub(super) struct Answer {
    pub(super) page: Arc<Page>,
    /// At least; on a page that nothing follows exactly.
    pub(super) head: Seq,
    /// Acknowledged, of the page's range, and not shown. `None`: the log cannot be asked.
    pub(super) behind: Option<u64>,
}

/// One read on its way.
pub(super) struct Reading<'a> {
    state: &'a AppState,
    query: &'a PageQuery,
    begun: Instant,
    head: Seq,
    log_answers: bool,
    reads: StoreReads,
    has_waited: bool,
}

/// What one look at the views has found.
struct Seen {
    page: Arc<Page>,
    /// Whether the message of `min_seq` can be seen; true where none is asked for.
    min_seq: bool,
}

impl Seen {
    fn is_enough(&self) -> bool {
        self.min_seq && self.page.is_whole()
    }
}

impl<'a> Reading<'a> {
    /// `head` is what the log said since the request began: all that was acknowledged before is within it. `None`: it
    /// was not asked yet, as the page may need no head.
    pub(super) async fn run(
        state: &'a AppState,
        query: &'a PageQuery,
        head: Option<Result<Seq, StoreError>>,
        begun: Instant,
    ) -> Result<Answer, Problem> {
        let mut reading = Self {
            state,
            query,
            begun,
            head: 0,
            log_answers: true,
            reads: StoreReads::default(),
            has_waited: false,
        };
        let answer = reading.answer(head).await?;
        let kind = match reading.reads.count() {
            _ if reading.has_waited => Kind::Waited,
            0 => Kind::Cached,
            _ => Kind::Views,
        };
        state.metrics.page(reading.reads.count());
        state.metrics.answered(kind, begun.elapsed());
        Ok(answer)
    }

    async fn answer(&mut self, head: Option<Result<Seq, StoreError>>) -> Result<Answer, Problem> {
        let shows_min_seq = |page: &Arc<Page>| self.query.min_seq.is_none_or(|seq| page.shows(seq));
        let head = match head {
            Some(head) => head,
            None => match self.past().await.map_err(of_views)?.filter(|past| shows_min_seq(&past.page)) {
                Some(past) => return Ok(past),
                None => self.state.shared_heads.head(&self.query.conversation).await,
            },
        };
        self.note(head).await.map_err(of_views)?;
        let page = match self.ready(&self.query.range(self.head)).filter(shows_min_seq) {
            Some(page) => page,
            None => self.fresh().await?,
        };
        Ok(self.shown(page))
    }

    /// A page of the past that the views have whole, and what follows it. Everything of it was acknowledged, nothing can
    /// come between, and the log is not asked.
    async fn past(&self) -> Result<Option<Answer>, StoreError> {
        let Some(range) = self.query.past() else { return Ok(None) };
        let page = self.read(range).await?;
        let answer = |end| Answer { page: page.clone(), head: end + 1, behind: Some(0) };
        Ok(page.past().map(answer))
    }

    /// Views are served as they are while the log cannot be asked, and the answer says so.
    async fn note(&mut self, head: Result<Seq, StoreError>) -> Result<(), StoreError> {
        self.log_answers = head.is_ok();
        self.head = match head {
            Ok(head) => head.max(self.head),
            Err(error @ StoreError::Damaged { .. }) => return Err(error),
            Err(_) => {
                self.reads.one_more();
                self.state.views.timeline_head(&self.query.conversation).await?
            }
        };
        Ok(())
    }

    fn ready(&self, range: &RangeInclusive<Seq>) -> Option<Arc<Page>> {
        if range.is_empty() {
            return Some(Arc::new(Page::of(range.clone(), Vec::new())));
        }
        self.state.pages.ready(&self.query.conversation, range)
    }

    async fn read(&self, range: RangeInclusive<Seq>) -> Result<Arc<Page>, StoreError> {
        match self.ready(&range) {
            Some(page) => Ok(page),
            None => self.state.pages.read(&self.query.conversation, &range, &self.reads).await,
        }
    }

    /// A page that holds what it must; or, when the wait for that is over, what there is.
    async fn fresh(&mut self) -> Result<Arc<Page>, Problem> {
        // Before the first look: a notice that comes in between must not be missed.
        let mut applied = self.state.notices.subscribe();
        let mut seen = self.look().await.map_err(of_views)?;
        let mut wait = None;
        while !seen.is_enough() && Instant::now() < self.deadline(&seen) {
            if wait.is_none() {
                let awaited = if seen.min_seq { Awaited::All } else { Awaited::One };
                wait = self.state.waits.begin(awaited);
            }
            if wait.is_none() {
                return if seen.min_seq { self.as_it_is(seen).await } else { Err(busy()) };
            }
            self.has_waited = true;
            moved(&mut applied, &self.query.conversation, self.deadline(&seen)).await;
            self.ask_again().await.map_err(of_views)?;
            seen = self.look().await.map_err(of_views)?;
        }
        let enough = seen.is_enough();
        let page = if enough { Ok(seen.page) } else { self.as_it_is(seen).await };
        let outcome = match &page {
            Ok(_) if enough => Outcome::Visible,
            Ok(_) => Outcome::Behind,
            Err(problem) if problem.code == Code::NotYetVisible => Outcome::NotYetVisible,
            Err(_) => Outcome::Failed,
        };
        wait.into_iter().for_each(|wait: Wait| wait.over(outcome));
        page
    }

    async fn look(&self) -> Result<Seen, StoreError> {
        let range = self.query.range(self.head);
        let page = self.read(range.clone()).await?;
        let min_seq = match self.query.min_seq {
            None => true,
            Some(seq) if page.shows(seq) => true,
            Some(seq) if seq > self.head || range.contains(&seq) => false,
            Some(seq) => self.read(seq..=seq).await?.shows(seq),
        };
        Ok(Seen { page, min_seq })
    }

    fn deadline(&self, seen: &Seen) -> Instant {
        self.begun + if seen.min_seq { FRESHNESS_WAIT_MAX } else { self.query.min_seq_wait }
    }

    /// The head of the beginning will do, unless it says that there is no such message yet.
    async fn ask_again(&mut self) -> Result<(), StoreError> {
        if self.query.min_seq.is_none_or(|seq| seq <= self.head) {
            return Ok(());
        }
        let head = self.state.shared_heads.head(&self.query.conversation).await;
        self.note(head).await
    }

    /// What can be shown without waiting any longer.
    async fn as_it_is(&self, seen: Seen) -> Result<Arc<Page>, Problem> {
        let mut page = seen.page;
        if page.shown().is_none() && self.query.cursor == Cursor::Newest && self.head > 0 {
            page = self.newest_visible().await.map_err(of_views)?;
        }
        let ends_before = |seq| page.shown().is_none_or(|shown| *shown.end() < seq);
        let newest = self.query.cursor == Cursor::Newest;
        if !seen.min_seq || (newest && self.query.min_seq.is_some_and(ends_before)) {
            return Err(Problem::new(Code::NotYetVisible, "the message of min_seq is not visible yet"));
        }
        Ok(page)
    }

    /// The newest page that can be shown where the one that was asked for cannot: its first message is not there yet.
    async fn newest_visible(&self) -> Result<Arc<Page>, StoreError> {
        let missed = self.query.range(self.head);
        self.reads.one_more();
        let seen = self.state.views.timeline_head(&self.query.conversation).await?;
        self.read(self.query.range(seen.min(missed.start() - 1))).await
    }

    fn shown(&self, page: Arc<Page>) -> Answer {
        let range = self.query.range(self.head);
        let missing = match page.shown() {
            _ if range.is_empty() => 0,
            Some(shown) => range.end() - shown.end(),
            None if self.query.cursor == Cursor::Newest => *range.end(),
            None => range.end() - range.start() + 1,
        };
        Answer { page, head: self.head, behind: self.log_answers.then_some(missing) }
    }
}

fn busy() -> Problem {
    Problem::new(Code::Busy, "too many pages wait for the projection; try again soon")
}
