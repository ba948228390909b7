//! How a program ends that could not do what it was started for: with one line.

use std::error::Error;
use std::process::ExitCode;

use crate::ports::Chain;

/// What `main` returns. An error is a line on standard error, with its causes and nothing of where in the program it came
/// from: it is for whoever started it.
pub fn status<E: AsRef<dyn Error>>(done: Result<(), E>) -> ExitCode {
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", Chain(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}
