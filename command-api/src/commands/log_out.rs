//! `POST /logout`: ends this session, or all of the user's.

use axum::extract::State;
use axum::http::StatusCode;
use shared::process::auth::Caller;
use shared::process::problem::{Problem, ProblemBody};
use shared::process::request::Query;

use crate::error::writing;
use crate::state::AppState;

/// End this session, or all of them
#[utoipa::path(
    post, path = "/logout", tag = "users", security(("token" = [])),
    params(("everywhere" = Option<bool>, Query, description = "All sessions of the user")),
    responses(
        (status = 204),
        (status = 400, description = "invalid_request", body = ProblemBody<'static>, content_type = "application/problem+json"),
        (status = 401, description = "unauthenticated", body = ProblemBody<'static>, content_type = "application/problem+json"),
        (status = 429, description = "rate_limited", body = ProblemBody<'static>, content_type = "application/problem+json", headers(
            ("Retry-After" = u32, description = "Seconds"),
        )),
        (status = 503, description = "log_unavailable, starting", body = ProblemBody<'static>, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn log_out(
    State(state): State<AppState>,
    caller: Caller,
    query: Query,
) -> Result<StatusCode, Problem> {
    let everywhere = match query.get("everywhere")? {
        None | Some("false") => false,
        Some("true") => true,
        Some(_) => return Err(Problem::invalid("the parameter everywhere is true or false")),
    };
    let _held = state.in_flight.enter(&caller.user)?;
    let ended = if everywhere {
        let ended = state.accounts.close_all_sessions(&caller.user).await;
        state.sessions.forget_all(&caller.user);
        ended
    } else {
        let ended = state.accounts.close_session(&caller.session).await;
        state.sessions.forget(&caller.session);
        ended
    };
    ended.map_err(|error| writing(&error))?;
    Ok(StatusCode::NO_CONTENT)
}
