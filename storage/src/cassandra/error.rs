//! What the driver's errors mean to a caller: was it done, may it have been done, can it ever work? It decides
//! nothing about repeating.

use std::error::Error;

use scylla::errors::{
    DbError, ExecutionError, NextPageError, NextRowError, PagerExecutionError, PrepareError,
    RequestAttemptError, RequestError,
};
use shared::ports::StoreError;

use super::STORE;

/// What became of a request.
enum Outcome {
    NotDone,
    Unknown,
    /// The statement or the schema is wrong: it fails again however often it is tried.
    Unfit,
}

pub(super) fn of_write(error: ExecutionError) -> StoreError {
    match of_execution(&error) {
        Outcome::NotDone => StoreError::unavailable(STORE, error),
        Outcome::Unknown => StoreError::unknown(STORE, error),
        Outcome::Unfit => unfit(&error),
    }
}

/// A read that failed has changed nothing, so its outcome is never unknown.
pub(super) fn of_read(error: ExecutionError) -> StoreError {
    match of_execution(&error) {
        Outcome::NotDone | Outcome::Unknown => StoreError::unavailable(STORE, error),
        Outcome::Unfit => unfit(&error),
    }
}

pub(super) fn of_prepare(error: PrepareError) -> StoreError {
    match outcome_of_prepare(&error) {
        Outcome::NotDone | Outcome::Unknown => StoreError::unavailable(STORE, error),
        Outcome::Unfit => unfit(&error),
    }
}

pub(super) fn of_pager(error: PagerExecutionError) -> StoreError {
    let outcome = match &error {
        PagerExecutionError::PrepareError(error) => outcome_of_prepare(error),
        PagerExecutionError::SerializationError(_) => Outcome::Unfit,
        PagerExecutionError::NextPageError(error) => of_next_page(error),
        PagerExecutionError::UseKeyspaceError(_)
        | PagerExecutionError::SchemaAgreementError(_)
        | PagerExecutionError::MetadataError(_)
        | _ => Outcome::NotDone,
    };
    match outcome {
        Outcome::NotDone | Outcome::Unknown => StoreError::unavailable(STORE, error),
        Outcome::Unfit => unfit(&error),
    }
}

pub(super) fn of_next_row(error: NextRowError) -> StoreError {
    match &error {
        NextRowError::NextPageError(page) => match of_next_page(page) {
            Outcome::NotDone | Outcome::Unknown => StoreError::unavailable(STORE, error),
            Outcome::Unfit => unfit(&error),
        },
        NextRowError::RowDeserializationError(error) => damaged(error),
        _ => StoreError::unavailable(STORE, error),
    }
}

/// For rows that hold what this program never writes.
pub(super) fn damaged(what: impl std::fmt::Display) -> StoreError {
    StoreError::Damaged { store: STORE, what: what.to_string() }
}

/// With the causes, as the variant has no source.
pub(super) fn unfit(error: &dyn Error) -> StoreError {
    StoreError::Unfit { store: STORE, what: error.to_string() }
}

fn of_execution(error: &ExecutionError) -> Outcome {
    match error {
        ExecutionError::BadQuery(_) => Outcome::Unfit,
        ExecutionError::EmptyPlan | ExecutionError::ConnectionPoolError(_) => Outcome::NotDone,
        ExecutionError::PrepareError(error) => outcome_of_prepare(error),
        ExecutionError::LastAttemptError(error) => of_attempt(error),
        ExecutionError::RequestTimeout(_)
        | ExecutionError::UseKeyspaceError(_)
        | ExecutionError::SchemaAgreementError(_)
        | ExecutionError::MetadataError(_)
        | _ => Outcome::Unknown,
    }
}

fn outcome_of_prepare(error: &PrepareError) -> Outcome {
    match error {
        PrepareError::AllAttemptsFailed { first_attempt } => of_attempt(first_attempt),
        PrepareError::PreparedStatementIdsMismatch => Outcome::Unfit,
        PrepareError::ConnectionPoolError(_) | _ => Outcome::NotDone,
    }
}

fn of_next_page(error: &NextPageError) -> Outcome {
    match error {
        NextPageError::RequestFailure(RequestError::LastAttemptError(error)) => of_attempt(error),
        NextPageError::ResultMetadataParseError(_) | NextPageError::PartitionKeyError(_) => Outcome::Unfit,
        NextPageError::RequestFailure(
            RequestError::EmptyPlan
            | RequestError::ConnectionPoolError(_)
            | RequestError::RequestTimeout(_)
            | _,
        )
        | _ => Outcome::NotDone,
    }
}

fn of_attempt(error: &RequestAttemptError) -> Outcome {
    match error {
        RequestAttemptError::UnableToAllocStreamId => Outcome::NotDone,
        RequestAttemptError::DbError(error, _) => of_server(error),
        RequestAttemptError::SerializationError(_)
        | RequestAttemptError::CqlRequestSerialization(_)
        | RequestAttemptError::RepreparedIdChanged { .. }
        | RequestAttemptError::RepreparedIdMissingInBatch => Outcome::Unfit,
        RequestAttemptError::BrokenConnectionError(_)
        | RequestAttemptError::BodyExtensionsParseError(_)
        | RequestAttemptError::CqlResultParseError(_)
        | RequestAttemptError::CqlErrorParseError(_)
        | RequestAttemptError::UnexpectedResponse(_)
        | RequestAttemptError::NonfinishedPagingState
        | _ => Outcome::Unknown,
    }
}

fn of_server(error: &DbError) -> Outcome {
    match error {
        // The coordinator refused before it sent anything to a replica.
        DbError::Unavailable { .. }
        | DbError::Overloaded
        | DbError::IsBootstrapping
        | DbError::RateLimitReached { .. } => Outcome::NotDone,
        DbError::SyntaxError
        | DbError::Invalid
        | DbError::AlreadyExists { .. }
        | DbError::FunctionFailure { .. }
        | DbError::AuthenticationError
        | DbError::Unauthorized
        | DbError::ConfigError
        | DbError::ProtocolError => Outcome::Unfit,
        DbError::WriteTimeout { .. }
        | DbError::WriteFailure { .. }
        | DbError::ReadTimeout { .. }
        | DbError::ReadFailure { .. }
        | DbError::TruncateError
        | DbError::ServerError
        | DbError::Unprepared { .. }
        | DbError::Other(_)
        | _ => Outcome::Unknown,
    }
}
