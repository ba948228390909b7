//! From what a port says to what the client is told: the one match.

use shared::ports::{AppendError, Refusal, StoreError};
use shared::process::problem::{Code, Outcome, Problem};

/// Before anything was appended.
pub(crate) fn reading(error: &StoreError) -> Problem {
    Problem::of_store(error, Code::LogUnavailable).with_outcome(Outcome::NotApplied)
}

/// While appending, or changing a session.
pub(crate) fn writing(error: &StoreError) -> Problem {
    match error {
        StoreError::Unknown { .. } => {
            tracing::warn!(error = error as &dyn std::error::Error, "the outcome of a write is unknown");
            Problem::new(
                Code::OutcomeUnknown,
                "it may have been done; retry with the same idempotency key or id",
            )
            .with_outcome(Outcome::Unknown)
        }
        StoreError::Unavailable { .. }
        | StoreError::Busy { .. }
        | StoreError::Damaged { .. }
        | StoreError::Unfit { .. } => reading(error),
    }
}

pub(crate) fn appending(error: AppendError) -> Problem {
    match error {
        AppendError::Store(error) => writing(&error),
        AppendError::Refused(Refusal::UsernameTaken) => {
            Problem::new(Code::UsernameTaken, "another user has this name")
        }
        AppendError::Refused(Refusal::IdempotencyConflict) => {
            Problem::new(Code::IdempotencyConflict, "the same key or id came with another content")
        }
        AppendError::Refused(Refusal::IdOutOfWindow) => id_out_of_window(),
    }
}

pub(crate) fn id_out_of_window() -> Problem {
    Problem::new(Code::IdOutOfWindow, "make a new id: its time must be close to now")
}
