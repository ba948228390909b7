//! Shows how far a comparison is: a bar on a terminal, lines elsewhere. The result goes to standard output, this to
//! standard error.

use std::io::{IsTerminal, Write};
use std::sync::{Mutex, PoisonError};

use indicatif::{ProgressBar, ProgressStyle};

use super::{Phase, Step};

pub struct Bar {
    bar: ProgressBar,
    is_terminal: bool,
    /// The phase, and how many tenths of it were told.
    told: Mutex<Option<(Phase, u64)>>,
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
        let style = ProgressStyle::with_template(
            "[{elapsed}] {bar:30} {percent}% {wide_msg} ({per_sec}, {eta} left)",
        );
        let bar = ProgressBar::new(0).with_style(style.expect("the template is valid"));
        Self { bar, is_terminal: std::io::stderr().is_terminal(), told: Mutex::default() }
    }

    pub fn step(&self, step: Step) {
        let Step { phase, done, of } = step;
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let is_new = told.is_none_or(|(told, _)| told != phase);
        if self.is_terminal {
            if is_new {
                self.bar.reset();
                self.bar.set_message(phase.name());
            }
            self.bar.set_length(of);
            self.bar.set_position(done.min(of));
        }
        let tenths = (10 * done).checked_div(of).unwrap_or(10);
        if is_new || told.is_some_and(|(_, told)| told < tenths) {
            if !self.is_terminal {
                let _ = writeln!(std::io::stderr(), "{}: {done} of {of}", phase.name());
            }
            *told = Some((phase, tenths));
        }
    }

    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

impl Phase {
    fn name(self) -> &'static str {
        match self {
            Self::Waiting => "partitions applied",
            Self::Log => "events folded",
            Self::Views => "parts of the tables compared",
            Self::LogAgain => "events folded again, to name the differences",
            Self::ViewsAgain => "parts of the timeline compared again",
        }
    }
}
