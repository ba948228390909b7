//! What a request for a page asks for, and which numbers that is.

use std::ops::RangeInclusive;
use std::time::Duration;

use axum::http::HeaderValue;
use shared::limits::{MIN_SEQ_WAIT_DEFAULT, MIN_SEQ_WAIT_MAX, PAGE_MESSAGES_DEFAULT, PAGE_MESSAGES_MAX};
use shared::process::problem::Problem;
use shared::process::request::Query;
use shared::{Conversation, Seq, Username};

use crate::prefer::PreferredWait;

/// What was asked for.
pub(super) struct PageQuery {
    sender: Username,
    recipient: Username,
    pub(super) conversation: Conversation,
    pub(super) limit: u64,
    pub(super) cursor: Cursor,
    /// The message that must be seen.
    pub(super) min_seq: Option<Seq>,
    /// Since the beginning of the request.
    pub(super) min_seq_wait: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cursor {
    Newest,
    Before(Seq),
    After(Seq),
}

impl PageQuery {
    pub(super) fn read(query: &Query, PreferredWait(wait): &PreferredWait) -> Result<Self, Problem> {
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
        let min_seq = query.number("min_seq", Seq::MAX)?;
        let min_seq_wait = wait.unwrap_or(MIN_SEQ_WAIT_DEFAULT).min(MIN_SEQ_WAIT_MAX);
        Ok(Self { sender, recipient, conversation, limit, cursor, min_seq, min_seq_wait })
    }

    /// The numbers of the page, given the conversation's head; empty when there is nothing.
    pub(super) fn range(&self, head: Seq) -> RangeInclusive<Seq> {
        let ending_at = |last: Seq| last.saturating_sub(self.limit - 1).max(1)..=last;
        match self.cursor {
            Cursor::Newest => ending_at(head),
            Cursor::Before(seq) => ending_at(head.min(seq - 1)),
            Cursor::After(seq) => seq.saturating_add(1)..=head.min(seq.saturating_add(self.limit)),
        }
    }

    /// The numbers of a page that ends in the past, if the conversation goes on behind it: the head is not needed then.
    pub(super) fn past(&self) -> Option<RangeInclusive<Seq>> {
        match self.cursor {
            Cursor::Before(seq) => Some(self.range(seq)).filter(|range| !range.is_empty()),
            Cursor::Newest | Cursor::After(_) => None,
        }
    }

    /// Whether a page of these numbers can no longer change, given the conversation's head: it is full, and its
    /// successor exists.
    pub(super) fn is_settled(&self, shown: &RangeInclusive<Seq>, head: Seq) -> bool {
        let full = shown.end() - shown.start() + 1 == self.limit;
        full && self.cursor != Cursor::Newest && *shown.end() < head
    }

    /// Links to the neighbours of the page that shows `shown`.
    pub(super) fn links(&self, shown: &RangeInclusive<Seq>, head: Seq) -> Option<HeaderValue> {
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

#[cfg(test)]
mod tests {
    use shared::process::problem::Code;

    use super::*;

    fn page(query: &str) -> Result<PageQuery, Code> {
        PageQuery::read(&Query::new(query), &PreferredWait(None)).map_err(|problem| problem.code)
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
            "sender=samer&recipient=lena&min_seq=0",
            "sender=samer&recipient=lena&min_seq=2&min_seq=2",
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

    #[test]
    fn what_can_no_longer_change() {
        for (query, shown, head, settled) in [
            ("limit=2&before=3", 1..=2, 3, true),
            ("limit=2&before=3", 1..=2, 2, false),
            ("limit=3&before=3", 1..=2, 9, false),
            ("limit=2&after=1", 2..=3, 4, true),
            ("limit=2&after=1", 2..=3, 3, false),
            ("limit=2", 3..=4, 5, false),
        ] {
            let page = page(&format!("sender=samer&recipient=lena&{query}")).unwrap();
            assert_eq!(page.is_settled(&shown, head), settled, "{query} of {head}");
        }
    }
}
