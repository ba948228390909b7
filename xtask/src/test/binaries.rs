//! Which package a test binary belongs to: cargo's own line names only its file.

use std::collections::HashMap;
use std::path::Path;

/// File name of an executable → directory name of its package, which is the package's name here.
#[derive(Debug, Default)]
pub(super) struct Binaries(HashMap<String, String>);

impl Binaries {
    /// From the messages of `cargo build --message-format json`.
    pub(super) fn from_messages(messages: &str) -> Self {
        let entries = messages.lines().filter_map(|message| {
            let executable = Path::new(string_field(message, "executable")?).file_name()?;
            let package = Path::new(string_field(message, "manifest_path")?).parent()?.file_name()?;
            Some((executable.to_string_lossy().into_owned(), package.to_string_lossy().into_owned()))
        });
        Self(entries.collect())
    }

    /// The package of a binary as cargo shows it, `target/debug/deps/it-0123456789abcdef`.
    pub(super) fn package(&self, path: &str) -> Option<&str> {
        let name = Path::new(path).file_name()?.to_str()?;
        self.0.get(name).map(String::as_str)
    }
}

/// The value of a string field. Paths and names hold nothing that JSON would escape; one that did would only
/// not be counted, and a backend without a count is an error.
fn string_field<'a>(message: &'a str, name: &str) -> Option<&'a str> {
    let start = message.find(&format!("\"{name}\":\""))? + name.len() + 4;
    message[start..].split('"').next()
}

#[cfg(test)]
mod tests {
    use super::Binaries;

    #[test]
    fn a_binary_is_found_by_its_file_name() {
        let binaries = Binaries::from_messages(concat!(
            r#"{"reason":"compiler-artifact","manifest_path":"/a/shared/Cargo.toml","executable":null}"#,
            "\n",
            r#"{"reason":"compiler-artifact","manifest_path":"/a/storage/Cargo.toml","executable":"/a/target/debug/deps/it-12"}"#,
            "\n",
            r#"{"reason":"build-finished","success":true}"#,
        ));
        assert_eq!(binaries.package("target/debug/deps/it-12"), Some("storage"));
        assert_eq!(binaries.package("target/debug/deps/it-13"), None);
    }
}
