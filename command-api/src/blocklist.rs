//! Passwords that nobody may choose: read from a file once, at the start. Without a file there are none.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use shared::limits::{BLOCKLIST_BYTES_MAX, PASSWORD_CHARS_MAX, PASSWORD_CHARS_MIN};
use shared::process::config::ConfigError;

/// Compared as they are: a list that is to catch several spellings holds them.
#[derive(Clone, Default)]
pub struct Blocklist(Arc<HashSet<Box<str>>>);

impl Blocklist {
    /// One password per line, UTF-8. What could not be a password anyway is left out.
    ///
    /// # Errors
    /// When the file cannot be read or is larger than [`BLOCKLIST_BYTES_MAX`].
    pub fn read(file: Option<&Path>) -> Result<Self, ConfigError> {
        let Some(file) = file else { return Ok(Self::default()) };
        let wrong = |why: String| ConfigError(format!("--password-blocklist {}: {why}", file.display()));
        let bytes = std::fs::metadata(file).map_err(|error| wrong(error.to_string()))?.len();
        if bytes > BLOCKLIST_BYTES_MAX {
            return Err(wrong(format!("it has {bytes} bytes, at most {BLOCKLIST_BYTES_MAX} are read")));
        }
        let text = std::fs::read_to_string(file).map_err(|error| wrong(error.to_string()))?;
        let possible = PASSWORD_CHARS_MIN..=PASSWORD_CHARS_MAX;
        let lines = text.lines().filter(|line| possible.contains(&line.chars().count()));
        Ok(Self(Arc::new(lines.map(Box::from).collect())))
    }

    pub(crate) fn holds(&self, password: &str) -> bool {
        self.0.contains(password)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_file_of_lines() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all("password123\r\nshort\n\n pass word \nпароль12345".as_bytes()).unwrap();
        let list = Blocklist::read(Some(file.path())).unwrap();
        for password in ["password123", " pass word ", "пароль12345"] {
            assert!(list.holds(password), "{password}");
        }
        for password in ["Password123", "short", "", "password1234", "pass word"] {
            assert!(!list.holds(password), "{password}");
        }
        assert!(!Blocklist::read(None).unwrap().holds("password123"));
    }

    #[test]
    fn a_file_that_cannot_be_read_is_named() {
        let error = Blocklist::read(Some(Path::new("/nowhere/list"))).map(drop).unwrap_err();
        assert!(error.to_string().starts_with("--password-blocklist /nowhere/list: "), "{error}");
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(b"password123\n\xff\n").unwrap();
        assert!(Blocklist::read(Some(file.path())).is_err(), "not UTF-8");
        file.as_file().set_len(BLOCKLIST_BYTES_MAX + 1).unwrap();
        assert!(Blocklist::read(Some(file.path())).is_err(), "too large");
    }
}
