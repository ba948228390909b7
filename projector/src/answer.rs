//! What a command answers: lines for a person, or JSON for a program, on standard output.

use std::io::{self, Write};

use serde::Serialize;

/// # Errors
/// When standard output is gone.
pub fn print<T: Serialize>(json: bool, what: &T, text: impl FnOnce(&T) -> String) -> io::Result<()> {
    let text = if json { serde_json::to_string(what)? } else { text(what) };
    writeln!(io::stdout(), "{}", text.trim_end())
}
