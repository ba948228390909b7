//! `GET /events`: everything that concerns the caller, as it happens.

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, header};
use axum::response::{IntoResponse, Response};
use shared::process::auth::Caller;
use shared::process::http::Hangup;
use shared::process::problem::{Problem, ProblemBody};
use shared::process::request::single;

use crate::state::AppState;

static LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// Follow what happens
///
/// `event: message` has a message as its data, one's own among them; `event: read` `{"peer","seq"}`, a mark set by
/// another of the caller's devices; `event: reset` says that events were missed for good: reload. Events of a
/// conversation come in the order of `seq`. Comments come at least every 15 s. To go on after a break, send the last
/// `id` as `Last-Event-ID`: nothing is left out, something may come again.
#[utoipa::path(
    get, path = "/events", tag = "events", security(("token" = [])),
    params(("Last-Event-ID" = Option<String>, Header, description = "The id of the last event received; without it the stream begins now")),
    responses(
        (status = 200, description = "Server-sent events, without end", body = String, content_type = "text/event-stream"),
        (status = 401, description = "unauthenticated", body = ProblemBody<'static>, content_type = "application/problem+json"),
        (status = 429, description = "rate_limited: too many open event streams", body = ProblemBody<'static>, content_type = "application/problem+json", headers(
            ("Retry-After" = u32, description = "Seconds"),
        )),
        (status = 503, description = "log_unavailable, busy, draining, starting", body = ProblemBody<'static>, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn events(
    State(state): State<AppState>,
    caller: Caller,
    hangup: Hangup,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    // A position that cannot be read is no reason to refuse: the stream says so.
    let last_event_id = single(&headers, &LAST_EVENT_ID).unwrap_or(Some("")).map(str::to_owned);
    let stream = state.live.open(caller, hangup, last_event_id).await?;
    let headers = [
        (header::CONTENT_TYPE, "text/event-stream"),
        (header::CACHE_CONTROL, "no-store"),
        (HeaderName::from_static("x-accel-buffering"), "no"),
    ];
    Ok((headers, Body::new(stream)).into_response())
}
