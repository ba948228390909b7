//! `docs/errors.md` as a file: its parts, and whether it is what the systems answer.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use e2e::{Backend, environment};

use super::sections::{NEVER_SENT, SECTIONS};

const HEAD: &str = "\
# Errors

Every `code` of an error, in the order of their statuses: when it is answered, what the client does then, the request
as a `curl` command, and the answer. Both were made from what a test sent and got (`e2e/tests/it/transcripts.rs`), which
compares them with what it sends and gets since. To write this file anew, after a new code or another answer:

```sh
CHAT_WRITE_TRANSCRIPTS=1 cargo xtask test transcripts
```

With `--embedded-only`, which needs no servers, the sections that need the real system stay as they are: those that
ask port 8081. Port 8080 is the standalone.

`$TOKEN` is what `/login` gave samer; he has written to lena, and lena and tarek are users too. `$ID` is a ULID that
was made just before. `01K…`, `2026-…Z` and `N` (seconds: 1 to 3 at random, so that who was refused together does not
come back together) differ each time. Of the headers those are shown that clients act on. The limits were off, but for
`rate_limited`.
";

/// Made in one run, by the name of their section: fenced blocks.
pub(crate) type Made = BTreeMap<&'static str, String>;

static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// Compares what `backend` gave with the file, or writes it there.
///
/// # Panics
/// When the file says otherwise, or `made` is not what this backend has to give.
pub(crate) fn check_or_write(backend: Backend, made: &Made) {
    let expected = SECTIONS.iter().filter(|section| section.by == backend).map(|section| section.name);
    let names: Vec<_> = made.keys().copied().collect();
    let mut expected: Vec<_> = expected.collect();
    expected.sort_unstable();
    assert_eq!(names, expected, "sections that {backend:?} made, and that it has to make");

    // The other backend's test writes the same file.
    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let found = fs::read_to_string(path()).unwrap_or_default();
    let text = composed(&found, made);
    if environment::writes_transcripts() {
        fs::write(path(), text).expect("the file can be written");
    } else {
        assert_same(&found, &text);
    }
}

fn path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/errors.md")
}

/// The whole file: what was made now, and of the other sections what `found` has.
fn composed(found: &str, made: &Made) -> String {
    let mut text = HEAD.to_owned();
    for section in &SECTIONS {
        let blocks = made.get(section.name).map_or_else(|| blocks(found, section.name), String::as_str);
        write!(text, "\n## `{}`\n\n{}\n\n{blocks}", section.name, section.when)
            .expect("a string takes everything");
    }
    text += "\n## Never sent by this version\n\n";
    for (name, what) in NEVER_SENT {
        writeln!(text, "- `{name}`: {what}").expect("a string takes everything");
    }
    text
}

/// The fenced blocks of a section; empty when it has none.
fn blocks<'a>(text: &'a str, name: &str) -> &'a str {
    let (_, section) = text.split_once(&format!("\n## `{name}`\n")).unwrap_or_default();
    let section = section.split("\n## ").next().unwrap_or_default();
    section.find("```").map_or("", |begin| &section[begin..])
}

fn assert_same(found: &str, expected: &str) {
    let how = "`CHAT_WRITE_TRANSCRIPTS=1 cargo xtask test transcripts` writes docs/errors.md anew";
    for section in &SECTIONS {
        assert!(!blocks(found, section.name).is_empty(), "{} has no transcript; {how}", section.name);
    }
    for (number, (found, expected)) in found.lines().zip(expected.lines()).enumerate() {
        assert_eq!(found, expected, "docs/errors.md:{}: the file, and what was answered; {how}", number + 1);
    }
    assert_eq!(found.len(), expected.len(), "one is longer; {how}");
}
