//! Beside which log views may be shown. Whoever has registered a name in another log than theirs is somebody else than
//! the one whose messages they have.

use super::error::LOG;
use super::{Epoch, Seen, StoreError};

/// Of which log the views of a generation were made, by what they have seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Nobody has looked yet, or it cannot be told.
    Unknown,
    /// Of none: there is nothing in them.
    Nothing,
    /// Of this one, as of the latest epoch of which they have anything.
    Log(Epoch),
    /// Of several: they were spoilt.
    Several,
}

impl Origin {
    #[must_use]
    pub fn of(seen: &[Seen]) -> Self {
        let has_any = seen.iter().any(|one| one.last.is_some());
        let mut epochs = seen.iter().filter_map(|one| one.epoch.as_ref());
        let Some(first) = epochs.next() else {
            return if has_any { Self::Unknown } else { Self::Nothing };
        };
        if epochs.any(|epoch| epoch.log != first.log) {
            return Self::Several;
        }
        // Where nothing was seen, a repair has nothing to be followed in.
        let counts = |one: &&Seen| one.last.is_some() || !has_any;
        let epochs = seen.iter().filter(counts).filter_map(|one| one.epoch.as_ref());
        match epochs.max_by_key(|epoch| epoch.repairs) {
            Some(latest) => Self::Log(latest.clone()),
            None => Self::Unknown,
        }
    }

    /// Whether the views may go on with this log, whatever was repaired of it.
    #[must_use]
    pub fn is_of(&self, log: &Epoch) -> bool {
        match self {
            Self::Nothing => true,
            Self::Log(seen) => seen.log == log.log,
            Self::Unknown | Self::Several => false,
        }
    }

    /// Whether the views may be shown to the users of this log. Those of an earlier epoch are theirs: after a repair of
    /// it some partition goes on, unless nothing of what was seen is there any more, as in a log that was emptied.
    ///
    /// # Errors
    /// [`StoreError::Other`], which says what to do, and [`StoreError::Unavailable`] as long as it cannot be told.
    pub fn admits(&self, is: &Epoch) -> Result<(), StoreError> {
        match self {
            Self::Unknown => Err(unknown()),
            Self::Nothing => Ok(()),
            Self::Log(seen) if self.is_of(is) && seen.repairs >= is.repairs => Ok(()),
            Self::Log(seen) if self.is_of(is) => Err(StoreError::other_log(format!(
                "it was repaired and is {is}, and the views that are read have seen nothing of that, only {seen}: \
                 `projector rebuild` makes new ones"
            ))),
            Self::Log(seen) => Err(StoreError::other_log(format!(
                "it is {is}, and the views have seen log {seen}: put that back (`projector restore`), or give back \
                 what is left of it (`projector repair`)"
            ))),
            Self::Several => Err(StoreError::other_log(format!(
                "it is {is}, and the views have seen several: `projector repair`"
            ))),
        }
    }

    /// Whether a new log may be begun beside the views.
    ///
    /// # Errors
    /// As [`Origin::admits`].
    pub fn admits_new(&self) -> Result<(), StoreError> {
        let put_back = "put that back (`projector restore`)";
        match self {
            Self::Unknown => Err(unknown()),
            Self::Nothing => Ok(()),
            Self::Log(seen) => Err(StoreError::other_log(format!(
                "there is none, and the views have seen log {seen}: {put_back}"
            ))),
            Self::Several => Err(StoreError::other_log(format!(
                "there is none, and the views have seen several: {put_back}"
            ))),
        }
    }
}

fn unknown() -> StoreError {
    StoreError::unavailable(LOG, "it is not known yet which log the views have seen")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Position;
    use crate::ports::LogPlace;

    /// By partition: the epoch, and whether anything was seen.
    fn seen(rows: &[(Option<&str>, bool)]) -> Vec<Seen> {
        let row = |(partition, (epoch, has_any)): (u16, &(Option<&str>, bool))| {
            let position = Position { partition, ms: 1, counter: 0 };
            let last = has_any.then_some(LogPlace { position, offset: 1 });
            let epoch = epoch.map(|text| text.parse().unwrap());
            Seen { partition, epoch, last, is_told_lost: false }
        };
        (0..).zip(rows).map(row).collect()
    }

    #[test]
    fn views_are_of_what_they_have_seen() {
        let log = |text: &str| Origin::Log(text.parse().unwrap());
        for (rows, origin) in [
            (&[][..], Origin::Nothing),
            (&[(None, false)], Origin::Nothing),
            (&[(None, true)], Origin::Unknown),
            (&[(Some("a"), false), (Some("a"), false)], log("a")),
            (&[(Some("a.1"), false), (Some("a"), false)], log("a.1")),
            (&[(Some("a"), true), (Some("a.1"), true)], log("a.1")),
            (&[(Some("a"), true), (Some("a.1"), false)], log("a")),
            (&[(None, true), (Some("a"), false)], Origin::Unknown),
            (&[(None, true), (Some("a"), true)], log("a")),
            (&[(Some("a"), true), (Some("b"), false)], Origin::Several),
        ] {
            assert_eq!(Origin::of(&seen(rows)), origin, "{rows:?}");
        }
    }

    #[test]
    fn views_are_shown_beside_their_own_log() {
        let admits = |rows, is: &str| Origin::of(&seen(rows)).admits(&is.parse().unwrap()).is_ok();
        let some_go_on = &[(Some("a"), true), (Some("a.1"), true)];
        let none_goes_on = &[(Some("a"), true), (Some("a.1"), false)];
        for (rows, is, shown) in [
            (&[][..], "a", true),
            (&[(None, true)], "a", false),
            (&[(Some("a"), true)], "a", true),
            (&[(Some("a"), true)], "b", false),
            (&[(Some("a"), true)], "b.1", false),
            // Put back from a copy of before the repair.
            (&[(Some("a.1"), true)], "a", true),
            (some_go_on, "a.1", true),
            (none_goes_on, "a.1", false),
            (some_go_on, "a.2", false),
            (&[(Some("a"), false)], "a.1", false),
            (&[(Some("a"), true), (Some("b"), true)], "a", false),
        ] {
            assert_eq!(admits(rows, is), shown, "{rows:?} beside {is}");
        }
    }

    #[test]
    fn what_goes_on_with_a_log() {
        for (rows, goes_on) in [
            (&[][..], true),
            (&[(None, true)], false),
            (&[(Some("a"), true)], true),
            (&[(Some("a.2"), true)], true),
            (&[(Some("b.1"), true)], false),
            (&[(Some("a"), true), (Some("b"), true)], false),
        ] {
            assert_eq!(Origin::of(&seen(rows)).is_of(&"a.1".parse().unwrap()), goes_on, "{rows:?}");
        }
    }

    #[test]
    fn a_new_log_is_begun_beside_views_that_have_seen_none() {
        for (rows, begun) in [(&[][..], true), (&[(None, true)], false), (&[(Some("a"), false)], false)] {
            assert_eq!(Origin::of(&seen(rows)).admits_new().is_ok(), begun, "{rows:?}");
        }
    }
}
