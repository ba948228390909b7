//! What a comparison has found: as lines for a person, or as JSON.

use std::fmt::{self, Write as _};

use serde::Serialize;
use shared::Seq;
use shared::ids::Username;
use shared::limits::DIFFERENCES_LISTED_MAX;

/// `Serialize` is what `--json` prints.
#[derive(Debug, Serialize)]
pub struct Comparison {
    pub generation: u32,
    /// Of the log, up to where it ended when the comparison began.
    pub events: u64,
    pub conversations: u64,
    pub users: u64,
    /// Of all tables.
    pub rows: u64,
    /// Rows that were too many to be taken into account: nothing is proved of them.
    pub rows_left_out: u64,
    /// Without the wait until all of the log was applied.
    pub took_ms: u64,
    #[serde(flatten)]
    pub differences: Differences,
}

/// All are counted, at most [`DIFFERENCES_LISTED_MAX`] are listed.
#[derive(Debug, Default, Serialize)]
pub struct Differences {
    /// With more than are listed: at least so many.
    #[serde(rename = "differences")]
    pub found: u64,
    pub listed: Vec<Difference>,
}

/// Where views and log are not the same.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(tag = "view", rename_all = "lowercase")]
pub enum Difference {
    Timeline {
        conversation: String,
        seq: Seq,
        what: String,
    },
    Inbox {
        owner: Username,
        peer: Username,
        what: String,
    },
    Users {
        user: Username,
        what: String,
    },
    /// A row of any table that cannot be read.
    Broken {
        what: String,
    },
    /// The log itself is not whole, so that it proves nothing.
    Log {
        partition: u16,
        what: String,
    },
}

impl Differences {
    pub(super) fn add(&mut self, difference: Difference) {
        self.found += 1;
        if !self.is_full() {
            self.listed.push(difference);
        }
    }

    /// One that is not looked at more closely.
    pub(super) fn add_unlisted(&mut self) {
        self.found += 1;
    }

    pub(super) fn is_full(&self) -> bool {
        self.listed.len() >= DIFFERENCES_LISTED_MAX
    }

    /// By view, name and number, whatever order they were found in.
    pub(super) fn sorted(mut self) -> Self {
        self.listed.sort_unstable();
        self
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Timeline { conversation, seq, what } => write!(f, "timeline {conversation} {seq}: {what}"),
            Self::Inbox { owner, peer, what } => write!(f, "inbox of {owner} with {peer}: {what}"),
            Self::Users { user, what } => write!(f, "user {user}: {what}"),
            Self::Broken { what } => write!(f, "{what}: it cannot be read"),
            Self::Log { partition, what } => write!(f, "log partition {partition}: {what}"),
        }
    }
}

impl Comparison {
    /// The views are what the log says, as far as they were compared.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.differences.found == 0
    }

    /// The views are what the log says, all of them.
    #[must_use]
    pub fn is_proof(&self) -> bool {
        self.is_clean() && self.rows_left_out == 0
    }

    /// Lines for a person.
    #[must_use]
    pub fn lines(&self) -> String {
        let Self { generation, events, conversations, users, rows, rows_left_out, took_ms, differences } =
            self;
        let Differences { found, listed } = differences;
        let mut text: String = listed.iter().map(|difference| format!("{difference}\n")).collect();
        let (seconds, tenths) = (took_ms / 1_000, took_ms % 1_000 / 100);
        let _ = writeln!(
            text,
            "generation {generation}: {events} events and {rows} rows of {conversations} conversations and \
             {users} users compared in {seconds}.{tenths} s"
        );
        if *rows_left_out > 0 {
            let _ = writeln!(text, "{rows_left_out} rows were left out: the rest is proved, they are not");
        }
        text += &match found {
            0 => "no difference\n".to_owned(),
            1 => "1 difference\n".to_owned(),
            found if *found == listed.len() as u64 => format!("{found} differences\n"),
            found => format!("at least {found} differences; the first {} are listed\n", listed.len()),
        };
        text
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn comparison(found: u64) -> Comparison {
        let mut differences = Differences::default();
        for seq in 1..=found {
            let (conversation, what) = ("lena:samer".to_owned(), "missing".to_owned());
            differences.add(Difference::Timeline { conversation, seq, what });
        }
        Comparison {
            generation: 2,
            events: 7,
            conversations: 1,
            users: 2,
            rows: 9,
            rows_left_out: 0,
            took_ms: 1_250,
            differences,
        }
    }

    #[test]
    fn lines_list_every_difference_up_to_the_bound() {
        let compared = "generation 2: 7 events and 9 rows of 1 conversations and 2 users compared in 1.2 s\n";
        assert_eq!(comparison(0).lines(), format!("{compared}no difference\n"));
        assert_eq!(
            comparison(1).lines(),
            format!("timeline lena:samer 1: missing\n{compared}1 difference\n")
        );
        assert!(comparison(2).lines().ends_with("\n2 differences\n"));
        let many = comparison(105);
        assert_eq!(many.lines().lines().count(), DIFFERENCES_LISTED_MAX + 2);
        assert!(many.lines().ends_with("at least 105 differences; the first 100 are listed\n"));
    }

    #[test]
    fn what_is_left_out_is_not_proved() {
        let partial = Comparison { rows_left_out: 3, ..comparison(0) };
        assert!(comparison(0).is_proof() && partial.is_clean() && !partial.is_proof());
        let said = "3 rows were left out: the rest is proved, they are not\nno difference\n";
        assert!(partial.lines().ends_with(said), "{}", partial.lines());
    }

    #[test]
    fn json_has_the_same() {
        let json = json!(comparison(1));
        let listed = json!([{
            "view": "timeline", "conversation": "lena:samer", "seq": 1, "what": "missing",
        }]);
        assert_eq!(
            (&json["generation"], &json["differences"], &json["listed"]),
            (&json!(2), &json!(1), &listed)
        );
    }
}
