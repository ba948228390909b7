//! `GET /messages`: a page of a conversation.

use std::ops::RangeInclusive;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use shared::limits::{PAGE_MESSAGES_DEFAULT, PAGE_MESSAGES_MAX};
use shared::message::Message;
use shared::ports::StoreError;
use shared::process::auth::MaybeCaller;
use shared::process::problem::{Code, Problem, ProblemBody};
use shared::process::request::Query;
use shared::view::TimelineEntry;
use shared::{Conversation, Seq, Username};

use crate::freshness::{contiguous, without_hole};
use crate::state::AppState;

static CHAT_BEHIND: HeaderName = HeaderName::from_static("chat-behind");

/// What was asked for.
struct PageQuery {
    sender: Username,
    recipient: Username,
    conversation: Conversation,
    limit: u64,
    cursor: Cursor,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cursor {
    Newest,
    Before(Seq),
    After(Seq),
}

impl PageQuery {
    fn read(query: &Query) -> Result<Self, Problem> {
        let name = |parameter| {
            let parsed = Username::new(query.required(parameter)?);
            parsed.map_err(|error| Problem::invalid(format!("the parameter {parameter}: {error}")))
        };
        let (sender, recipient) = (name("sender")?, name("recipient")?);
        let conversation = Conversation::between(&sender, &recipient)
            .ok_or_else(|| Problem::invalid("a conversation is between two users"))?;
        let limit = query.number("limit", PAGE_MESSAGES_MAX)?.unwrap_or(PAGE_MESSAGES_DEFAULT);
        let cursor = match (query.number("before", Seq::MAX)?, query.number("after", Seq::MAX)?) {
            (None, None) => Cursor::Newest,
            (Some(seq), None) => Cursor::Before(seq),
            (None, Some(seq)) => Cursor::After(seq),
            (Some(_), Some(_)) => return Err(Problem::invalid("either before or after, not both")),
        };
        Ok(Self { sender, recipient, conversation, limit, cursor })
    }

    /// The numbers of the page, given the conversation's head; empty when there is nothing.
    fn range(&self, head: Seq) -> RangeInclusive<Seq> {
        let ending_at = |last: Seq| last.saturating_sub(self.limit - 1).max(1)..=last;
        match self.cursor {
            Cursor::Newest => ending_at(head),
            Cursor::Before(seq) => ending_at(head.min(seq - 1)),
            Cursor::After(seq) => seq.saturating_add(1)..=head.min(seq.saturating_add(self.limit)),
        }
    }

