//! The header `Prefer` (RFC 7240), as far as it is heeded here: `wait=SECONDS`.

use std::convert::Infallible;
use std::time::Duration;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue};

static PREFER: HeaderName = HeaderName::from_static("prefer");

/// How long the client is willing to wait, if it says so.
pub(crate) struct PreferredWait(pub(crate) Option<Duration>);

impl<S: Send + Sync> FromRequestParts<S> for PreferredWait {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Infallible> {
        Ok(Self(wait(&parts.headers)))
    }
}

/// What cannot be read is ignored; of several the first counts.
fn wait(headers: &HeaderMap) -> Option<Duration> {
    let texts = headers.get_all(&PREFER).iter().filter_map(|value: &HeaderValue| value.to_str().ok());
    let mut preferences = texts.flat_map(|text| text.split(','));
    preferences.find_map(|preference| {
        // What follows a semicolon are parameters of the preference, and `wait` has none.
        let (name, value) = preference.split(';').next()?.split_once('=')?;
        name.trim().eq_ignore_ascii_case("wait").then(|| seconds(value.trim()))
    })?
}

fn seconds(text: &str) -> Option<Duration> {
    let quoted = text.strip_prefix('"').and_then(|text| text.strip_suffix('"'));
    let digits = quoted.unwrap_or(text);
    let readable = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    // More than fits is more than enough.
    readable.then(|| Duration::from_secs(digits.parse().unwrap_or(u64::MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_long_a_client_waits() {
        for (values, expected) in [
            (&[][..], None),
            (&["wait=5"], Some(5)),
            (&["Wait = 5"], Some(5)),
            (&["wait=\"5\""], Some(5)),
            (&["respond-async, wait=3;x=y ,handling=lenient"], Some(3)),
            (&["respond-async", "wait=4"], Some(4)),
            (&["wait=1, wait=2"], Some(1)),
            (&["wait=0"], Some(0)),
            (&["wait=99999999999999999999999"], Some(u64::MAX)),
            (&["wait"], None),
            (&["wait="], None),
            (&["wait=x"], None),
            (&["wait=-1"], None),
            (&["wait=1.5"], None),
            (&["wait=x, wait=5"], None),
            (&["waiting=5; wait=5"], None),
        ] {
            let pairs = values.iter().map(|value| (PREFER.clone(), value.parse().unwrap()));
            assert_eq!(wait(&pairs.collect()), expected.map(Duration::from_secs), "{values:?}");
        }
        let garbled = HeaderValue::from_bytes(b"wait=\xff").unwrap();
        assert_eq!(wait(&HeaderMap::from_iter([(PREFER.clone(), garbled)])), None);
    }
}
