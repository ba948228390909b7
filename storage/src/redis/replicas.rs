//! Replicas that must have an event before it is acknowledged: how a pipeline of appends waits for them, and what
//! its answers mean when too few have it. Sessions are not events and wait for nobody.
//!
//! A script that found a repetition, or a taken name, only reads, and what it found may have been written by another
//! connection. WAIT (`waitCommand`, replication.c) counts the replicas that are at `c->woff`. Redis 7.0 sets it after
//! every command (`processCommand`, server.c), so there it would cover what was read; Redis 7.2 sets it only after
//! one that was propagated (`call`, server.c): on a connection that has written nothing it is 0, which every
//! connected replica has reached, one that hangs too. So every pipeline writes something of its own before it
//! waits: whatever its scripts saw comes before that.
//!
//! What WAIT does not give: it is no agreement. An event that too few replicas have stays in the log of the master,
//! and is seen unless a failover drops it; that is why the outcome is unknown.

use redis::{Pipeline, ServerError, Value};
use shared::limits::{APPEND_CALLS_IN_FLIGHT_MAX, REPLICAS_WAIT_MAX};
use shared::ports::{AppendError, Appended, Refusal, StoreError};

use super::STORE;
use super::command::millis;
use super::server::Server;

/// What a pipeline of appends waits for.
pub(super) struct Replicas {
    /// 0: for none.
    required: u8,
    key: String,
}

impl Replicas {
    pub(super) fn of(server: &Server) -> Self {
        Self { required: server.replicas(), key: server.keys.replicated() }
    }

    /// WAIT holds up its connection: a second pipeline behind it would be late.
    pub(super) fn calls_max(&self) -> usize {
        if self.required == 0 { APPEND_CALLS_IN_FLIGHT_MAX } else { 1 }
    }

    /// The last commands of a pipeline of appends.
    pub(super) fn wait_for(&self, pipeline: &mut Pipeline) {
        if self.required > 0 {
            pipeline.cmd("SET").arg(&self.key).arg("");
            pipeline.cmd("WAIT").arg(self.required).arg(millis(REPLICAS_WAIT_MAX));
        }
    }

    /// What the answers to [`Replicas::wait_for`], the last of `answers`, say.
    ///
    /// # Errors
    /// [`StoreError::Unreplicated`], also when it is not certain.
    pub(super) fn have(&self, answers: &[Result<Value, ServerError>]) -> Result<(), StoreError> {
        if self.required == 0 {
            return Ok(());
        }
        let replicas = match answers {
            [.., Ok(_), Ok(Value::Int(replicas))] => u64::try_from(*replicas).unwrap_or(0),
            // Redis became a replica meanwhile, or refused the write.
            _ => 0,
        };
        let required = self.required;
        if replicas >= u64::from(required) {
            Ok(())
        } else {
            Err(StoreError::Unreplicated { store: STORE, replicas, required })
        }
    }
}

/// What may be told: an acknowledgement, and a refusal that rests on what was appended before, only when enough
/// replicas have it.
pub(super) fn told(
    outcome: Result<Appended, AppendError>,
    replicated: &Result<(), StoreError>,
) -> Result<Appended, AppendError> {
    let Err(too_few) = replicated else { return outcome };
    match outcome {
        Ok(_) | Err(AppendError::Refused(Refusal::UsernameTaken | Refusal::IdempotencyConflict)) => {
            Err(too_few.clone().into())
        }
        Err(AppendError::Refused(Refusal::IdOutOfWindow) | AppendError::Store(_)) => outcome,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answers(set: Value, wait: Value) -> [Result<Value, ServerError>; 3] {
        let each = |value| match value {
            Value::ServerError(error) => Err(error),
            value => Ok(value),
        };
        [Value::Array(vec![]), set, wait].map(each)
    }

    fn server_error() -> Value {
        redis::parse_redis_value(b"-UNBLOCKED instance state changed\r\n").unwrap()
    }

    #[test]
    fn enough_replicas() {
        let two = Replicas { required: 2, key: "{0}:replicated".into() };
        for (set, wait, expected) in [
            (Value::Okay, Value::Int(2), Ok(())),
            (Value::Okay, Value::Int(3), Ok(())),
            (Value::Okay, Value::Int(1), Err(1)),
            (Value::Okay, Value::Int(-1), Err(0)),
            (Value::Okay, Value::Nil, Err(0)),
            (Value::Okay, server_error(), Err(0)),
            (server_error(), Value::Int(2), Err(0)),
        ] {
            let answers = answers(set, wait);
            let had = two.have(&answers).map_err(|error| match error {
                StoreError::Unreplicated { replicas, required: 2, .. } => replicas,
                other => panic!("{other}"),
            });
            assert_eq!(had, expected, "{answers:?}");
        }
        assert_eq!(two.have(&[]).map_err(|error| error.is_retryable()), Err(true));
        assert!(Replicas { required: 0, ..two }.have(&[]).is_ok());
    }

    #[test]
    fn what_rests_on_the_log_is_not_told_too_early() {
        let too_few = || Err(StoreError::Unreplicated { store: STORE, replicas: 0, required: 1 });
        let refused = |refusal: Refusal| Err(AppendError::Refused(refusal));
        for outcome in
            [Ok(Appended::Unchanged), refused(Refusal::UsernameTaken), refused(Refusal::IdempotencyConflict)]
        {
            let told = told(outcome, &too_few());
            assert!(matches!(told, Err(AppendError::Store(StoreError::Unreplicated { .. }))), "{told:?}");
        }
        let late = told(refused(Refusal::IdOutOfWindow), &too_few());
        assert!(matches!(late, Err(AppendError::Refused(Refusal::IdOutOfWindow))), "{late:?}");
        assert_eq!(told(Ok(Appended::Unchanged), &Ok(())).unwrap(), Appended::Unchanged);
    }
}
