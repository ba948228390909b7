//! How a store fails, and how an error is told.

use std::error::Error;
use std::fmt;
use std::sync::Arc;

/// What went wrong in a store, by what the caller may do about it.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// Nothing was done.
    #[error("{store} is unavailable")]
    Unavailable {
        store: &'static str,
        #[source]
        source: Arc<dyn std::error::Error + Send + Sync>,
    },
    /// It may have been done: the call was sent and its answer was lost.
    #[error("the outcome of a call to {store} is unknown")]
    Unknown {
        store: &'static str,
        #[source]
        source: Arc<dyn std::error::Error + Send + Sync>,
    },
    /// It was done or had been before, and too few replicas said in time that they have it: a failover may undo it
    /// still. The same call again tells.
    #[error("{replicas} replicas of {store} have it, {required} must")]
    Unreplicated { store: &'static str, replicas: u64, required: u8 },
    /// A bounded queue is full. Nothing was done.
    #[error("{queue} is full")]
    Busy { queue: &'static str },
    /// What is stored is damaged. It is never skipped: a human looks.
    #[error("{store} is damaged: {what}")]
    Damaged { store: &'static str, what: String },
    /// Another store is in its place. Nothing was done; the right one may be put back.
    #[error("{store} is another one: {what}")]
    Other { store: &'static str, what: String },
    /// The store is not what this program was set up for: another schema, another number of partitions, a server
    /// that may lose what is acknowledged.
    #[error("{store} does not fit: {what}")]
    Unfit { store: &'static str, what: String },
}

/// The name in errors of the log, whichever store keeps it.
pub(super) const LOG: &str = "the log";

type Source = Box<dyn std::error::Error + Send + Sync>;

impl StoreError {
    pub fn unavailable(store: &'static str, source: impl Into<Source>) -> Self {
        Self::Unavailable { store, source: source.into().into() }
    }

    pub fn unknown(store: &'static str, source: impl Into<Source>) -> Self {
        Self::Unknown { store, source: source.into().into() }
    }

    /// Another log is in the place of the one that belongs there.
    pub fn other_log(what: impl Into<String>) -> Self {
        Self::Other { store: LOG, what: what.into() }
    }

    /// Whether the same call may succeed later as it is: this program need not be changed or told otherwise.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Unavailable { .. }
            | Self::Unknown { .. }
            | Self::Unreplicated { .. }
            | Self::Busy { .. }
            | Self::Other { .. } => true,
            Self::Damaged { .. } | Self::Unfit { .. } => false,
        }
    }
}

/// An error with its causes, in one line. A cause that its error has repeated already is left out.
pub struct Chain<'a>(pub &'a dyn Error);

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut told = self.0.to_string();
        f.write_str(&told)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            let text = error.to_string();
            if !told.ends_with(&text) {
                write!(f, ": {text}")?;
                told = text;
            }
            cause = error.source();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn a_cause_is_told_once() {
        let unavailable = |source: io::Error| StoreError::unavailable("redis", source);
        let told = |error: &StoreError| Chain(error).to_string();
        assert_eq!(
            told(&unavailable(io::ErrorKind::ConnectionRefused.into())),
            "redis is unavailable: connection refused"
        );
        // Shown as what it holds, with that as its cause too.
        let wrapped = unavailable(io::Error::other(unavailable(io::ErrorKind::TimedOut.into())));
        assert_eq!(told(&wrapped), "redis is unavailable: timed out");
    }
}
