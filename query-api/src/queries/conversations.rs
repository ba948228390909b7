//! `GET /conversations`: the caller's inbox, newest activity first.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::Response;
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use futures_util::TryStreamExt;
use serde::Serialize;
use shared::limits::{PAGE_CONVERSATIONS_DEFAULT, PAGE_CONVERSATIONS_MAX};
use shared::message::Message;
use shared::ports::{InboxRows, StoreError};
use shared::process::auth::Caller;
use shared::process::problem::{Problem, ProblemBody};
use shared::process::request::Query;
use shared::view::InboxRow;
use shared::{Seq, Username};
use tokio::time::Instant;
use utoipa::ToSchema;

use crate::conditional::{Known, Ready};
use crate::error::of_views;
use crate::metrics::Kind;
use crate::state::AppState;

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ConversationSummary {
    #[schema(value_type = String, example = "lena")]
    peer: Username,
    #[schema(example = 42)]
    head_seq: Seq,
    /// The highest of the caller's marks and of the caller's own messages.
    #[schema(example = 40)]
    read_seq: Seq,
    /// `head_seq` − `read_seq`.
    #[schema(example = 2)]
    unread: u64,
    last: Message,
}

impl ConversationSummary {
    /// `None` for a row that no message has reached yet.
    fn new(row: InboxRow) -> Option<Self> {
        let (head_seq, read_seq, unread) = (row.head_seq(), row.read_seq(), row.unread());
        Some(Self { peer: row.peer, head_seq, read_seq, unread, last: row.last? })
    }

    /// Newest activity first; the name settles a tie.
    fn place(&self) -> Place {
        (Reverse(self.last.timestamp.0), self.peer.clone())
    }
}

type Place = (Reverse<u64>, Username);

/// A cursor is the place of the last conversation shown, sealed with its owner's name: another user's cursor,
/// or a made-up one, is refused instead of showing something odd.
fn seal(owner: &Username, (Reverse(ms), peer): &Place) -> String {
    let place = format!("{ms}:{peer}");
    let checksum = crc32fast::hash(format!("{owner}:{place}").as_bytes());
    BASE64_URL_SAFE_NO_PAD.encode(format!("{checksum:08x}:{place}"))
}

fn unseal(owner: &Username, cursor: &str) -> Option<Place> {
    let text = String::from_utf8(BASE64_URL_SAFE_NO_PAD.decode(cursor).ok()?).ok()?;
    let (_checksum, place) = text.split_once(':')?;
    let (ms, peer) = place.split_once(':')?;
    let place = (Reverse(ms.parse().ok()?), peer.parse().ok()?);
    (seal(owner, &place) == cursor).then_some(place)
}

