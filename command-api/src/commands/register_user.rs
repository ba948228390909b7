//! `POST /register`.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use shared::event::{Event, UserRegistered};
use shared::limits::{PASSWORD_CHARS_MAX, PASSWORD_CHARS_MIN};
use shared::ports::{Append, AppendError, Refusal};
use shared::process::client::ClientAddress;
use shared::process::problem::{FieldError, Problem, ProblemBody};
use shared::process::request::JsonBody;
use shared::process::trace::GivenTrace;
use shared::{Trace, Username};
use utoipa::ToSchema;

use crate::blocklist::Blocklist;
use crate::error::{appending, reading};
use crate::state::AppState;

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RegisterUser {
    #[schema(example = "samer", pattern = "^[A-Za-z0-9][A-Za-z0-9_.-]{1,31}$")]
    username: String,
    #[schema(example = "password123", min_length = 8, max_length = 128)]
    password: String,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Registered {
    #[schema(example = "User registered successfully")]
    message: &'static str,
}

impl RegisterUser {
    fn validate(self, blocklist: &Blocklist) -> Result<(Username, String), Problem> {
        let mut errors = Vec::new();
        let username = Username::new(&self.username);
        if let Err(error) = &username {
            errors.push(FieldError::new("username", "invalid", error.to_string()));
        }
        let length = self.password.chars().count();
        if length < PASSWORD_CHARS_MIN {
            let detail = format!("a password has at least {PASSWORD_CHARS_MIN} characters");
            errors.push(FieldError::new("password", "too_short", detail));
        } else if length > PASSWORD_CHARS_MAX {
            let detail = format!("a password has at most {PASSWORD_CHARS_MAX} characters");
            errors.push(FieldError::new("password", "too_long", detail));
        } else if blocklist.holds(&self.password) {
            errors.push(FieldError::new("password", "too_common", "many others use it; choose another one"));
        }
        match username {
            Ok(username) if errors.is_empty() => Ok((username, self.password)),
            _ => Err(Problem::fields(errors)),
        }
    }
}

/// Register a user
#[utoipa::path(
    post, path = "/register", tag = "users", request_body = RegisterUser,
    responses(
        (status = 201, body = Registered, headers(
            ("RateLimit" = String, description = "What is left, as in draft-ietf-httpapi-ratelimit-headers-10"),
            ("RateLimit-Policy" = String, description = "The limit"),
        )),
        (status = 400, description = "invalid_request", body = ProblemBody<'static>, content_type = "application/problem+json"),
        (status = 409, description = "username_taken", body = ProblemBody<'static>, content_type = "application/problem+json"),
        (status = 422, description = "invalid_fields", body = ProblemBody<'static>, content_type = "application/problem+json"),
        (status = 429, description = "rate_limited", body = ProblemBody<'static>, content_type = "application/problem+json", headers(
            ("Retry-After" = u32, description = "Seconds"),
            ("RateLimit" = String, description = "What is left"),
            ("RateLimit-Policy" = String, description = "The limit"),
        )),
        (status = 503, description = "busy, log_unavailable, starting", body = ProblemBody<'static>, content_type = "application/problem+json"),
        (status = 504, description = "outcome_unknown", body = ProblemBody<'static>, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn register_user(
    State(state): State<AppState>,
    ClientAddress(client): ClientAddress,
    GivenTrace(trace): GivenTrace,
    body: JsonBody,
) -> Result<Response, Problem> {
    let (username, password) = body.read::<RegisterUser>()?.validate(&state.blocklist)?;
    let quota = state.limits.register(client).await?;
    Ok(quota.on(append(&state, username, password, trace).await))
}

async fn append(
    state: &AppState,
    username: Username,
    password: String,
    trace: Option<Trace>,
) -> Result<(StatusCode, Json<Registered>), Problem> {
    // The append decides; this only spares the hash for a name that is plainly taken.
    if state.accounts.exists(&username).await.map_err(|error| reading(&error))? {
        return Err(appending(AppendError::Refused(Refusal::UsernameTaken)));
    }
    let password_hash = state.passwords.hash(password).await?;
    let event = Event::UserRegistered(UserRegistered { username, password_hash });
    let append = Append { id: state.clock.new_id(), event, once: None, trace };
    state.log.append(append).await.map_err(appending)?;
    Ok((StatusCode::CREATED, Json(Registered { message: "User registered successfully" })))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_user_may_be_called() {
        let validate = |username: &str, password: &str| {
            let command = RegisterUser { username: username.to_owned(), password: password.to_owned() };
            command.validate(&Blocklist::default()).map(|(name, _)| name.to_string()).map_err(|problem| {
                problem
                    .errors
                    .iter()
                    .map(|error| format!("{} {}", error.field, error.code))
                    .collect::<Vec<_>>()
            })
        };
        assert_eq!(validate("Samer", "password123"), Ok("samer".to_owned()));
        assert_eq!(validate("samer", "pässwör\u{1f642}"), Ok("samer".to_owned()), "8 scalar values");
        assert_eq!(validate("samer", &"é".repeat(128)), Ok("samer".to_owned()));
        assert_eq!(validate("samer", &"é".repeat(129)), Err(vec!["password too_long".to_owned()]));
        let both = vec!["username invalid".to_owned(), "password too_short".to_owned()];
        assert_eq!(validate("s", "1234567"), Err(both));
    }
}
