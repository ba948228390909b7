//! `POST /login`.

use std::net::IpAddr;

use axum::Json;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use shared::limits::SESSION_LIFETIME;
use shared::process::auth::Token;
use shared::process::client::ClientAddress;
use shared::process::problem::{Code, Problem, ProblemBody};
use shared::process::request::JsonBody;
use shared::{Timestamp, Username};
use utoipa::ToSchema;

use crate::error::{reading, writing};
use crate::passwords::Verified;
use crate::state::AppState;

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct LogIn {
    #[schema(example = "samer")]
    username: String,
    #[schema(example = "password123")]
    password: String,
}

#[derive(Serialize, ToSchema)]
pub(crate) struct LoggedIn {
    /// Send it as `Authorization: Bearer …`.
    #[schema(example = "mF_9.B5f-4.1JqMmF_9B5f41JqMmF_9B5f41JqMmF9B")]
    token: String,
    /// Using the session moves it on.
    #[schema(value_type = String, format = DateTime, example = "2026-12-22T09:30:00.125Z")]
    expires_at: Timestamp,
}

/// Get a token
#[utoipa::path(
    post, path = "/login", tag = "users", request_body = LogIn,
    responses(
        (status = 200, body = LoggedIn, headers(
            ("RateLimit" = String, description = "What is left, as in draft-ietf-httpapi-ratelimit-headers-10"),
            ("RateLimit-Policy" = String, description = "The limit"),
        )),
        (status = 400, description = "invalid_request", body = ProblemBody<'static>, content_type = "application/problem+json"),
        (status = 401, description = "invalid_credentials", body = ProblemBody<'static>, content_type = "application/problem+json"),
        (status = 422, description = "invalid_fields", body = ProblemBody<'static>, content_type = "application/problem+json"),
        (status = 429, description = "rate_limited", body = ProblemBody<'static>, content_type = "application/problem+json", headers(
            ("Retry-After" = u32, description = "Seconds"),
            ("RateLimit" = String, description = "What is left"),
            ("RateLimit-Policy" = String, description = "The limit"),
        )),
        (status = 503, description = "busy, log_unavailable, starting", body = ProblemBody<'static>, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn log_in(
    State(state): State<AppState>,
    ClientAddress(client): ClientAddress,
    body: JsonBody,
) -> Result<Response, Problem> {
    let command: LogIn = body.read()?;
    // Before the place of a hash: who is beyond his limit takes none.
    let quota = state.limits.log_in(client).await?;
    Ok(quota.on(open_session(&state, command, client).await))
}

async fn open_session(
    state: &AppState,
    command: LogIn,
    client: IpAddr,
) -> Result<impl IntoResponse, Problem> {
    let LogIn { username, password } = command;
    // Before it counts as tried: a login that meets a full queue has not failed.
    let place = state.passwords.place()?;
    let login = state.limits.try_login(client, &username).await?;
    // A name that could not exist takes the same way as one that does not: same body, same time.
    let username = Username::new(&username).ok();
    let hash = match &username {
        Some(username) => state.accounts.password_hash(username).await.map_err(|error| reading(&error))?,
        None => None,
    };
    let verified = state.passwords.verify(place, password, hash.clone()).await?;
    let (Some(username), Verified::Yes { better_hash }) = (username, verified) else {
        return Err(Problem::new(Code::InvalidCredentials, "the name or the password is wrong"));
    };
    login.succeeded().await?;
    if let Some((old, better)) = hash.zip(better_hash) {
        let replaced = state.accounts.replace_password_hash(&username, &old, &better).await;
        // The old one is as good for logging in; the next login tries again.
        if let Err(error) = replaced {
            tracing::warn!(error = &error as &dyn std::error::Error, "a password hash was not replaced");
        }
    }
    let token = Token::generate();
    state.accounts.open_session(&username, &token.key()).await.map_err(|error| writing(&error))?;
    let expires_at = state.clock.now().plus(SESSION_LIFETIME);
    Ok(([(header::CACHE_CONTROL, "no-store")], Json(LoggedIn { token: token.reveal(), expires_at })))
}
