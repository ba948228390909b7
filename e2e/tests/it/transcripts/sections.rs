//! What `docs/errors.md` has a section for, and what it says of it in words.

use e2e::Backend;
use shared::process::problem::Code;

/// One code, or one header.
pub(crate) struct Section {
    pub(crate) name: &'static str,
    /// Whose answers it shows.
    pub(crate) by: Backend,
    /// When it is answered, and what the client does then.
    pub(crate) when: &'static str,
}

const fn alone(name: &'static str, when: &'static str) -> Section {
    Section { name, by: Backend::Embedded, when }
}

const fn real(name: &'static str, when: &'static str) -> Section {
    Section { name, by: Backend::Real, when }
}

/// In the order of docs/api.md, "Codes".
pub(crate) const SECTIONS: [Section; 25] = [
    alone(
        "invalid_request",
        "The path, the query, a header or the body cannot be read as what it must be: correct the request; sent again \
         as it is, it gets the same answer.",
    ),
    alone(
        "unauthenticated",
        "The token is missing, garbled, expired or logged out, which is all the same answer: log in again.",
    ),
    alone(
        "invalid_credentials",
        "No user has this name and this password, and which of the two is wrong is not told: ask for both again.",
    ),
    alone(
        "not_your_name",
        "`sender` is not the user of the token: leave it out, or send with the token of that user.",
    ),
    alone(
        "not_a_member",
        "Neither of the two is the user of the token: one reads one's own conversations only. Whether this one exists \
         is not told.",
    ),
    alone(
        "not_found",
        "There is no such path, or, for `PUT /conversations/{peer}/read`, no conversation with this user: correct the \
         path.",
    ),
    alone(
        "recipient_not_found",
        "No user has the name of the recipient: nothing was sent; correct the name. Key or id may be used again.",
    ),
    alone("method_not_allowed", "The path takes other methods only: those that `Allow` names."),
    alone(
        "timeout",
        "The body did not arrive within 10 s: nothing was done; send it again. It is the server that ends the \
         connection.",
    ),
    alone(
        "username_taken",
        "Another user has the name: choose another. After a registration whose outcome is unknown it may be one's own: \
         log in.",
    ),
    alone("body_too_large", "The body has more than 16 KiB, whatever is in it: send less."),
    alone(
        "unsupported_media_type",
        "The body is not `application/json` in UTF-8, or it is compressed: say what it is, and send it plain.",
    ),
    alone(
        "invalid_fields",
        "The body is JSON, but some fields are not as they must be: correct each that `errors` names.",
    ),
    alone(
        "idempotency_conflict",
        "The key or id was used for a message with another content, which stands: take a new key or id for a new \
         message.",
    ),
    alone(
        "id_out_of_window",
        "The time inside the id lies before the idempotency window (1 h by default) or more than 5 min ahead: make a \
         new id, and set the clock. If an old id was sent before, read the conversation first: it may be there.",
    ),
    alone(
        "rate_limited",
        "Too much of one kind (sends, logins, registrations, requests at once): nothing was done; wait for \
         `Retry-After` seconds. With a token the limit is the user's, without one the address's.",
    ),
    real(
        "internal",
        "Something is wrong with the service (here: what Redis has of the session is damaged): tell its operator \
         the request id. A write is tried again later as its `outcome` says; for `unknown`, with the same key or id.",
    ),
    alone(
        "busy",
        "A queue is full, such as the one for password hashes: nothing was done; try again after `Retry-After` seconds.",
    ),
    real(
        "log_unavailable",
        "The log cannot be reached, or too few replicas of it (the second answer): try again after `Retry-After` \
         seconds; where the outcome is `unknown`, with the same key or id.",
    ),
    real(
        "views_unavailable",
        "The views cannot be reached, so nothing can be read: try again after `Retry-After` seconds. Messages can \
         still be sent.",
    ),
    alone(
        "not_yet_visible",
        "The message of `min_seq` cannot be seen yet: ask again after `Retry-After` seconds, or with `Prefer: wait=N` for \
         more patience (up to 8 s), or without `min_seq` for what can be seen now. It stays so for a number that no message \
         has, and for one that an operator has still to look after.",
    ),
    real(
        "starting",
        "The service has not reached its stores since its start: nothing was done; try again after `Retry-After` \
         seconds.",
    ),
    real(
        "unavailable",
        "nginx found no instance of the service that answers: try again after `Retry-After` seconds; where the outcome \
         is `unknown`, with the same key or id.",
    ),
    real(
        "outcome_unknown",
        "The write was passed on and its answer was lost: it may have been done. Send it again with the same key or \
         id until the answer is another; it is one message either way.",
    ),
    alone(
        "idempotency-replayed",
        "No error: a send that was repeated with its key or id. It is answered with the first body again: 201 with a \
         key, 200 with an id.",
    ),
];

/// Codes that no request gets from this version.
pub(crate) const NEVER_SENT: [(&str, &str); 1] =
    [("draining", "503, for a service that stops. It finishes what it has accepted.")];

/// Every code of the services has its place, and one only.
pub(crate) fn assert_complete() {
    for code in Code::ALL {
        let (_, name, _) = code.parts();
        let shown = SECTIONS.iter().filter(|section| section.name == name).count();
        let never = NEVER_SENT.iter().filter(|(never, _)| *never == name).count();
        assert_eq!(shown + never, 1, "{name} needs a section, or a line among the codes that are never sent");
    }
}
