//! What a command answers: lines for a person, or JSON for a program, on standard output.

use std::io::{self, Write};

use serde::Serialize;

/// Who reads no further, as `head` does, has seen enough.
///
/// # Errors
/// When standard output takes nothing for another reason.
pub fn print<T: Serialize>(json: bool, what: &T, text: impl FnOnce(&T) -> String) -> io::Result<()> {
    let text = if json { serde_json::to_string(what)? } else { text(what) };
    match writeln!(io::stdout(), "{}", text.trim_end()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        printed => printed,
    }
}
