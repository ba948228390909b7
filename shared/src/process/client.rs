//! Where a request comes from: the peer's address, or what a trusted proxy says of it. Nobody else is believed.

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{FromRef, FromRequestParts};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName};

use crate::network::Network;

static X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The other end of the connection. The server puts it into the extensions of every request.
#[derive(Debug, Clone, Copy)]
pub struct Peer(pub IpAddr);

/// The proxies whose word is taken for an address; by default none.
#[derive(Debug, Clone, Default)]
pub struct TrustedProxies(Arc<[Network]>);

impl TrustedProxies {
    #[must_use]
    pub fn new(networks: &[Network]) -> Self {
        Self(networks.into())
    }

    /// From the peer backwards through `X-Forwarded-For`, for as long as the one who speaks is trusted. What cannot
    /// be read ends the walk: the last good address is the client's.
    fn client(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        let mut client = peer;
        // A proxy adds at the end, so the end is the nearest.
        let mut lines = headers.get_all(&X_FORWARDED_FOR).iter().rev();
        let mut said: Box<dyn Iterator<Item = &str>> = Box::new(std::iter::empty());
        while self.0.iter().any(|network| network.contains(client)) {
            let Some(text) = said.next() else {
                let Some(line) = lines.next() else { break };
                said = Box::new(line.to_str().unwrap_or("garbled").rsplit(','));
                continue;
            };
            let Ok(address) = text.trim().parse() else { break };
            client = address;
        }
        client
    }
}

/// The address that a request counts for.
#[derive(Debug, Clone, Copy)]
pub struct ClientAddress(pub IpAddr);

impl<S> FromRequestParts<S> for ClientAddress
where
    TrustedProxies: FromRef<S>,
    S: Send + Sync,
{
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Infallible> {
        let Peer(peer) = *parts.extensions.get().expect("the server names the peer of every request");
        Ok(Self(TrustedProxies::from_ref(state).client(peer, &parts.headers)))
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    /// `forwarded`: the lines of the header, between bars.
    fn client(trusted: &[&str], peer: &str, forwarded: &str) -> String {
        let networks: Vec<_> = trusted.iter().map(|text| text.parse().unwrap()).collect();
        let mut headers = HeaderMap::new();
        for line in forwarded.split('|') {
            headers.append(&X_FORWARDED_FOR, HeaderValue::from_bytes(line.as_bytes()).unwrap());
        }
        TrustedProxies::new(&networks).client(peer.parse().unwrap(), &headers).to_string()
    }

    #[test]
    fn only_trusted_proxies_are_believed() {
        let proxies = ["127.0.0.1", "10.0.0.0/8", "fd00::/8"];
        for (peer, forwarded, expected) in [
            ("127.0.0.1", "203.0.113.7", "203.0.113.7"),
            ("203.0.113.9", "203.0.113.7", "203.0.113.9"),
            ("127.0.0.2", "203.0.113.7", "127.0.0.2"),
            // From the right, past proxies, to the first who is none: what he says counts for nothing.
            ("127.0.0.1", "198.51.100.1, 203.0.113.7,10.1.2.3", "203.0.113.7"),
            ("127.0.0.1", "198.51.100.1|203.0.113.7|10.1.2.3", "203.0.113.7"),
            ("127.0.0.1", "10.1.2.3,10.1.2.4", "10.1.2.3"),
            ("127.0.0.1", "2001:db8::7", "2001:db8::7"),
            ("fd00::1", "203.0.113.7", "203.0.113.7"),
            ("::ffff:127.0.0.1", "203.0.113.7", "203.0.113.7"),
            // Garbled: the last good one.
            ("127.0.0.1", "", "127.0.0.1"),
            ("127.0.0.1", "unknown", "127.0.0.1"),
            ("127.0.0.1", "203.0.113.7,", "127.0.0.1"),
            ("127.0.0.1", "203.0.113.7, x, 10.1.2.3", "10.1.2.3"),
            ("127.0.0.1", "203.0.113.7:80", "127.0.0.1"),
            ("127.0.0.1", "203.0.113.7|10.1.2.4, \u{e9}", "127.0.0.1"),
            ("127.0.0.1", "203.0.113.7|\u{e9}|10.1.2.3", "10.1.2.3"),
        ] {
            assert_eq!(client(&proxies, peer, forwarded), expected, "{peer} {forwarded:?}");
        }
        assert_eq!(client(&[], "127.0.0.1", "203.0.113.7"), "127.0.0.1", "by default nobody");
        let alone = TrustedProxies::default().client([127, 0, 0, 1].into(), &HeaderMap::new());
        assert_eq!(alone.to_string(), "127.0.0.1");
    }
}
