//! Who is asking. A token is 256 random bits; a store knows only its SHA-256.

use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;

use axum::extract::{FromRef, FromRequestParts};
use axum::http::{header, request::Parts};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};

use super::problem::{Code, Outcome, Problem};
use super::request::single;
use crate::ids::Username;
use crate::ports::{SessionKey, Sessions};

/// A session's secret. It is shown to its owner once and never logged.
#[derive(Clone, PartialEq, Eq)]
pub struct Token([u8; 32]);

impl Token {
    /// # Panics
    /// When the system has no source of randomness: nothing safe can be made without one.
    #[must_use]
    pub fn generate() -> Self {
        let mut bits = [0; 32];
        getrandom::fill(&mut bits).expect("the system gives random bytes");
        Self(bits)
    }

    /// The text that the client sends back.
    #[must_use]
    pub fn reveal(&self) -> String {
        BASE64_URL_SAFE_NO_PAD.encode(self.0)
    }

    /// Accepts exactly what [`Token::reveal`] gave.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() != 43 {
            return None;
        }
        let mut bits = [0; 32];
        let length = BASE64_URL_SAFE_NO_PAD.decode_slice(text, &mut bits).ok()?;
        (length == bits.len()).then_some(Self(bits))
    }

    #[must_use]
    pub fn key(&self) -> SessionKey {
        SessionKey(Sha256::digest(self.0).into())
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

/// The caller, known by his token. Missing, garbled, expired and revoked tokens get the same answer.
#[derive(Debug)]
pub struct Caller {
    pub user: Username,
    pub session: SessionKey,
}

impl<S> FromRequestParts<S> for Caller
where
    Arc<dyn Sessions>: FromRef<S>,
    S: Send + Sync,
{
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let session = presented(parts).ok_or_else(unauthenticated)?;
        Self::find(session, &*Arc::<dyn Sessions>::from_ref(state)).await
    }
}

impl Caller {
    async fn find(session: SessionKey, sessions: &dyn Sessions) -> Result<Self, Problem> {
        let user = sessions.find(&session).await.map_err(|error| {
            // Nothing was tried yet, so a failed write is known not to be applied.
            Problem::of_store(&error, Code::LogUnavailable).with_outcome(Outcome::NotApplied)
        })?;
        Ok(Self { user: user.ok_or_else(unauthenticated)?, session })
    }
}

/// Of the token that came, if it could be one.
fn presented(parts: &Parts) -> Option<SessionKey> {
    let header = single(&parts.headers, &header::AUTHORIZATION).ok().flatten();
    let (scheme, text) = header?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| Token::parse(text))?.map(|token| token.key())
}

/// The one answer to every token that is not valid, and to none.
#[must_use]
pub fn unauthenticated() -> Problem {
    Problem::new(Code::Unauthenticated, "send the token from /login as a bearer token")
}

/// Whether names in a request are believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Access {
    /// Only with a token of that user.
    #[default]
    Token,
    /// As the original chat system did: for trying out, on loopback only.
    Open,
}

/// The caller; nobody only where names are believed ([`Access::Open`]) and no valid token came.
#[derive(Debug)]
pub struct MaybeCaller(pub Option<Caller>);

impl<S> FromRequestParts<S> for MaybeCaller
where
    Arc<dyn Sessions>: FromRef<S>,
    Access: FromRef<S>,
    S: Send + Sync,
{
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let Ok(claim) = Claim::from_request_parts(parts, state).await;
        Ok(Self(claim.settle().await?))
    }
}

/// What came for a token, before it is known whose it is: for a handler that has a question of its own to the same
/// store and asks it meanwhile, so that both are one round trip.
pub struct Claim {
    session: Option<SessionKey>,
    sessions: Arc<dyn Sessions>,
    access: Access,
}

impl<S> FromRequestParts<S> for Claim
where
    Arc<dyn Sessions>: FromRef<S>,
    Access: FromRef<S>,
    S: Send + Sync,
{
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Infallible> {
        let (sessions, access) = (FromRef::from_ref(state), FromRef::from_ref(state));
        Ok(Self { session: presented(parts), sessions, access })
    }
}

impl Claim {
    /// The caller as [`MaybeCaller`] has him.
    ///
    /// # Errors
    /// As [`MaybeCaller`] is refused.
    pub async fn settle(self) -> Result<Option<Caller>, Problem> {
        let trusting = self.access == Access::Open;
        let Some(session) = self.session else {
            return if trusting { Ok(None) } else { Err(unauthenticated()) };
        };
        match Caller::find(session, &*self.sessions).await {
            Ok(caller) => Ok(Some(caller)),
            Err(problem) if trusting && problem.code == Code::Unauthenticated => Ok(None),
            Err(problem) => Err(problem),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_has_one_spelling() {
        let token = Token::generate();
        assert_eq!(Token::parse(&token.reveal()), Some(token.clone()));
        for text in
            ["", "x", &format!("{}=", token.reveal()), &"+".repeat(43), &"A".repeat(42), &"_".repeat(43)]
        {
            assert_eq!(Token::parse(text), None, "{text}");
        }
        assert_eq!(format!("{token:?}"), "Token(..)");
    }
}
