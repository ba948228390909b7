//! What a client is told of its limit: the fields `RateLimit-Policy` and `RateLimit` of
//! draft-ietf-httpapi-ratelimit-headers-10.

use std::time::Duration;

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::response::{IntoResponse, Response};

use super::whole_seconds;
use crate::rate::Rate;

static RATELIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
static RATELIMIT: HeaderName = HeaderName::from_static("ratelimit");

/// Goes onto the answer, whatever that is.
#[derive(Debug, Clone)]
#[must_use = "a limited answer says how much is left"]
pub struct Quota(Option<Fields>);

#[derive(Debug, Clone)]
struct Fields {
    policy: HeaderValue,
    current: HeaderValue,
}

impl Quota {
    pub(super) fn unlimited() -> Self {
        Self(None)
    }

    pub fn on(self, answer: impl IntoResponse) -> Response {
        let mut response = answer.into_response();
        self.write(response.headers_mut());
        response
    }

    pub(in crate::process) fn write(self, headers: &mut HeaderMap) {
        if let Some(Fields { policy, current }) = self.0 {
            headers.insert(RATELIMIT_POLICY.clone(), policy);
            headers.insert(RATELIMIT.clone(), current);
        }
    }
}

/// How the answers of one policy speak.
pub(super) struct Wording {
    name: &'static str,
    /// The same on every answer.
    policy: HeaderValue,
}

impl Wording {
    /// `"send";q=40;w=2`: a burst of 40, which takes 2 s to come back.
    pub(super) fn new(name: &'static str, rate: Rate) -> Self {
        let (burst, window) = (rate.burst(), whole_seconds(rate.time_of(rate.burst())));
        Self { name, policy: text(format!("\"{name}\";q={burst};w={window}")) }
    }

    /// `"send";r=39;t=1`: 39 are left, and in `reset` there is more: all of them, or after a refusal the next one,
    /// so that `t` and `Retry-After` name the same time.
    pub(super) fn quota(&self, remaining: u32, reset: Duration) -> Quota {
        let seconds = whole_seconds(reset);
        let current = text(format!("\"{}\";r={remaining};t={seconds}", self.name));
        Quota(Some(Fields { policy: self.policy.clone(), current }))
    }
}

fn text(text: String) -> HeaderValue {
    HeaderValue::try_from(text).expect("names and numbers are visible ASCII")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fields_of_the_draft() {
        let wording = Wording::new("send", "20/s:40".parse().unwrap());
        let answer = wording.quota(39, Duration::from_millis(50)).on("hi");
        assert_eq!(answer.headers()["ratelimit-policy"], "\"send\";q=40;w=2");
        assert_eq!(answer.headers()["ratelimit"], "\"send\";r=39;t=1");
        let login = Wording::new("login", "10/min:10".parse().unwrap());
        let answer = login.quota(0, Duration::from_secs(6)).on(());
        assert_eq!(answer.headers()["ratelimit-policy"], "\"login\";q=10;w=60");
        assert_eq!(answer.headers()["ratelimit"], "\"login\";r=0;t=6");
        assert!(Quota::unlimited().on(()).headers().is_empty());
    }
}
