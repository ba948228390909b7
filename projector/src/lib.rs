//! Reads the log, projects every event, writes the views, acknowledges: in that order. It decides nothing and
//! answers nobody; it knows stores only as ports.

mod answer;
mod archiving;
mod backoff;
mod bar;
#[cfg(test)]
mod deliveries;
mod filling;
mod pace;
mod parked;
mod parking;
mod progress;
mod projections;
mod reading;
mod reapplying;
mod rebuild;
mod repair;
mod restore;
mod run;
mod seen;
mod status;
mod storm;
mod verify;

pub use answer::print;
pub use archiving::{ArchiveCounters, Archiver, HotWindow, keep_archive};
pub use bar::Bar;
pub use filling::{Filler, Makes};
pub use pace::Paced;
pub use parked::{Listing, Parked, ParkedCommand, ParkedError, Retried, Shown, Which};
pub use progress::{Progress, Watched};
pub use projections::project;
pub use reapplying::{Reapplier, reapply};
pub use rebuild::{Built, Rebuild, RebuildError, retire};
pub use repair::{Lost, Repair, RepairError, Repaired};
pub use restore::{Restore, RestoreError, Restored, RestoredPartition};
pub use run::{Counters, Projector, run};
pub use seen::SeenLogs;
pub use status::{Archived, Report};
pub use storm::{Storm, StormGuard};
pub use verify::{Comparison, Difference, Differences, Phase, Step, Tell, Verifier, VerifyError, verify};
