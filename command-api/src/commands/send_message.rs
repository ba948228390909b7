//! `POST /send` and its idempotent form, `PUT /messages/{id}`.

use std::convert::Infallible;
use std::time::Duration;

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{FromRequestParts, Path, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Deserializer};
use shared::event::{Event, MessageSent};
use shared::limits::{CONTENT_CHARS_MAX, ID_AHEAD_MAX, IDEMPOTENCY_KEY_CHARS_MAX};
use shared::message::Message;
use shared::ports::{Append, Appended, Once, OnceKey, Receipt};
use shared::process::auth::{MaybeCaller, unauthenticated};
use shared::process::problem::{Code, FieldError, Outcome, Problem, ProblemBody};
use shared::process::request::{JsonBody, single};
use shared::process::trace::GivenTrace;
use shared::{EventId, Timestamp, Trace, Username};
use utoipa::ToSchema;

use crate::error::{appending, id_out_of_window, reading};
use crate::state::AppState;

static IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
static IDEMPOTENCY_REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SendMessage {
    /// The caller; it may be left out.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = String, required = false, example = "samer")]
    sender: Option<String>,
    #[schema(example = "lena")]
    recipient: String,
    /// Not only white space, no NUL; kept byte for byte.
    #[schema(example = "hi", min_length = 1, max_length = 4000)]
    content: String,
}

/// A field may be left out, but `null` is no text.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    String::deserialize(deserializer).map(Some)
}

impl SendMessage {
    /// Pure: the same command always decides the same event. `caller` is nobody only where names are believed.
    fn decide(self, caller: Option<&Username>, trusting: bool) -> Result<MessageSent, Problem> {
        let mut errors = Vec::new();
        let mut name = |field, text: &str| {
            let parsed = Username::new(text);
            parsed.map_err(|error| errors.push(FieldError::new(field, "invalid", error.to_string()))).ok()
        };
        let given = self.sender.as_deref().map(|text| name("sender", text));
        let recipient = name("recipient", &self.recipient);
        let sender = match given {
            None => Some(caller.cloned().ok_or_else(unauthenticated)?),
            Some(sender) => sender,
        };
        if sender.is_some() && sender == recipient {
            errors.push(FieldError::new("recipient", "invalid", "a message goes to another user"));
        }
        errors.extend(content_error(&self.content));
        match (sender, recipient) {
            (Some(sender), Some(recipient)) if errors.is_empty() => {
                if !trusting && caller != Some(&sender) {
                    return Err(Problem::new(
                        Code::NotYourName,
                        "the token is of another user than the sender",
                    ));
                }
                Ok(MessageSent { sender, recipient, content: self.content })
            }
            _ => Err(Problem::fields(errors)),
        }
    }
}

fn content_error(content: &str) -> Option<FieldError> {
    let error = |code, detail: String| Some(FieldError::new("content", code, detail));
    if content.chars().all(char::is_whitespace) {
        return error("blank", "a message is not only white space".to_owned());
    }
    if content.contains('\0') {
        return error("invalid", "a message holds no NUL".to_owned());
    }
    if content.chars().count() > CONTENT_CHARS_MAX {
        return error("too_long", format!("a message has at most {CONTENT_CHARS_MAX} characters"));
    }
    None
}

