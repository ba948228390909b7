//! `GET /messages`: a page of a conversation.

use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::response::Response;
use futures_util::future::try_join;
use shared::limits::IMMUTABLE_MAX_AGE;
use shared::message::Message;
use shared::process::auth::{Caller, Claim};
use shared::process::limits::Held;
use shared::process::problem::{Code, Problem, ProblemBody};
use shared::process::request::Query;
use tokio::time::Instant;

use crate::conditional::Known;
use crate::prefer::PreferredWait;
use crate::state::AppState;

mod query;
mod reading;

use query::PageQuery;
use reading::{Answer, Reading};

static CHAT_BEHIND: HeaderName = HeaderName::from_static("chat-behind");

/// Read a conversation
///
/// Both directions, in the order of `seq`, oldest first. Without a cursor: the newest page.
#[utoipa::path(
    get, path = "/messages", tag = "messages", security(("token" = [])),
    params(
        ("sender" = String, Query, description = "One of the two", example = "samer"),
        ("recipient" = String, Query, description = "The other", example = "lena"),
        ("limit" = Option<u64>, Query, minimum = 1, maximum = 100, description = "Default 50"),
        ("before" = Option<u64>, Query, minimum = 1, description = "The page before this seq; not with after"),
        ("after" = Option<u64>, Query, minimum = 1, description = "The page after this seq; not with before"),
        ("min_seq" = Option<u64>, Query, minimum = 1, description = "Wait until this message is visible"),
        ("Prefer" = Option<String>, Header, description = "wait=SECONDS, at most 8: how long min_seq waits instead of 2 s", example = "wait=5"),
        ("If-None-Match" = Option<String>, Header, description = "ETags of pages that the client has"),
    ),
    responses(
        (status = 200, body = Vec<Message>, headers(
            ("Link" = String, description = "rel=prev: older; rel=next: newer"),
            ("Chat-Behind" = String, description = "Messages acknowledged but not yet visible; unknown while the log cannot be asked"),
            ("ETag" = String, description = "Of the body"),
            ("Cache-Control" = String, description = "private, immutable for a page that can no longer change; else private, no-cache"),
        )),
        (status = 304, description = "If-None-Match holds the ETag of what would be sent"),
        (status = 400, description = "invalid_request", body = ProblemBody<'static>, content_type = "application/problem+json"),
        (status = 401, description = "unauthenticated", body = ProblemBody<'static>, content_type = "application/problem+json"),
        (status = 403, description = "not_a_member", body = ProblemBody<'static>, content_type = "application/problem+json"),
        (status = 429, description = "rate_limited", body = ProblemBody<'static>, content_type = "application/problem+json", headers(
            ("Retry-After" = u32, description = "Seconds"),
        )),
        (status = 503, description = "views_unavailable, log_unavailable, starting; not_yet_visible: what min_seq asks for; busy: too many pages wait", body = ProblemBody<'static>, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn messages(
    State(state): State<AppState>,
    claim: Claim,
    known: Known,
    wait: PreferredWait,
    query: Query,
) -> Result<Response, Problem> {
    let begun = Instant::now();
    let page = match PageQuery::read(&query, &wait) {
        Ok(page) => page,
        // Who may not ask is told that first.
        Err(problem) => return claim.settle().await.and(Err(problem)),
    };
    // Whose token it is and how far the conversation is are one round trip. His place is taken before the head is
    // waited for, and whoever gets none waits for nothing.
    let needs_head = page.past().is_none() || state.heads.answers(&page.conversation).is_err();
    let head =
        async { Ok(if needs_head { Some(state.shared_heads.head(&page.conversation).await) } else { None }) };
    let (_held, head) = try_join(admit(&state, claim, &page), head).await?;
    let answer = Reading::run(&state, &page, head, begun).await?;
    Ok(answer.into_response(&page, &known))
}

/// The caller's place among the requests in flight, if he may read the conversation.
async fn admit(state: &AppState, claim: Claim, page: &PageQuery) -> Result<Option<Held>, Problem> {
    // Nobody is the caller only where names are believed.
    let Some(Caller { user, .. }) = claim.settle().await? else { return Ok(None) };
    if !page.conversation.has(&user) && !state.trusts_names() {
        return Err(Problem::new(Code::NotAMember, "the conversation is between two other users"));
    }
    Ok(Some(state.in_flight.enter(&user)?))
}

impl Answer {
    fn into_response(self, query: &PageQuery, known: &Known) -> Response {
        let mut headers = HeaderMap::with_capacity(8);
        match self.behind {
            Some(0) => {}
            Some(behind) => drop(headers.insert(CHAT_BEHIND.clone(), behind.into())),
            None => drop(headers.insert(CHAT_BEHIND.clone(), HeaderValue::from_static("unknown"))),
        }
        headers.insert(header::CACHE_CONTROL, self.cache_control(query));
        if let Some(links) = self.page.shown().and_then(|shown| query.links(&shown, self.head)) {
            headers.insert(header::LINK, links);
        }
        self.page.ready.answer(known, headers)
    }

    /// A page with a marker may still change, and one that says how far behind it is must be asked for again.
    fn cache_control(&self, query: &PageQuery) -> HeaderValue {
        let settled = |shown| query.is_settled(&shown, self.head);
        if self.behind == Some(0) && self.page.is_final() && self.page.shown().is_some_and(settled) {
            let max_age = IMMUTABLE_MAX_AGE.as_secs();
            let text = format!("private, immutable, max-age={max_age}");
            return HeaderValue::try_from(text).expect("words and digits are visible ASCII");
        }
        HeaderValue::from_static("private, no-cache")
    }
}
