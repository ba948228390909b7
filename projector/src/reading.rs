//! Reads all of log and tables, page by page, few pages at a time: for a comparison, and for a repair. A page that fails
//! is asked for again, with pauses and not for ever.

use std::future::Future;
use std::pin::pin;

use futures_util::stream::{self, BoxStream, Stream, StreamExt, TryStreamExt};
use shared::limits::{SCAN_EVENTS_PER_PAGE, SCAN_PAGES_IN_FLIGHT_MAX, SCAN_PATIENCE};
use shared::ports::{Delivery, LogScan, ScanCursor, ScannedRow, ScannedTable, Span, StoreError, ViewScan};
use tokio::time::Instant;

use crate::backoff::Backoff;

/// All entries of the spans, in log order within each.
pub(crate) async fn log(
    log: &dyn LogScan,
    spans: Vec<Span>,
    mut page_read: impl FnMut(Vec<Delivery>) + Send,
) -> Result<(), StoreError> {
    let partitions = stream::iter(spans).map(|span| entries(log, span));
    let mut pages = pin!(partitions.flatten_unordered(SCAN_PAGES_IN_FLIGHT_MAX));
    while let Some(page) = pages.try_next().await? {
        page_read(page);
    }
    Ok(())
}

fn entries(log: &dyn LogScan, span: Span) -> BoxStream<'_, Result<Vec<Delivery>, StoreError>> {
    let next = move |left: Option<Span>| async move {
        let Some(span) = left else { return Ok(None) };
        let page = retrying(|| log.page(&span, SCAN_EVENTS_PER_PAGE)).await?;
        let Some(last) = page.last() else { return Ok(None) };
        let left = span.behind(last.position);
        Ok::<_, StoreError>(Some((page, left)))
    };
    stream::try_unfold(Some(span), next).boxed()
}

/// All rows of the tables; with each page how many parts of how many are done.
pub(crate) async fn tables(
    views: &dyn ViewScan,
    tables: &[ScannedTable],
    mut page_read: impl FnMut(Vec<ScannedRow>, u64, u64) + Send,
) -> Result<(), StoreError> {
    let mut pages = pin!(pages(views, tables));
    while let Some((page, done, of)) = pages.try_next().await? {
        page_read(page, done, of);
    }
    Ok(())
}

/// The same for who waits between two pages.
pub(crate) fn pages<'a>(
    views: &'a dyn ViewScan,
    tables: &[ScannedTable],
) -> impl Stream<Item = Result<(Vec<ScannedRow>, u64, u64), StoreError>> + Send + use<'a> {
    let parts: Vec<_> = tables.iter().flat_map(|table| views.parts(*table)).collect();
    let (mut done, of) = (0, parts.len() as u64);
    let parts = stream::iter(parts).map(move |part| rows(views, part));
    parts.flatten_unordered(SCAN_PAGES_IN_FLIGHT_MAX).map_ok(move |(page, is_last)| {
        done += u64::from(is_last);
        (page, done, of)
    })
}

type Page = (Vec<ScannedRow>, bool);

/// Each page, and whether it is the last of its part.
fn rows(views: &dyn ViewScan, part: ScanCursor) -> BoxStream<'_, Result<Page, StoreError>> {
    let next = move |at: Option<ScanCursor>| async move {
        let Some(at) = at else { return Ok(None) };
        let page = retrying(|| views.page(&at)).await?;
        Ok::<_, StoreError>(Some(((page.rows, page.next.is_none()), page.next)))
    };
    stream::try_unfold(Some(part), next).boxed()
}

/// For reads: they change nothing.
pub(crate) async fn retrying<T, F: Future<Output = Result<T, StoreError>>>(
    mut read: impl FnMut() -> F,
) -> Result<T, StoreError> {
    let (mut backoff, since) = (Backoff::new(), Instant::now());
    loop {
        match read().await {
            Err(error) if error.is_retryable() && since.elapsed() < SCAN_PATIENCE => backoff.pause().await,
            done => return done,
        }
    }
}
