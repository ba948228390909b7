//! Shows how far something is that takes a while: a bar on a terminal, elsewhere lines, of which there is one when
//! something begins, one a second, and one when it is done. The result goes to standard output, this to standard
//! error.

use std::io::{IsTerminal, Write};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use shared::limits::PROGRESS_TOLD_INTERVAL;

use crate::rebuild::Built;
use crate::verify::Step;

pub struct Bar {
    bar: ProgressBar,
    is_terminal: bool,
    pace: Mutex<Option<Pace>>,
}

impl Default for Bar {
    fn default() -> Self {
        Self::new()
    }
}

impl Bar {
    /// # Panics
    /// Never: the template is valid.
    #[must_use]
    pub fn new() -> Self {
        let style = ProgressStyle::with_template("[{elapsed}] {bar:30} {wide_msg}");
        let bar = ProgressBar::new(0).with_style(style.expect("the template is valid"));
        Self { bar, is_terminal: std::io::stderr().is_terminal(), pace: Mutex::default() }
    }

    /// Of a comparison.
    pub fn step(&self, step: Step) {
        self.show(step.phase.name(), (step.done, step.of), "");
    }

    /// Of a generation.
    pub fn built(&self, built: &Built) {
        let what = format!("generation {} {}", built.generation, built.state);
        self.show(&what, (built.applied, built.events), &built.note());
    }

    /// So many of so many of `what`, which is begun anew when it is another than before.
    pub fn show(&self, what: &str, (done, of): (u64, u64), note: &str) {
        let mut pace = self.pace.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let (pace, is_new) = match &mut *pace {
            Some(pace) if pace.what == what => (pace, false),
            other => (other.insert(Pace::begin(what, done, now)), true),
        };
        let is_due = now.duration_since(pace.told_at) >= PROGRESS_TOLD_INTERVAL;
        // What is shown is the same; a terminal only takes more of it.
        if self.is_terminal {
            self.bar.set_length(of);
            self.bar.set_position(done.min(of));
            self.bar.set_message(pace.line((done, of), note, now));
        } else if is_new || is_due || (done >= of && pace.told < of) {
            // Whoever closed it does not want to know.
            let _ = writeln!(std::io::stderr(), "{}", pace.line((done, of), note, now));
            (pace.told_at, pace.told) = (now, done);
        }
    }

    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

/// Over all of it so far: what takes long has a steady pace.
struct Pace {
    what: String,
    since: Instant,
    /// How much was done already.
    at_first: u64,
    told_at: Instant,
    told: u64,
}

impl Pace {
    fn begin(what: &str, done: u64, now: Instant) -> Self {
        Self { what: what.to_owned(), since: now, at_first: done, told_at: now, told: done }
    }

    fn line(&self, (done, of): (u64, u64), note: &str, now: Instant) -> String {
        let percent = (100 * done).checked_div(of).unwrap_or(100);
        let (moved, took) = (done.saturating_sub(self.at_first), now.duration_since(self.since));
        let mut line = format!("{}: {percent} %, {done} of {of}", self.what);
        // A rate of the first moments says nothing.
        if moved > 0 && took >= PROGRESS_TOLD_INTERVAL {
            let ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
            let per_second = moved.saturating_mul(1_000) / ms;
            let left = Duration::from_millis(of.saturating_sub(done).saturating_mul(ms) / moved).as_secs();
            line += &format!(", {per_second}/s, {}:{:02} to go", left / 60, left % 60);
        }
        if note.is_empty() { line } else { format!("{line}, {note}") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_that_of_all_of_it() {
        let begun = Instant::now();
        let pace = Pace::begin("events folded", 100, begun);
        let line = |done, seconds, note| pace.line((done, 2_000), note, begun + Duration::from_secs(seconds));
        assert_eq!(line(100, 0, ""), "events folded: 5 %, 100 of 2000");
        assert_eq!(line(100, 9, "it stands"), "events folded: 5 %, 100 of 2000, it stands");
        assert_eq!(line(500, 4, ""), "events folded: 25 %, 500 of 2000, 100/s, 0:15 to go");
        assert_eq!(line(102, 4, "slow"), "events folded: 5 %, 102 of 2000, 0/s, 63:16 to go, slow");
        assert_eq!(Pace::begin("nothing", 0, begun).line((0, 0), "", begun), "nothing: 100 %, 0 of 0");
    }
}
