//! Answers that a client may have already: ready bytes with an `ETag`, and 304 where `If-None-Match` names it (RFC 9110,
//! 13.1.2). It does not know what the bytes say.

use std::convert::Infallible;

use axum::body::Body;
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_128;

/// JSON as it is sent. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Ready {
    body: Bytes,
    etag: HeaderValue,
}

impl Ready {
    /// The tag is a digest of the bytes: what looks the same is the same, on every instance.
    pub(crate) fn new(body: Vec<u8>) -> Self {
        let etag = format!("\"{:032x}\"", xxh3_128(&body));
        let etag = HeaderValue::try_from(etag).expect("quotes and digits are visible ASCII");
        // Without the room that was left over: it is held for as long as the page is.
        Self { body: body.into_boxed_slice().into(), etag }
    }

    pub(crate) fn bytes(&self) -> usize {
        self.body.len() + self.etag.len()
    }

    /// With `headers`, which a 304 has as well. Whose answer it is depends on the token.
    pub(crate) fn answer(&self, known: &Known, mut headers: HeaderMap) -> Response {
        headers.insert(header::ETAG, self.etag.clone());
        headers.insert(header::VARY, HeaderValue::from_static("authorization"));
        if known.has(self.etag.as_bytes()) {
            return (StatusCode::NOT_MODIFIED, headers).into_response();
        }
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let mut response = Response::new(Body::from(self.body.clone()));
        *response.headers_mut() = headers;
        response
    }
}

/// What the client has, as `If-None-Match` says.
pub(crate) struct Known(Vec<HeaderValue>);

impl<S: Send + Sync> FromRequestParts<S> for Known {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Infallible> {
        Ok(Self(parts.headers.get_all(header::IF_NONE_MATCH).iter().cloned().collect()))
    }
}

impl Known {
    /// Weak tags compare as strong ones do; what follows something that is no tag is not read.
    fn has(&self, etag: &[u8]) -> bool {
        let mut values = self.0.iter().map(HeaderValue::as_bytes);
        values.any(|value| value.trim_ascii() == b"*" || tags(value).any(|tag| tag == etag))
    }
}

/// The tags of a list, with their quotes and without the `W/` of weak ones. A tag may hold commas.
fn tags(mut list: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        while let [b' ' | b'\t' | b',', rest @ ..] = list {
            list = rest;
        }
        let tag = list.strip_prefix(b"W/").unwrap_or(list);
        let length = tag.strip_prefix(b"\"")?.iter().position(|byte| *byte == b'"')? + 2;
        let (tag, rest) = tag.split_at(length);
        list = rest;
        Some(tag)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_client_has() {
        for (values, known) in [
            (&[][..], false),
            (&["\"abc\""], true),
            (&["W/\"abc\""], true),
            (&["*"], true),
            (&[" * "], true),
            (&["\"x\", \"abc\""], true),
            (&["\"x\"", "W/\"y\",W/\"abc\""], true),
            (&[", ,\"a,b\" ,, \"abc\""], true),
            (&["\"x, \"abc\""], false),
            (&["abc"], false),
            (&["w/\"abc\""], false),
            (&["\"abc"], false),
            (&["\"ab\", \"abcd\""], false),
            (&["x, \"abc\""], false),
            (&["\"*\""], false),
            (&[""], false),
        ] {
            let has = Known(values.iter().map(|value| value.parse().unwrap()).collect()).has(b"\"abc\"");
            assert_eq!(has, known, "{values:?}");
        }
    }

    #[test]
    fn equal_bytes_have_equal_tags() {
        let tag = |text: &str| Ready::new(text.into()).etag;
        assert_eq!(tag("[]"), tag("[]"));
        assert_ne!(tag("[]"), tag("[1]"));
        assert_eq!(tag("[]").len(), 34);
    }
}