/// Send a message
#[utoipa::path(
    post, path = "/send", tag = "messages", request_body = SendMessage, security(("token" = [])),
    params(("Idempotency-Key" = Option<String>, Header, description = "1–64 visible ASCII: a repetition gets the first answer again")),
    responses(
        (status = 201, body = Message, headers(
            ("RateLimit" = String, description = "What is left, as in draft-ietf-httpapi-ratelimit-headers-10"),
            ("RateLimit-Policy" = String, description = "The limit"),
        )),
        (status = 400, description = "invalid_request", body = ProblemBody<'static>, content_type = "application/problem+json"),
        (status = 401, description = "unauthenticated", body = ProblemBody<'static>, content_type = "application/problem+json"),
        (status = 403, description = "not_your_name", body = ProblemBody<'static>, content_type = "application/problem+json"),
        (status = 404, description = "recipient_not_found", body = ProblemBody<'static>, content_type = "application/problem+json"),
        (status = 422, description = "invalid_fields, idempotency_conflict", body = ProblemBody<'static>, content_type = "application/problem+json"),
        (status = 429, description = "rate_limited", body = ProblemBody<'static>, content_type = "application/problem+json", headers(
            ("Retry-After" = u32, description = "Seconds"),
            ("RateLimit" = String, description = "What is left"),
            ("RateLimit-Policy" = String, description = "The limit"),
        )),
        (status = 503, description = "busy, log_unavailable, starting", body = ProblemBody<'static>, content_type = "application/problem+json"),
        (status = 504, description = "outcome_unknown", body = ProblemBody<'static>, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn send_message(
    State(state): State<AppState>,
    MaybeCaller(caller): MaybeCaller,
    GivenKey(key): GivenKey,
    GivenTrace(trace): GivenTrace,
    body: JsonBody,
) -> Result<Response, Problem> {
    let key = key?.map(OnceKey::Header);
    let caller = caller.map(|caller| caller.user);
    let sent = body.read::<SendMessage>()?.decide(caller.as_ref(), state.trusts_names())?;
    let message = Send { id: state.clock.new_id(), sent, key, trace };
    send(&state, message, StatusCode::CREATED).await
}

/// Send a message, idempotently
#[utoipa::path(
    put, path = "/messages/{id}", tag = "messages", request_body = SendMessage, security(("token" = [])),
    params(("id" = String, Path, description = "A ULID made by the client, with the current time in it", example = "01KAQ3V6B4Y6V3Z9T8S7R6Q5P4")),
    responses(
        (status = 201, description = "sent", body = Message, headers(
            ("RateLimit" = String, description = "What is left, as in draft-ietf-httpapi-ratelimit-headers-10"),
            ("RateLimit-Policy" = String, description = "The limit"),
        )),
        (status = 200, description = "sent before", body = Message, headers(
            ("RateLimit" = String, description = "What is left, as in draft-ietf-httpapi-ratelimit-headers-10"),
            ("RateLimit-Policy" = String, description = "The limit"),
        )),
        (status = 400, description = "invalid_request", body = ProblemBody<'static>, content_type = "application/problem+json"),
        (status = 401, description = "unauthenticated", body = ProblemBody<'static>, content_type = "application/problem+json"),
        (status = 403, description = "not_your_name", body = ProblemBody<'static>, content_type = "application/problem+json"),
        (status = 404, description = "recipient_not_found", body = ProblemBody<'static>, content_type = "application/problem+json"),
        (status = 422, description = "invalid_fields, idempotency_conflict, id_out_of_window", body = ProblemBody<'static>, content_type = "application/problem+json"),
        (status = 429, description = "rate_limited", body = ProblemBody<'static>, content_type = "application/problem+json", headers(
            ("Retry-After" = u32, description = "Seconds"),
            ("RateLimit" = String, description = "What is left"),
            ("RateLimit-Policy" = String, description = "The limit"),
        )),
        (status = 503, description = "busy, log_unavailable, starting", body = ProblemBody<'static>, content_type = "application/problem+json"),
        (status = 504, description = "outcome_unknown", body = ProblemBody<'static>, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn put_message(
    State(state): State<AppState>,
    MaybeCaller(caller): MaybeCaller,
    id: Result<Path<String>, PathRejection>,
    GivenKey(key): GivenKey,
    GivenTrace(trace): GivenTrace,
    body: JsonBody,
) -> Result<Response, Problem> {
    let id = id.ok().and_then(|Path(id)| id.parse::<EventId>().ok());
    let id = id.ok_or_else(|| Problem::invalid("the path holds no ULID in upper case"))?;
    if !matches!(key, Ok(None)) {
        return Err(Problem::invalid("the id in the path is the idempotency key; send no other"));
    }
    let caller = caller.map(|caller| caller.user);
    let command: SendMessage = body.read()?;
    // The log decides by its own clock whether an id is accepted. This refuses, also a repetition after the window,
    // and keeps the order of answers: 422 comes before 403 and 404.
    check_window(id, state.clock.now(), state.idempotency_window)?;
    let sent = command.decide(caller.as_ref(), state.trusts_names())?;
    let message = Send { id, sent, key: Some(OnceKey::Id), trace };
    send(&state, message, StatusCode::OK).await
}

/// What the client gave as idempotency key. A wrong one is told by the handler, after what the body alone is refused
/// for.
pub(crate) struct GivenKey(Result<Option<String>, Problem>);

impl<S: Sync> FromRequestParts<S> for GivenKey {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Infallible> {
        Ok(Self(idempotency_key(&parts.headers)))
    }
}

fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let Some(key) = single(headers, &IDEMPOTENCY_KEY)? else { return Ok(None) };
    let visible = key.bytes().all(|byte| byte.is_ascii_graphic());
    if visible && (1..=IDEMPOTENCY_KEY_CHARS_MAX).contains(&key.len()) {
        Ok(Some(key.to_owned()))
    } else {
        Err(Problem::invalid("an idempotency key is 1 to 64 visible ASCII characters"))
    }
}

fn check_window(id: EventId, now: Timestamp, window: Duration) -> Result<(), Problem> {
    let made = Timestamp(id.timestamp_ms());
    if made < now.minus(window) || made > now.plus(ID_AHEAD_MAX) { Err(id_out_of_window()) } else { Ok(()) }
}

/// A message on its way to the log.
struct Send {
    id: EventId,
    sent: MessageSent,
    key: Option<OnceKey>,
    trace: Option<Trace>,
}

async fn send(state: &AppState, message: Send, replayed: StatusCode) -> Result<Response, Problem> {
    let Send { sent, .. } = &message;
    let known = state.known.is_registered(&sent.recipient, &*state.accounts).await;
    if !known.map_err(|error| reading(&error))? {
        return Err(Problem::new(Code::RecipientNotFound, "no user has this name"));
    }
    // Where names are believed, who is named counts.
    let _held = state.in_flight.enter(&sent.sender)?;
    let quota = state.limits.send(&sent.sender).await?;
    Ok(quota.on(append(state, message, replayed).await))
}

async fn append(state: &AppState, message: Send, replayed: StatusCode) -> Result<Response, Problem> {
    let Send { id, sent, key, trace } = message;
    let once = key.map(|key| Once { key, fingerprint: sent.fingerprint() });
    let event = Event::MessageSent(sent.clone());
    match state.log.append(Append { id, event, once, trace }).await.map_err(appending)? {
        Appended::New(receipt) => Ok((StatusCode::CREATED, Json(shown(sent, receipt))).into_response()),
        Appended::Replayed(receipt) => {
            let again = [(IDEMPOTENCY_REPLAYED.clone(), "true")];
            Ok((replayed, again, Json(shown(sent, receipt))).into_response())
        }
        Appended::Unchanged => {
            let problem = Problem::new(Code::Internal, "the message was not taken");
            Err(problem.with_outcome(Outcome::NotApplied))
        }
    }
}

fn shown(sent: MessageSent, receipt: Receipt) -> Message {
    Message {
        id: receipt.id,
        seq: receipt.seq,
        sender: sent.sender,
        recipient: sent.recipient,
        content: sent.content,
        timestamp: receipt.at,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(sender: Option<&str>, recipient: &str, content: &str) -> SendMessage {
        SendMessage {
            sender: sender.map(str::to_owned),
            recipient: recipient.to_owned(),
            content: content.to_owned(),
        }
    }

    fn decide(sender: Option<&str>, recipient: &str, content: &str) -> Result<(String, String), String> {
        let caller: Username = "samer".parse().unwrap();
        let decided = command(sender, recipient, content).decide(Some(&caller), false);
        decided.map(|sent| (sent.sender.to_string(), sent.recipient.to_string())).map_err(|problem| {
            let fields: Vec<_> =
                problem.errors.iter().map(|error| format!(" {}:{}", error.field, error.code)).collect();
            format!("{}{}", problem.code.parts().1, fields.concat())
        })
    }

    #[test]
    fn who_sends_to_whom() {
        let sent = Ok(("samer".to_owned(), "lena".to_owned()));
        assert_eq!(decide(None, "lena", "hi"), sent);
        assert_eq!(decide(Some("Samer"), "LENA", "hi"), sent);
        for (sender, recipient, refusal) in [
            (Some("lena"), "samer", "not_your_name"),
            (Some("lena"), "lena", "invalid_fields recipient:invalid"),
            (None, "samer", "invalid_fields recipient:invalid"),
            (Some("!"), "?", "invalid_fields sender:invalid recipient:invalid"),
            (Some("lena"), "?", "invalid_fields recipient:invalid"),
        ] {
            assert_eq!(decide(sender, recipient, "hi"), Err(refusal.to_owned()));
        }
    }

    #[test]
    fn where_names_are_believed() {
        let decide =
            |sender| command(sender, "lena", "hi").decide(None, true).map(|sent| sent.sender.to_string());
        assert_eq!(decide(Some("tarek")).unwrap(), "tarek");
        assert_eq!(decide(None).unwrap_err().code, Code::Unauthenticated);
    }

    #[test]
    fn what_a_message_may_hold() {
        let longest = "\u{1f642}".repeat(CONTENT_CHARS_MAX);
        for content in ["hi", " hi ", "\n.", "\u{200b}", "\u{7f}", &longest] {
            assert_eq!(content_error(content), None, "{content:.20?}");
        }
        let too_long = format!("{longest}x");
        for (content, code) in [
            ("", "blank"),
            (" \t\u{a0}\u{2003}\r\n", "blank"),
            ("a\0b", "invalid"),
            (too_long.as_str(), "too_long"),
        ] {
            assert_eq!(content_error(content).map(|error| error.code), Some(code), "{content:.20?}");
        }
    }

    #[test]
    fn the_time_in_an_id_is_close_to_now() {
        let now = Timestamp(100_000_000);
        let window = Duration::from_secs(3_600);
        let check = |ms| check_window(EventId(shared::ids::Ulid::from_parts(ms, 7)), now, window).is_ok();
        assert!(check(now.0) && check(now.0 - 3_600_000) && check(now.0 + 300_000));
        assert!(!check(now.0 - 3_600_001) && !check(now.0 + 300_001) && !check(0));
    }
}