    /// Links to the neighbours of the page that shows `shown`.
    fn links(&self, shown: &RangeInclusive<Seq>, head: Seq) -> Option<HeaderValue> {
        let Self { sender, recipient, limit, .. } = self;
        let link = |cursor, seq, relation| {
            format!(
                "</messages?sender={sender}&recipient={recipient}&limit={limit}&{cursor}={seq}>; rel=\"{relation}\""
            )
        };
        let older = (*shown.start() > 1).then(|| link("before", *shown.start(), "prev"));
        let newer = (*shown.end() < head).then(|| link("after", *shown.end(), "next"));
        let links: Vec<_> = older.into_iter().chain(newer).collect();
        let names_and_numbers = "names and numbers are visible ASCII";
        (!links.is_empty()).then(|| HeaderValue::from_str(&links.join(", ")).expect(names_and_numbers))
    }
}

/// Read a conversation
///
/// Both directions, in the order of `seq`, oldest first. Without a cursor: the newest page.
#[utoipa::path(
    get, path = "/messages", tag = "messages", security(("token" = [])),
    params(
        ("sender" = String, Query, description = "One of the two", example = "samer"),
        ("recipient" = String, Query, description = "The other", example = "lena"),
        ("limit" = Option<u64>, Query, minimum = 1, maximum = 100, description = "Default 50"),
        ("before" = Option<u64>, Query, minimum = 1, description = "The page before this seq; not with after"),
        ("after" = Option<u64>, Query, minimum = 1, description = "The page after this seq; not with before"),
    ),
    responses(
        (status = 200, body = Vec<Message>, headers(
            ("Link" = String, description = "rel=prev: older; rel=next: newer"),
            ("Chat-Behind" = String, description = "Messages acknowledged but not yet visible; unknown while the log cannot be asked"),
        )),
        (status = 400, description = "invalid_request", body = ProblemBody<'static>, content_type = "application/problem+json"),
        (status = 401, description = "unauthenticated", body = ProblemBody<'static>, content_type = "application/problem+json"),
        (status = 403, description = "not_a_member", body = ProblemBody<'static>, content_type = "application/problem+json"),
        (status = 429, description = "rate_limited", body = ProblemBody<'static>, content_type = "application/problem+json", headers(
            ("Retry-After" = u32, description = "Seconds"),
        )),
        (status = 503, description = "views_unavailable, log_unavailable, starting", body = ProblemBody<'static>, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn messages(
    State(state): State<AppState>,
    MaybeCaller(caller): MaybeCaller,
    query: Query,
) -> Result<Response, Problem> {
    let page = PageQuery::read(&query)?;
    // Nobody is the caller only where names are believed.
    let caller = caller.map(|caller| caller.user);
    if caller.as_ref().is_some_and(|caller| !page.conversation.has(caller)) && !state.trusts_names() {
        return Err(Problem::new(Code::NotAMember, "the conversation is between two other users"));
    }
    let _held = caller.map(|caller| state.in_flight.enter(&caller)).transpose()?;
    let answer = Answer::read(&state, &page).await;
    answer
        .map(|answer| answer.into_response(&page))
        .map_err(|error| Problem::of_store(&error, Code::ViewsUnavailable))
}

/// A page as it is shown.
struct Answer {
    /// From the first number of the page on, without a hole.
    entries: Vec<TimelineEntry>,
    head: Seq,
    /// Acknowledged, of the page's range, and not shown. `None`: the log cannot be asked.
    behind: Option<u64>,
}

impl Answer {
    async fn read(state: &AppState, page: &PageQuery) -> Result<Self, StoreError> {
        let conversation = &page.conversation;
        let (head, log_answers) = match state.heads.head(conversation).await {
            Ok(head) => (head, true),
            // Views are served as they are, and the answer says so.
            Err(error) if error.is_retryable() => (state.views.timeline_head(conversation).await?, false),
            Err(error) => return Err(error),
        };
        let range = page.range(head);
        if range.is_empty() {
            return Ok(Self { entries: Vec::new(), head, behind: log_answers.then_some(0) });
        }
        let mut entries = contiguous(&*state.views, &*state.notices, conversation, range.clone()).await?;
        if entries.is_empty() && page.cursor == Cursor::Newest {
            entries = Self::newest_visible(state, page, &range).await?;
        }
        let missing = match entries.last() {
            Some(last) => range.end() - last.seq(),
            None if page.cursor == Cursor::Newest => *range.end(),
            None => range.end() - range.start() + 1,
        };
        Ok(Self { entries, head, behind: log_answers.then_some(missing) })
    }

    /// The newest page that can be shown where the one of `missed` cannot: its first message is not there yet.
    async fn newest_visible(
        state: &AppState,
        page: &PageQuery,
        missed: &RangeInclusive<Seq>,
    ) -> Result<Vec<TimelineEntry>, StoreError> {
        let seen = state.views.timeline_head(&page.conversation).await?;
        let range = page.range(seen.min(missed.start() - 1));
        if range.is_empty() {
            return Ok(Vec::new());
        }
        let mut entries = state.views.timeline(&page.conversation, *range.start(), *range.end()).await?;
        entries.truncate(without_hole(&entries, *range.start()));
        Ok(entries)
    }

    fn into_response(self, page: &PageQuery) -> Response {
        let mut headers = HeaderMap::new();
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
        match self.behind {
            Some(0) => {}
            Some(behind) => drop(headers.insert(CHAT_BEHIND.clone(), behind.into())),
            None => drop(headers.insert(CHAT_BEHIND.clone(), HeaderValue::from_static("unknown"))),
        }
        if let (Some(first), Some(last)) = (self.entries.first(), self.entries.last())
            && let Some(links) = page.links(&(first.seq()..=last.seq()), self.head)
        {
            headers.insert(header::LINK, links);
        }
        let messages: Vec<Message> = self.entries.into_iter().filter_map(visible).collect();
        (headers, Json(messages)).into_response()
    }
}

/// What users see: a marker holds a place, but is no message.
fn visible(entry: TimelineEntry) -> Option<Message> {
    match entry {
        TimelineEntry::Message(message) => Some(message),
        TimelineEntry::Parked { .. } => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(query: &str) -> Result<PageQuery, Code> {
        PageQuery::read(&Query::new(query)).map_err(|problem| problem.code)
    }

    #[test]
    fn which_numbers_a_page_holds() {
        for (query, head, first, last) in [
            ("", 0, 1, 0),
            ("", 3, 1, 3),
            ("", 120, 71, 120),
            ("&limit=1", 120, 120, 120),
            ("&limit=100", 100, 1, 100),
            ("&before=71", 120, 21, 70),
            ("&before=1", 120, 1, 0),
            ("&before=30&limit=50", 120, 1, 29),
            ("&before=500", 120, 71, 120),
            ("&after=70", 120, 71, 120),
            ("&after=70&limit=10", 120, 71, 80),
            ("&after=120", 120, 121, 120),
            ("&after=18446744073709551615", 120, u64::MAX, 120),
        ] {
            let range = page(&format!("sender=samer&recipient=lena{query}")).unwrap().range(head);
            assert_eq!((*range.start(), *range.end()), (first, last), "{query} of {head}");
        }
    }

    #[test]
    fn what_is_not_a_page() {
        for query in [
            "",
            "sender=samer",
            "sender=samer&recipient=samer",
            "sender=samer&recipient=Samer",
            "sender=samer&recipient=%00",
            "sender=samer&recipient=lena&sender=samer",
            "sender=samer&recipient=lena&limit=0",
            "sender=samer&recipient=lena&limit=101",
            "sender=samer&recipient=lena&limit=-1",
            "sender=samer&recipient=lena&limit=5&limit=5",
            "sender=samer&recipient=lena&before=0",
            "sender=samer&recipient=lena&after=x",
            "sender=samer&recipient=lena&before=2&after=1",
        ] {
            assert_eq!(page(query).err(), Some(Code::InvalidRequest), "{query}");
        }
        assert!(page("sender=samer&recipient=lena&unknown=1&unknown=2").is_ok());
    }

    #[test]
    fn links_lead_to_the_neighbours() {
        let links = |shown: RangeInclusive<Seq>, head| {
            let page = page("sender=samer&recipient=lena&limit=2").unwrap();
            page.links(&shown, head).map(|links| links.to_str().unwrap().to_owned())
        };
        let base = "</messages?sender=samer&recipient=lena&limit=2&";
        assert_eq!(links(1..=2, 2), None);
        assert_eq!(links(1..=2, 3).unwrap(), format!("{base}after=2>; rel=\"next\""));
        let both = format!("{base}before=2>; rel=\"prev\", {base}after=3>; rel=\"next\"");
        assert_eq!(links(2..=3, 4).unwrap(), both);
    }
}
