//! Shows how far a run is: a bar on a terminal, a line per step elsewhere. Results go to stdout, this to stderr.

use std::cell::Cell;
use std::io::IsTerminal;

use indicatif::{ProgressBar, ProgressStyle};

pub(crate) struct Progress {
    bar: ProgressBar,
    steps: Cell<u64>,
    done: Cell<u64>,
    is_terminal: bool,
}

impl Progress {
    pub(crate) fn new() -> Self {
        let style = ProgressStyle::with_template("{spinner} [{elapsed}] {bar:30} {pos}/{len} {wide_msg}");
        let bar = ProgressBar::new(0).with_style(style.expect("the template is valid"));
        Self { bar, steps: Cell::new(0), done: Cell::new(0), is_terminal: std::io::stderr().is_terminal() }
    }

    /// So many more steps are to come.
    pub(crate) fn expect(&self, steps: usize) {
        self.steps.set(self.steps.get() + steps as u64);
        self.bar.set_length(self.steps.get());
    }

    pub(crate) fn say(&self, what: &str) {
        if self.is_terminal {
            self.bar.set_message(what.to_owned());
            self.bar.tick();
        } else {
            eprintln!("{what}");
        }
    }

    /// A step is done.
    pub(crate) fn step(&self, found: &str) {
        self.done.set(self.done.get() + 1);
        if self.is_terminal {
            self.bar.set_message(found.to_owned());
            self.bar.inc(1);
        } else {
            eprintln!("[{}/{}] {found}", self.done.get(), self.steps.get());
        }
    }

    pub(crate) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}
