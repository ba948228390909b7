//! Errors as clients see them: RFC 9457 problems with a stable code. Texts name no internals; the cause goes to
//! the log, where the error is handled.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use super::limits::Quota;
use crate::limits::RETRY_SECONDS_MAX;
use crate::ports::StoreError;

/// One line is one code, so that no list of them can miss any.
macro_rules! codes {
    ($($name:ident: $status:ident, $code:literal, $title:literal;)*) => {
        /// The stable codes of the API, each with its status and title.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Code {
            $($name,)*
        }

        impl Code {
            /// In the order of docs/api.md.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// Status, code and title.
            #[must_use]
            pub fn parts(self) -> (StatusCode, &'static str, &'static str) {
                match self {
                    $(Self::$name => (StatusCode::$status, $code, $title),)*
                }
            }
        }
    };
}

codes! {
    InvalidRequest: BAD_REQUEST, "invalid_request", "The request is malformed";
    Unauthenticated: UNAUTHORIZED, "unauthenticated", "A valid token is required";
    InvalidCredentials: UNAUTHORIZED, "invalid_credentials", "Wrong name or password";
    NotYourName: FORBIDDEN, "not_your_name", "The sender is another user";
    NotAMember: FORBIDDEN, "not_a_member", "The conversation belongs to others";
    NotFound: NOT_FOUND, "not_found", "There is nothing here";
    RecipientNotFound: NOT_FOUND, "recipient_not_found", "There is no such recipient";
    MethodNotAllowed: METHOD_NOT_ALLOWED, "method_not_allowed", "Not with this method";
    Timeout: REQUEST_TIMEOUT, "timeout", "The request took too long to arrive";
    UsernameTaken: CONFLICT, "username_taken", "The name is taken";
    BodyTooLarge: PAYLOAD_TOO_LARGE, "body_too_large", "The body is too large";
    UnsupportedMediaType: UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", "The body is not plain JSON";
    InvalidFields: UNPROCESSABLE_ENTITY, "invalid_fields", "Some fields are not valid";
    IdempotencyConflict: UNPROCESSABLE_ENTITY, "idempotency_conflict", "The key was used for another body";
    IdOutOfWindow: UNPROCESSABLE_ENTITY, "id_out_of_window", "The time in the id is too far from now";
    RateLimited: TOO_MANY_REQUESTS, "rate_limited", "Too many requests";
    Internal: INTERNAL_SERVER_ERROR, "internal", "Something went wrong here";
    Busy: SERVICE_UNAVAILABLE, "busy", "Too much to do right now";
    LogUnavailable: SERVICE_UNAVAILABLE, "log_unavailable", "The log cannot be reached";
    ViewsUnavailable: SERVICE_UNAVAILABLE, "views_unavailable", "The views cannot be reached";
    NotYetVisible: SERVICE_UNAVAILABLE, "not_yet_visible", "The message is not visible yet";
    Starting: SERVICE_UNAVAILABLE, "starting", "The service is starting";
    Draining: SERVICE_UNAVAILABLE, "draining", "The service is stopping";
    OutcomeUnknown: GATEWAY_TIMEOUT, "outcome_unknown", "It is not known whether this was done";
}

/// What is known of a write that failed on the server's side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Nothing was appended; retry freely.
    NotApplied,
    /// Retry with the same idempotency key or id.
    Unknown,
}

/// One field that is not as it must be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct FieldError {
    #[schema(example = "content")]
    pub field: String,
    /// `missing`, `unknown`, `duplicate`, `wrong_type`, `invalid`, `too_short`, `too_long`, `too_common` or
    /// `blank`.
    #[schema(value_type = String, example = "too_long")]
    pub code: &'static str,
    pub detail: String,
}

impl FieldError {
    pub fn new(field: impl Into<String>, code: &'static str, detail: impl Into<String>) -> Self {
        Self { field: field.into(), code, detail: detail.into() }
    }
}

/// An error on its way to the client. [`super::http::finish`] adds the request id and writes it out.
#[derive(Debug, Clone)]
pub struct Problem {
    pub code: Code,
    pub detail: String,
    pub errors: Vec<FieldError>,
    pub outcome: Option<Outcome>,
    /// Seconds; a 503 that says nothing asks for a few.
    retry_after: Option<u32>,
    /// Of the limit that refused; apart, because most problems have none.
    quota: Option<Box<Quota>>,
}

