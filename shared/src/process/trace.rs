//! The trace that a request belongs to (W3C Trace Context, level 1): read from `traceparent`, never sent on, as no
//! service calls another.

use std::convert::Infallible;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName};

use super::request::single;
use crate::ids::{Trace, TraceId};

static TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// The trace that the client's request is part of. Only this one is stored with an event: of a trace that begins
/// here nobody else knows, and the log lines of its request have the request id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GivenTrace(pub Option<Trace>);

impl GivenTrace {
    /// A malformed or repeated header is as good as none.
    #[must_use]
    pub fn of(headers: &HeaderMap) -> Self {
        Self(parts(headers).map(|(id, _, flags)| Trace { id, is_sampled: is_sampled(flags) }))
    }
}

/// The client's span, if the client records it.
#[must_use]
pub fn sampled_parent(headers: &HeaderMap) -> Option<&str> {
    let (_, parent, flags) = parts(headers)?;
    is_sampled(flags).then_some(parent)
}

fn is_sampled(flags: u8) -> bool {
    flags & 1 == 1
}

fn parts(headers: &HeaderMap) -> Option<(TraceId, &str, u8)> {
    parse(single(headers, &TRACEPARENT).ok().flatten()?)
}

impl<S: Send + Sync> FromRequestParts<S> for GivenTrace {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Infallible> {
        Ok(Self::of(&parts.headers))
    }
}

/// Of `version-trace-parent-flags`, the last three. A later version may have more behind it.
fn parse(traceparent: &str) -> Option<(TraceId, &str, u8)> {
    let mut parts = traceparent.split('-');
    let (version, trace) = (parts.next()?, parts.next()?);
    let (parent, flags) = (parts.next()?, parts.next()?);
    let is_hex = |text: &str, length| {
        text.len() == length && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    };
    let is_known = version != "ff" && (version != "00" || parts.next().is_none());
    let is_parent = is_hex(parent, 16) && parent.bytes().any(|byte| byte != b'0');
    if !is_known || !is_hex(version, 2) || !is_parent || !is_hex(flags, 2) {
        return None;
    }
    Some((trace.parse().ok()?, parent, u8::from_str_radix(flags, 16).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";

    #[test]
    fn what_is_well_formed() {
        let parsed = |text: &str| parse(text).map(|(trace, ..)| trace.to_string());
        for text in [
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00",
            "cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
        ] {
            assert_eq!(parsed(text).as_deref(), Some(TRACE), "{text}");
        }
        for text in [
            "",
            "00",
            "0af7651916cd43dd8448eb211c80319c",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0af7651916cd43dd8448eb211c8031-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-1",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "0g-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        ] {
            assert_eq!(parsed(text), None, "{text}");
        }
    }

    #[test]
    fn a_repeated_header_is_none() {
        let mut headers = HeaderMap::new();
        let value = || format!("00-{TRACE}-b7ad6b7169203331-01").parse().unwrap();
        headers.append(&TRACEPARENT, value());
        assert_eq!(GivenTrace::of(&headers).0, format!("{TRACE}-01").parse().ok());
        assert_eq!(sampled_parent(&headers), Some("b7ad6b7169203331"));
        headers.append(&TRACEPARENT, value());
        assert_eq!(GivenTrace::of(&headers).0, None);
    }
}
