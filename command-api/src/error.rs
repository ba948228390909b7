//! From what a port says to what the client is told: the one match.

use shared::ports::{AppendError, Refusal, StoreError};
use shared::process::problem::{Code, Outcome, Problem};

/// Before anything was appended.
pub(crate) fn reading(error: &StoreError) -> Problem {
    Problem::of_store(error, Code::LogUnavailable).with_outcome(Outcome::NotApplied)
}

/// While appending, or changing a session.
pub(crate) fn writing(error: &StoreError) -> Problem {
    let code = match error {
        StoreError::Unknown { .. } => Code::OutcomeUnknown,
        StoreError::Unreplicated { .. } => Code::LogUnavailable,
        StoreError::Unavailable { .. }
        | StoreError::Busy { .. }
        | StoreError::Other { .. }
        | StoreError::Damaged { .. }
        | StoreError::Unfit { .. } => return reading(error),
    };
    tracing::warn!(error = error as &dyn std::error::Error, "the outcome of a write is unknown");
    Problem::new(code, "it may have been done; retry with the same idempotency key or id")
        .with_outcome(Outcome::Unknown)
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

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn what_is_told_of_a_write_that_failed() {
        let cause = || io::Error::other("cause");
        let busy = StoreError::Busy { queue: "queue" };
        let damaged = StoreError::Damaged { store: "redis", what: String::new() };
        let unfit = StoreError::Unfit { store: "redis", what: String::new() };
        let other = StoreError::Other { store: "redis", what: String::new() };
        let unreplicated = StoreError::Unreplicated { store: "redis", replicas: 0, required: 1 };
        for (error, code, outcome) in [
            (StoreError::unavailable("redis", cause()), "503 log_unavailable", Outcome::NotApplied),
            (StoreError::unknown("redis", cause()), "504 outcome_unknown", Outcome::Unknown),
            (unreplicated, "503 log_unavailable", Outcome::Unknown),
            (busy, "503 busy", Outcome::NotApplied),
            (damaged, "500 internal", Outcome::NotApplied),
            (unfit, "503 log_unavailable", Outcome::NotApplied),
            (other, "503 log_unavailable", Outcome::NotApplied),
        ] {
            let problem = appending(error.clone().into());
            let (status, name, _) = problem.code.parts();
            assert_eq!(format!("{} {name}", status.as_u16()), code, "{error}");
            assert_eq!(problem.outcome, Some(outcome), "{error}");
        }
    }
}
