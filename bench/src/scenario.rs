//! The scenarios: each starts what it needs, measures in rounds, and returns what it found.

use anyhow::Result;

use crate::findings::{Findings, Found};
use crate::load::{Pace, WhenLate};
use crate::stage::{Contender, Stage, Target};

mod append;
mod growth;
mod idle;
mod live;
mod login;
mod memory;
mod mixed;
mod overload;
mod project;
mod read;
mod rebuild;
mod rebuild_directory;
mod scale;
mod visible;
mod window;

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Scenario {
    /// Sends per second and their latency, beside the baselines
    Append,
    /// Sends while logins flood in
    Login,
    /// More sends than can be done: 1×, 2×, 5× and 10× of the peak
    Overload,
    /// Sends beside 10,000 idle and 1,000 slow connections
    Idle,
    /// Sends with up to 1,000,000 users and conversations (real only)
    Growth,
    /// Resident memory during a minute at peak
    Memory,
    /// A backlog drained into the views by 1, 2 and 4 projectors (real only)
    Project,
    /// The same where Cassandra answers 5 ms later, by 1 and 4 projectors (real only)
    Scale,
    /// Time from a send's answer until the message can be read (real only)
    Visible,
    /// Pages and inboxes, beside ready bytes and the bare driver (real only)
    Read,
    /// Time from a send's answer until its event is on 1,000 and 5,000 streams; memory of an idle one
    Live,
    /// A send to five reads through nginx, the whole system on this machine (real only)
    Mixed,
    /// The views built anew and proved; on real alone and beside live traffic
    Rebuild,
    /// Memory of Redis while events are written, archived and trimmed (real only)
    Window,
}

impl Scenario {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Append => "append",
            Self::Login => "login",
            Self::Overload => "overload",
            Self::Idle => "idle",
            Self::Growth => "growth",
            Self::Memory => "memory",
            Self::Project => "project",
            Self::Scale => "scale",
            Self::Visible => "visible",
            Self::Read => "read",
            Self::Live => "live",
            Self::Mixed => "mixed",
            Self::Rebuild => "rebuild",
            Self::Window => "window",
        }
    }

    /// Seconds of one measurement, unless told otherwise.
    pub(crate) fn seconds(self) -> f64 {
        match self {
            Self::Read | Self::Growth => 2.0,
            Self::Append => 5.0,
            // A backlog takes as long as it takes.
            Self::Login
            | Self::Overload
            | Self::Idle
            | Self::Project
            | Self::Scale
            | Self::Visible
            | Self::Live
            | Self::Mixed
            | Self::Rebuild
            | Self::Window => 10.0,
            Self::Memory => 60.0,
        }
    }

    /// How often all of it is repeated, unless told otherwise.
    pub(crate) fn rounds(self) -> usize {
        // Many short ones: goals of a few percent on a store that fills up and is disturbed.
        match self {
            Self::Read => 7,
            Self::Growth => 15,
            _ => 3,
        }
    }

    /// What it is measured on, unless told otherwise.
    pub(crate) fn target(self) -> Target {
        match self {
            Self::Append | Self::Login | Self::Overload | Self::Idle | Self::Memory | Self::Live => {
                Target::Standalone
            }
            // There is no other.
            Self::Growth
            | Self::Project
            | Self::Scale
            | Self::Visible
            | Self::Read
            | Self::Mixed
            | Self::Rebuild
            | Self::Window => Target::Real,
        }
    }

    /// What it measures on a target.
    pub(crate) fn programs(self, target: Target) -> Vec<&'static str> {
        match self {
            Self::Append | Self::Login | Self::Overload | Self::Idle | Self::Growth | Self::Memory => {
                vec![target.program()]
            }
            Self::Project | Self::Scale | Self::Window => vec!["projector"],
            Self::Visible | Self::Mixed => vec![target.program(), "projector", "query-api"],
            Self::Live | Self::Rebuild => match target {
                Target::Standalone => vec![target.program()],
                Target::Real => vec![target.program(), "projector", "query-api"],
            },
            Self::Read => vec!["projector", "query-api"],
        }
    }

    pub(crate) async fn run(self, stage: &Stage) -> Result<Findings> {
        match self {
            Self::Append => append::run(stage).await,
            Self::Login => login::run(stage).await,
            Self::Overload => overload::run(stage).await,
            Self::Idle => idle::run(stage).await,
            Self::Growth => growth::run(stage).await,
            Self::Memory => memory::run(stage).await,
            Self::Project => project::run(stage).await,
            Self::Scale => scale::run(stage).await,
            Self::Visible => visible::run(stage).await,
            Self::Read => read::run(stage).await,
            Self::Live => live::run(stage).await,
            Self::Mixed => mixed::run(stage).await,
            Self::Rebuild => match stage.settings.target {
                Target::Standalone => rebuild_directory::run(stage).await,
                Target::Real => rebuild::run(stage).await,
            },
            Self::Window => window::run(stage).await,
        }
    }
}

/// Where sends reach their peak on two cores.
const PEAK_CONNECTIONS: usize = 64;

/// Sends at a steady rate, far from what the system can do: whoever suffers beside a flood.
const STEADY_PER_SECOND: f64 = 1_000.0;
/// Enough that a send never waits for a connection.
const STEADY_CONNECTIONS: usize = 32;

/// The steady sends of other people.
async fn steady(
    stage: &Stage,
    system: &Contender,
    (round, label): (usize, &str),
    findings: &mut Findings,
) -> Result<Found> {
    let pace = Pace::Open { per_second: STEADY_PER_SECOND, when_late: WhenLate::Wait };
    stage.measure(system, (STEADY_CONNECTIONS, pace), (round, label), findings).await
}
