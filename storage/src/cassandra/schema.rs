//! The schema: numbered files, applied once each and in order by [`Migrator`], and checked by every service that
//! connects. A file that was released is never changed: what comes later is a file of its own. It moves no data.

use std::collections::BTreeSet;

use scylla::client::session::Session;
use shared::ports::StoreError;

use super::statement::prepare;
use super::{Options, STORE, error, statement};

mod migrator;

pub use migrator::{Migrated, Migrator};

/// One file of `cql/`.
struct File {
    version: i32,
    name: &'static str,
    text: &'static str,
}

/// Applied at every migration, before anything else.
const REGISTER: &str = include_str!("../../../cql/0000_register.cql");

/// By version.
const FILES: &[File] = &[
    File { version: 1, name: "0001_init.cql", text: include_str!("../../../cql/0001_init.cql") },
    File { version: 2, name: "0002_parked.cql", text: include_str!("../../../cql/0002_parked.cql") },
    File { version: 3, name: "0003_rebuild.cql", text: include_str!("../../../cql/0003_rebuild.cql") },
    File { version: 4, name: "0004_archive.cql", text: include_str!("../../../cql/0004_archive.cql") },
    File { version: 5, name: "0005_seen.cql", text: include_str!("../../../cql/0005_seen.cql") },
    File { version: 6, name: "0006_kept.cql", text: include_str!("../../../cql/0006_kept.cql") },
];

const NEWEST: i32 = FILES[FILES.len() - 1].version;

/// # Errors
/// [`StoreError::Unfit`], in one line, unless the schema is exactly this program's.
pub(super) async fn check(session: &Session, keyspace: &str) -> Result<(), StoreError> {
    let applied = applied(session, keyspace).await?;
    refuse_newer(&applied, keyspace)?;
    if applied.is_empty() {
        return Err(unfinished(keyspace, "there is no schema"));
    }
    match FILES.iter().find(|file| !applied.contains(&file.version)) {
        Some(missing) => Err(unfinished(keyspace, &format!("{} is not applied", missing.name))),
        None => Ok(()),
    }
}

/// The schema is not there, or not all of it.
pub(super) fn unfinished(keyspace: &str, what: &str) -> StoreError {
    StoreError::Unfit {
        store: STORE,
        what: format!("{what} in keyspace {keyspace}: run `projector migrate`"),
    }
}

fn refuse_newer(applied: &BTreeSet<i32>, keyspace: &str) -> Result<(), StoreError> {
    match applied.last() {
        Some(version) if *version > NEWEST => {
            let what = format!(
                "the schema of keyspace {keyspace} is at version {version} and this program knows {NEWEST}: \
                 it needs a newer program"
            );
            Err(StoreError::Unfit { store: STORE, what })
        }
        Some(_) | None => Ok(()),
    }
}

/// The versions of the files that are applied in full.
async fn applied(session: &Session, keyspace: &str) -> Result<BTreeSet<i32>, StoreError> {
    if !has_table(session, keyspace, "schema_versions").await? {
        return Ok(BTreeSet::new());
    }
    let select = prepare(session, &format!("SELECT version FROM {keyspace}.schema_versions")).await?;
    let rows = statement::read(session, &select, ()).await?;
    let versions = rows.rows::<(i32,)>().map_err(|error| error::unfit(&error))?;
    versions.map(|row| row.map(|(version,)| version).map_err(error::damaged)).collect()
}

async fn has_table(session: &Session, keyspace: &str, table: &str) -> Result<bool, StoreError> {
    let text = "SELECT table_name FROM system_schema.tables WHERE keyspace_name = ? AND table_name = ?";
    let rows = statement::read(session, &prepare(session, text).await?, (keyspace, table)).await?;
    Ok(rows.rows_num() > 0)
}

/// The name goes into statements as it is, where no value can be bound, so it is the one text that is checked.
pub(super) fn check_options(options: &Options) -> Result<(), StoreError> {
    let unfit = |what: &str| Err(StoreError::Unfit { store: STORE, what: what.to_owned() });
    let name = options.keyspace.as_bytes();
    let allowed = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || *byte == b'_';
    if !name.first().is_some_and(u8::is_ascii_lowercase) || !name.iter().all(allowed) {
        return unfit("a keyspace is named with a-z 0-9 _ and starts with a letter");
    }
    if name.len() > KEYSPACE_CHARS_MAX {
        return unfit("the name of the keyspace is longer than 40 characters");
    }
    if options.nodes.is_empty() {
        return unfit("no node is named");
    }
    if options.replication_factor == 0 {
        return unfit("a replication factor of 0 keeps nothing");
    }
    Ok(())
}

/// Cassandra takes 48; the rest is for the number of a generation.
const KEYSPACE_CHARS_MAX: usize = 40;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_numbered_without_gaps() {
        for (file, version) in FILES.iter().zip(1..) {
            assert_eq!(file.version, version);
            assert!(file.name.starts_with(&format!("{version:04}_")), "{}", file.name);
        }
    }

    #[test]
    fn options_that_cannot_work_are_refused() {
        let options = |keyspace: &str, nodes: &[&str], replication_factor| Options {
            nodes: nodes.iter().map(ToString::to_string).collect(),
            keyspace: keyspace.to_owned(),
            replication_factor,
        };
        assert!(check_options(&options("chat", &["127.0.0.1:9042"], 1)).is_ok());
        for keyspace in ["", "Chat", "1chat", "_chat", "chat;", "chat\"", "chat.x", "chät", &"c".repeat(41)]
        {
            assert!(check_options(&options(keyspace, &["127.0.0.1:9042"], 1)).is_err(), "{keyspace}");
        }
        assert!(check_options(&options("chat", &[], 1)).is_err());
        assert!(check_options(&options("chat", &["127.0.0.1:9042"], 0)).is_err());
    }

    #[test]
    fn another_schema_is_told_from_ones_own() {
        assert!(refuse_newer(&BTreeSet::from([1, NEWEST]), "chat").is_ok());
        let newer = refuse_newer(&BTreeSet::from([1, NEWEST + 1]), "chat").unwrap_err();
        assert!(!newer.is_retryable() && newer.to_string().contains("newer program"), "{newer}");
    }
}
