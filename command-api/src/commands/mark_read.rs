//! `PUT /conversations/{peer}/read`: the caller has read up to here. A mark only ever rises.

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde::Deserialize;
use shared::event::{ConversationRead, Event};
use shared::ports::Append;
use shared::process::auth::Caller;
use shared::process::problem::{Code, FieldError, Problem, ProblemBody};
use shared::process::request::JsonBody;
use shared::process::trace::GivenTrace;
use shared::{Conversation, Seq, Username};
use utoipa::ToSchema;

use crate::error::{appending, reading};
use crate::state::AppState;

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct MarkRead {
    /// Beyond the last message it is taken as the last message.
    #[schema(minimum = 1, example = 42)]
    seq: Seq,
}

impl MarkRead {
    /// `head` is the number of the conversation's last message; 0: there is no conversation.
    fn decide(self, reader: Username, peer: Username, head: Seq) -> Result<Event, Problem> {
        if head == 0 {
            return Err(Problem::new(Code::NotFound, "there is no conversation with this user"));
        }
        Ok(Event::ConversationRead(ConversationRead { reader, peer, seq: self.seq.min(head) }))
    }
}

/// Mark a conversation as read
#[utoipa::path(
    put, path = "/conversations/{peer}/read", tag = "conversations", request_body = MarkRead, security(("token" = [])),
    params(("peer" = String, Path, description = "The other user", example = "lena")),
    responses(
        (status = 204),
        (status = 400, description = "invalid_request", body = ProblemBody<'static>, content_type = "application/problem+json"),
        (status = 401, description = "unauthenticated", body = ProblemBody<'static>, content_type = "application/problem+json"),
        (status = 404, description = "not_found", body = ProblemBody<'static>, content_type = "application/problem+json"),
        (status = 422, description = "invalid_fields", body = ProblemBody<'static>, content_type = "application/problem+json"),
        (status = 429, description = "rate_limited", body = ProblemBody<'static>, content_type = "application/problem+json", headers(
            ("Retry-After" = u32, description = "Seconds"),
        )),
        (status = 503, description = "busy, log_unavailable, starting", body = ProblemBody<'static>, content_type = "application/problem+json"),
        (status = 504, description = "outcome_unknown", body = ProblemBody<'static>, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn mark_read(
    State(state): State<AppState>,
    caller: Caller,
    peer: Result<Path<String>, PathRejection>,
    GivenTrace(trace): GivenTrace,
    body: JsonBody,
) -> Result<StatusCode, Problem> {
    let peer = peer.ok().and_then(|Path(peer)| Username::new(&peer).ok());
    let peer = peer.ok_or_else(|| Problem::invalid("the path holds no username"))?;
    let command: MarkRead = body.read()?;
    if command.seq == 0 {
        return Err(Problem::fields(vec![FieldError::new("seq", "invalid", "messages are numbered from 1")]));
    }
    // Before the log is asked, though that may tell of a 404: what is bounded is the work.
    let _held = state.in_flight.enter(&caller.user)?;
    let head = match Conversation::between(&caller.user, &peer) {
        Some(conversation) => state.heads.head(&conversation).await.map_err(|error| reading(&error))?,
        // Nobody has a conversation with himself.
        None => 0,
    };
    let event = command.decide(caller.user, peer, head)?;
    let append = Append { id: state.clock.new_id(), event, once: None, trace };
    state.log.append(append).await.map_err(appending)?;
    Ok(StatusCode::NO_CONTENT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_stays_within_the_conversation() {
        let decide = |seq, head| {
            let (reader, peer) = ("samer".parse().unwrap(), "lena".parse().unwrap());
            match (MarkRead { seq }).decide(reader, peer, head) {
                Ok(Event::ConversationRead(event)) => Ok(event.seq),
                Ok(other) => panic!("{other:?}"),
                Err(problem) => Err(problem.code),
            }
        };
        assert_eq!(decide(3, 5), Ok(3));
        assert_eq!(decide(5, 5), Ok(5));
        assert_eq!(decide(Seq::MAX, 5), Ok(5));
        assert_eq!(decide(1, 0), Err(Code::NotFound));
    }
}
