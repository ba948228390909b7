//! The subcommands, one file each. On standard output is what was asked for, how far it is on standard error; an error
//! for what is unknown or could not be done.

pub(crate) mod generations;
mod migrate;
mod parked;
mod place;
mod repair;
mod restore;
mod run;
mod status;
mod stores;
mod verify;

pub(crate) use migrate::migrate;
pub(crate) use parked::parked;
pub(crate) use repair::repair;
pub(crate) use restore::restore;
pub(crate) use run::run;
pub(crate) use status::status;
pub(crate) use verify::verify;