/// List your conversations
#[utoipa::path(
    get, path = "/conversations", tag = "conversations", security(("token" = [])),
    params(
        ("limit" = Option<u64>, Query, minimum = 1, maximum = 100, description = "Default 50"),
        ("cursor" = Option<String>, Query, description = "From the Link of the page before"),
        ("If-None-Match" = Option<String>, Header, description = "ETags of pages that the client has"),
    ),
    responses(
        (status = 200, body = Vec<ConversationSummary>, headers(
            ("Link" = String, description = "rel=next: conversations with older activity"),
            ("ETag" = String, description = "Of the body"),
        )),
        (status = 304, description = "If-None-Match holds the ETag of what would be sent"),
        (status = 400, description = "invalid_request", body = ProblemBody<'static>, content_type = "application/problem+json"),
        (status = 401, description = "unauthenticated", body = ProblemBody<'static>, content_type = "application/problem+json"),
        (status = 429, description = "rate_limited", body = ProblemBody<'static>, content_type = "application/problem+json", headers(
            ("Retry-After" = u32, description = "Seconds"),
        )),
        (status = 503, description = "views_unavailable, log_unavailable, starting", body = ProblemBody<'static>, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn conversations(
    State(state): State<AppState>,
    caller: Caller,
    known: Known,
    query: Query,
) -> Result<Response, Problem> {
    let limit = query.number("limit", PAGE_CONVERSATIONS_MAX)?.unwrap_or(PAGE_CONVERSATIONS_DEFAULT);
    let after = match query.get("cursor")? {
        None => None,
        Some(cursor) => {
            let place = unseal(&caller.user, cursor);
            Some(place.ok_or_else(|| Problem::invalid("the cursor is not one of yours"))?)
        }
    };
    let _held = state.in_flight.enter(&caller.user)?;
    let begun = Instant::now();
    let (rows, limit_rows) = (state.views.inbox(&caller.user), usize::try_from(limit).unwrap_or(usize::MAX));
    let page = page(rows, after.as_ref(), limit_rows).await;
    let (page, more) = page.map_err(of_views)?;
    state.metrics.answered(Kind::Inbox, begun.elapsed());
    let mut headers = HeaderMap::new();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
    if let Some(last) = page.last().filter(|_| more) {
        let cursor = seal(&caller.user, &last.place());
        let link = format!("</conversations?limit={limit}&cursor={cursor}>; rel=\"next\"");
        headers.insert(header::LINK, HeaderValue::from_str(&link).expect("base64 is visible ASCII"));
    }
    let body = serde_json::to_vec(&page).expect("strings and numbers are always JSON");
    Ok(Ready::new(body).answer(&known, headers))
}

/// The page after a place, and whether there is more. Of all rows it keeps no more than it shows.
async fn page(
    mut rows: InboxRows,
    after: Option<&Place>,
    limit: usize,
) -> Result<(Vec<ConversationSummary>, bool), StoreError> {
    let (mut page, mut more) = (BTreeMap::new(), false);
    while let Some(row) = rows.try_next().await? {
        let Some(summary) = ConversationSummary::new(row) else { continue };
        let place = summary.place();
        if after.is_some_and(|after| place <= *after) {
            continue;
        }
        page.insert(place, summary);
        if page.len() > limit {
            page.pop_last();
            more = true;
        }
    }
    Ok((page.into_values().collect(), more))
}

#[cfg(test)]
mod tests {
    use futures_util::{StreamExt, stream};

    use super::*;
    use shared::{EventId, Timestamp, ids::Ulid};

    fn name(text: &str) -> Username {
        text.parse().expect("a name")
    }

    fn row(peer: &str, ms: u64) -> InboxRow {
        let last = Message {
            id: EventId(Ulid::nil()),
            seq: 5,
            sender: name(peer),
            recipient: name("samer"),
            content: "hi".to_owned(),
            timestamp: Timestamp(ms),
        };
        InboxRow { last: Some(last), own_seq: 2, read_mark: 3, ..InboxRow::empty(name(peer)) }
    }

    fn stream(rows: Vec<InboxRow>) -> InboxRows {
        stream::iter(rows.into_iter().map(Ok)).boxed()
    }

    #[tokio::test]
    async fn pages_follow_each_other_without_loss_or_repetition() {
        let rows = || stream((0..10_u64).map(|n| row(&format!("user{n}"), n / 3)).collect());
        let (all, more) = page(rows(), None, 100).await.unwrap();
        assert!(!more && all.len() == 10);
        let (mut walked, mut after) = (Vec::new(), None);
        loop {
            let (shown, more) = page(rows(), after.as_ref(), 3).await.unwrap();
            after = shown.last().map(ConversationSummary::place);
            walked.extend(shown.into_iter().map(|summary| summary.peer));
            if !more {
                break;
            }
        }
        assert_eq!(walked, all.into_iter().map(|summary| summary.peer).collect::<Vec<_>>());
        assert_eq!(walked[..2], [name("user9"), name("user6")]);
    }

    #[tokio::test]
    async fn an_error_among_the_rows_is_no_page() {
        let rows = [Ok(row("lena", 1)), Err(StoreError::unavailable("test", "away")), Ok(row("omar", 2))];
        assert!(page(stream::iter(rows).boxed(), None, 3).await.is_err());
    }

    #[test]
    fn unread_counts_from_the_higher_of_mark_and_own_message() {
        let summary = ConversationSummary::new(row("lena", 1)).unwrap();
        assert_eq!((summary.head_seq, summary.read_seq, summary.unread), (5, 3, 2));
        assert!(ConversationSummary::new(InboxRow { last: None, ..row("lena", 1) }).is_none());
    }

    #[test]
    fn a_cursor_belongs_to_its_owner() {
        let place = (Reverse(7), name("lena"));
        let cursor = seal(&name("samer"), &place);
        assert_eq!(unseal(&name("samer"), &cursor), Some(place));
        assert_eq!(unseal(&name("tarek"), &cursor), None);
        for text in ["", "x", "%", "MTIz", &cursor[1..], &format!("{cursor}A")] {
            assert_eq!(unseal(&name("samer"), text), None, "{text}");
        }
    }
}