impl Problem {
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        let detail = detail.into();
        Self { code, detail, errors: Vec::new(), outcome: None, retry_after: None, quota: None }
    }

    pub fn invalid(detail: impl Into<String>) -> Self {
        Self::new(Code::InvalidRequest, detail)
    }

    #[must_use]
    pub fn fields(errors: Vec<FieldError>) -> Self {
        let names: Vec<_> = errors.iter().map(|error| error.field.as_str()).collect();
        let detail = format!("not valid: {}", names.join(", "));
        Self { errors, ..Self::new(Code::InvalidFields, detail) }
    }

    #[must_use]
    pub fn with_outcome(self, outcome: Outcome) -> Self {
        Self { outcome: Some(outcome), ..self }
    }

    #[must_use]
    pub fn with_retry_after(self, seconds: u32) -> Self {
        Self { retry_after: Some(seconds), ..self }
    }

    #[must_use]
    pub fn with_quota(self, quota: Quota) -> Self {
        Self { quota: Some(Box::new(quota)), ..self }
    }

    /// A store failed while reading. `unavailable` names which part of the system that is to the client. The
    /// cause is logged here, once.
    #[must_use]
    pub fn of_store(error: &StoreError, unavailable: Code) -> Self {
        match error {
            // Who is refused for too much work must cost little, and not fill the log; the metrics count it.
            StoreError::Busy { .. } => tracing::debug!(%error, "a store call was refused"),
            _ => tracing::warn!(error = error as &dyn std::error::Error, "a store call failed"),
        }
        match error {
            // What does not fit was right when this process began: it was exchanged, and may be again.
            StoreError::Unavailable { .. }
            | StoreError::Unknown { .. }
            | StoreError::Unreplicated { .. }
            | StoreError::Other { .. }
            | StoreError::Unfit { .. } => {
                Self::new(unavailable, "a part of the system is away; try again soon")
            }
            StoreError::Busy { .. } => Self::new(Code::Busy, "too many requests are waiting; try again soon"),
            StoreError::Damaged { .. } => Self::new(Code::Internal, "the request could not be served"),
        }
    }

    /// As a process says it whose stores have never been there: nothing went away. What may have been done stays
    /// unknown.
    #[must_use]
    pub fn while_starting(self) -> Self {
        let away = matches!(self.code, Code::LogUnavailable | Code::ViewsUnavailable);
        if !away || self.outcome == Some(Outcome::Unknown) {
            return self;
        }
        let detail = "a part of the system is not there yet; try again soon".to_owned();
        Self { code: Code::Starting, detail, ..self }
    }

    /// The body as clients get it.
    #[must_use]
    pub fn body<'a>(&'a self, request_id: &'a str) -> ProblemBody<'a> {
        let (status, code, title) = self.code.parts();
        ProblemBody {
            kind: "about:blank",
            title,
            status: status.as_u16(),
            detail: &self.detail,
            code,
            request_id,
            errors: &self.errors,
            outcome: self.outcome,
        }
    }
}

/// `application/problem+json`.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Problem)]
pub struct ProblemBody<'a> {
    #[serde(rename = "type")]
    #[schema(example = "about:blank")]
    kind: &'static str,
    title: &'static str,
    #[schema(example = 422)]
    status: u16,
    detail: &'a str,
    /// Stable, for programs.
    #[schema(example = "invalid_fields")]
    code: &'static str,
    request_id: &'a str,
    /// Only with `invalid_fields`.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    errors: &'a [FieldError],
    /// Only with a 5xx.
    #[serde(skip_serializing_if = "Option::is_none")]
    outcome: Option<Outcome>,
}

/// Carries the problem in the response's extensions; the body is written where the request id is known.
impl IntoResponse for Problem {
    fn into_response(mut self) -> Response {
        let (status, ..) = self.code.parts();
        let mut response = status.into_response();
        let headers = response.headers_mut();
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        let scattered = || (status == StatusCode::SERVICE_UNAVAILABLE).then(scattered_seconds);
        if let Some(seconds) = self.retry_after.or_else(scattered) {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        if let Some(quota) = self.quota.take() {
            quota.write(headers);
        }
        response.extensions_mut().insert(self);
        response
    }
}

/// So that who was refused together does not come back together.
pub(super) fn scattered_seconds() -> u32 {
    let random = getrandom::u32().expect("the system gives random bytes");
    1 + random % RETRY_SECONDS_MAX
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_process_that_starts_says_so() {
        let told = |code, outcome| {
            let problem = Problem { outcome, ..Problem::new(code, "") }.while_starting();
            (problem.code, problem.outcome)
        };
        let (not_applied, unknown) = (Some(Outcome::NotApplied), Some(Outcome::Unknown));
        assert_eq!(told(Code::LogUnavailable, not_applied), (Code::Starting, not_applied));
        assert_eq!(told(Code::LogUnavailable, unknown), (Code::LogUnavailable, unknown));
        assert_eq!(told(Code::ViewsUnavailable, None), (Code::Starting, None));
        assert_eq!(told(Code::Busy, not_applied), (Code::Busy, not_applied));
        assert_eq!(told(Code::OutcomeUnknown, None), (Code::OutcomeUnknown, None));
    }

    #[test]
    fn every_503_asks_for_a_retry_and_scatters_it() {
        let retry_after = |problem: Problem| {
            let answer = problem.into_response();
            answer.headers().get(header::RETRY_AFTER).map(|seconds| seconds.to_str().unwrap().to_owned())
        };
        let seconds: BTreeSet<_> = (0..200).map(|_| retry_after(Problem::new(Code::Busy, ""))).collect();
        assert_eq!(seconds, ["1", "2", "3"].map(|seconds| Some(seconds.to_owned())).into());
        assert_eq!(retry_after(Problem::new(Code::Busy, "").with_retry_after(7)), Some("7".to_owned()));
        assert_eq!(retry_after(Problem::new(Code::Internal, "")), None);
    }
}
