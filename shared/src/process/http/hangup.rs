//! Ends a connection from outside. An answer that is never finished, and that its client does not take, is asked for
//! nothing any more: whoever gives it up needs another way to end it.

use std::convert::Infallible;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use tokio_util::sync::CancellationToken;

/// Of the connection that a request came on; clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Hangup(CancellationToken);

impl Hangup {
    /// Cuts the connection; what the client has not taken is thrown away. `false`: it was cut before.
    pub fn cut(&self) -> bool {
        let is_first = !self.is_asked();
        self.0.cancel();
        is_first
    }

    pub(super) fn is_asked(&self) -> bool {
        self.0.is_cancelled()
    }

    pub(super) async fn asked(&self) {
        self.0.cancelled().await;
    }
}

impl<S: Sync> FromRequestParts<S> for Hangup {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(parts.extensions.get().cloned().unwrap_or_default())
    }
}
