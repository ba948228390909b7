//! `standalone parked`: what could not be applied, of a directory on which nothing runs. The commands are those of
//! `projector parked`.

use clap::Args;
use projector::{Parked, ParkedCommand};
use shared::Clock;
use storage::embedded::Embedded;

use crate::Config;
use crate::verify::{GENERATION, existing, open};

/// Of the one generation.
#[derive(Debug, Clone, Args)]
pub struct Asked {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// # Errors
/// When the directory is damaged or in use; and those of the command.
pub async fn parked(config: &Config, command: ParkedCommand<Asked>) -> anyhow::Result<()> {
    let store = open(&existing(config)?, Embedded::open, Clock::system()).await?;
    let parked = Parked { generation: GENERATION, events: store.clone(), log: store.clone(), views: store };
    let json = command.asked().json;
    Ok(command.run(json, &parked).await?)
}
