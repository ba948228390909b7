//! What the commands say: the only place that writes to standard output.

#![expect(clippy::print_stdout, reason = "the commands' results go to standard output")]

use std::fmt::Display;
use std::time::Instant;

/// A line of its own.
pub(crate) fn line(text: impl Display) {
    println!("{text}");
}

/// One finished part of a longer work: what, where or how, and how long it took.
pub(crate) fn part(what: &str, detail: impl Display, since: Instant) {
    println!("{what:<16} {detail:<44} {:>6.1} s", since.elapsed().as_secs_f64());
}
