//! Which pages of other origins may use the API from a browser: the CORS protocol of the Fetch standard
//! (<https://fetch.spec.whatwg.org/#http-cors-protocol>). There are no cookies: a page acts only with a token that it was
//! given. What a browser keeps from other pages is the answer.

use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;
use std::sync::Arc;

use axum::http::{HeaderMap, HeaderValue, Method, Uri, header};

/// Scheme, host and port of a page, as browsers write them in `Origin`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebOrigin(HeaderValue);

/// Why a text is not a [`WebOrigin`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "an origin as browsers send it, such as https://chat.example.com or http://localhost:3000: no *, in lower case (other \
     letters than a-z as xn--…), without a path, and without the port that is the scheme's own"
)]
pub struct InvalidWebOrigin;

impl FromStr for WebOrigin {
    type Err = InvalidWebOrigin;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let uri: Uri = text.parse().map_err(|_| InvalidWebOrigin)?;
        let (scheme, host) = uri.scheme_str().zip(uri.host()).ok_or(InvalidWebOrigin)?;
        let port = uri.port_u16().filter(|port| !matches!((scheme, port), ("http", 80) | ("https", 443)));
        let port = port.map(|port| format!(":{port}")).unwrap_or_default();
        // So there is nothing else in it.
        if !is_host(host) || text != format!("{scheme}://{host}{port}").to_ascii_lowercase() {
            return Err(InvalidWebOrigin);
        }
        text.parse().map(Self).map_err(|_| InvalidWebOrigin)
    }
}

fn is_host(text: &str) -> bool {
    let of_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    match text.strip_prefix('[').and_then(|text| text.strip_suffix(']')) {
        Some(address) => address.parse::<Ipv6Addr>().is_ok_and(|parsed| parsed.to_string() == address),
        None => !text.is_empty() && text.bytes().all(of_name),
    }
}

impl fmt::Display for WebOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.to_str().expect("it was made of text"))
    }
}

/// With no origin, answers say nothing of origins.
#[derive(Debug, Clone, Default)]
pub struct Cors(Arc<[WebOrigin]>);

/// Of headers, where no credentials are allowed.
const ALL: HeaderValue = HeaderValue::from_static("*");
/// `Authorization` is in no `*`.
const ALL_WITH_TOKEN: HeaderValue = HeaderValue::from_static("authorization, *");
const METHODS: HeaderValue = HeaderValue::from_static("GET, HEAD, POST, PUT");
/// How long a browser need not ask again, in seconds. Chromium takes no more.
const REMEMBERED_FOR: HeaderValue = HeaderValue::from_static("7200");

impl Cors {
    #[must_use]
    pub fn new(origins: &[WebOrigin]) -> Self {
        Self(origins.into())
    }

    /// The origin of the page that asks, if it is one of these.
    pub(super) fn named(&self, request: &HeaderMap) -> Option<HeaderValue> {
        let mut origins = self.0.iter().map(|WebOrigin(origin)| origin);
        origins.find(|origin| request.get(header::ORIGIN) == Some(*origin)).cloned()
    }

    /// Adds to an answer what a page of the `named` origin may do with it. An `OPTIONS` is answered for every method of the API:
    /// which ones a path takes is said when they come.
    pub(super) fn tell(&self, method: &Method, named: Option<HeaderValue>, answer: &mut HeaderMap) {
        if self.0.is_empty() {
            return;
        }
        // Caches: also of an answer to whoever sent none.
        answer.append(header::VARY, HeaderValue::from_static("origin"));
        let Some(origin) = named else { return };
        answer.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        if method == Method::OPTIONS {
            answer.insert(header::ACCESS_CONTROL_ALLOW_METHODS, METHODS);
            answer.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, ALL_WITH_TOKEN);
            answer.insert(header::ACCESS_CONTROL_MAX_AGE, REMEMBERED_FOR);
        } else {
            answer.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, ALL);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_what_browsers_send() {
        for text in [
            "https://chat.example.com",
            "http://localhost:3000",
            "http://127.0.0.1:8080",
            "http://[::1]:8080",
            "https://example.com:80",
            "https://xn--bcher-kva.example",
            "capacitor://localhost",
            "chrome-extension://abcdefghijklmnop",
        ] {
            assert_eq!(text.parse::<WebOrigin>().map(|origin| origin.to_string()), Ok(text.to_owned()));
        }
        for text in [
            "",
            "*",
            "null",
            "example.com",
            "https://",
            "https://example.com/",
            "https://example.com/chat",
            "https://example.com?a",
            "https://user@example.com",
            "https://Example.com",
            "https://example.com:443",
            "http://example.com:80",
            "http://example.com:080",
            "http://example.com:",
            "https://*.example.com",
            "https://a.example;b.example",
            "http://[0:0:0:0:0:0:0:1]",
            "http://[localhost]",
            " https://example.com",
            "https://example.com\n",
            "https://é.com",
        ] {
            assert!(text.parse::<WebOrigin>().is_err(), "{text:?}");
        }
    }

    fn told(cors: &Cors, method: &Method, origin: Option<&str>) -> Vec<String> {
        let mut answer = HeaderMap::new();
        answer.insert(header::VARY, HeaderValue::from_static("authorization"));
        let asked = origin.map(|origin| (header::ORIGIN, origin.parse().unwrap()));
        cors.tell(method, cors.named(&HeaderMap::from_iter(asked)), &mut answer);
        let lines = answer.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()));
        lines.collect()
    }

    #[test]
    fn who_is_named_is_told_what_he_may_do() {
        let origins = ["https://a.example", "https://b.example"].map(|text| text.parse().unwrap());
        let cors = Cors::new(&origins);
        let vary = ["vary: authorization".to_owned(), "vary: origin".to_owned()];
        for origin in [None, Some("https://c.example"), Some("https://a.example.c.example"), Some("null")] {
            assert_eq!(told(&cors, &Method::GET, origin), vary, "{origin:?}");
            assert_eq!(told(&cors, &Method::OPTIONS, origin), vary, "{origin:?}");
        }
        let answer = told(&cors, &Method::GET, Some("https://b.example"));
        assert_eq!(answer[..2], vary);
        assert_eq!(answer[2], "access-control-allow-origin: https://b.example");
        assert_eq!(answer[3..], ["access-control-expose-headers: *"]);
        let preflight = told(&cors, &Method::OPTIONS, Some("https://b.example"));
        assert_eq!(preflight[3], "access-control-allow-methods: GET, HEAD, POST, PUT");
        assert_eq!(preflight[4], "access-control-allow-headers: authorization, *");
        assert_eq!(preflight[5..], ["access-control-max-age: 7200"]);
    }

    #[test]
    fn without_origins_nothing_is_said() {
        for method in [Method::GET, Method::OPTIONS] {
            let told = told(&Cors::default(), &method, Some("https://a.example"));
            assert_eq!(told, ["vary: authorization"]);
        }
    }
}
