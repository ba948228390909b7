//! `projector migrate`: brings the schema up to date.

use std::io::Write;

use anyhow::Result;
use shared::process::shutdown::Lifecycle;
use shared::process::telemetry;
use storage::cassandra::{self, Migrator};

use crate::config::Migrate;

pub(crate) async fn migrate(options: Migrate) -> Result<()> {
    telemetry::init_log(&options.process, "projector", &Lifecycle::default())?;
    let migrated = Migrator::new(&cassandra::Options::of(&options.views))?.migrate().await?;
    let files = if migrated.files.is_empty() { "nothing".to_owned() } else { migrated.files.join(", ") };
    writeln!(std::io::stdout(), "schema version {}; applied now: {files}", migrated.version)?;
    Ok(())
}
