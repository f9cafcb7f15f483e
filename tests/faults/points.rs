//! Where in the scenario each failpoint is reached. The match has no arm for "others": a new point must be placed.

use contd_failpoint::Failpoint;

/// A step of the scenario.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Step {
    /// `contd run`, or `create` and `start`.
    Run,
    /// The container says so much that its log is rotated.
    Lines,
    /// The death that makes somebody look for a shim.
    Provoke,
    /// `contd exec`.
    Exec,
    /// `contd stop`.
    Stop,
    /// `contd start`.
    Start,
    /// `contd shim upgrade`.
    Upgrade,
    /// It ends by itself, and `contd wait`.
    End,
    /// `contd rm`.
    Delete,
}

/// The process that dies in [`Step::Provoke`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Provocation {
    Nobody,
    Daemon,
    Shim,
}

/// How a point is reached.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Placement {
    /// The steps before which the order is given, one case for each.
    pub(crate) from: &'static [Step],
    /// How often it is passed before; one case for each.
    pub(crate) skips: &'static [u64],
    pub(crate) provocation: Provocation,
    /// Whether there are warm slots; without them each shim starts cold, and its way up can be struck.
    pub(crate) has_slots: bool,
    /// Made by `create` and `start` in the place of `run`.
    pub(crate) is_created: bool,
}

const fn at(from: &'static [Step]) -> Placement {
    Placement { from, skips: &[0], provocation: Provocation::Nobody, has_slots: false, is_created: false }
}

const fn often(from: &'static [Step], skips: &'static [u64]) -> Placement {
    Placement { skips, ..at(from) }
}

const fn provoked(provocation: Provocation) -> Placement {
    Placement { provocation, ..at(&[Step::Provoke]) }
}

const fn with_slots(from: &'static [Step]) -> Placement {
    Placement { has_slots: true, ..at(from) }
}

/// Says how a point is reached; `None` for the one that every file operation is.
pub(crate) fn placement(point: Failpoint) -> Option<Placement> {
    use Failpoint as P;
    use Step::{Delete, End, Exec, Run, Start, Stop, Upgrade};
    Some(match point {
        // They have tests of their own.
        P::FsOperation | P::ProgramStarted => return None,
        P::MakeAdmitted
        | P::MakeRecorded
        | P::MakeRootPrepared
        | P::MakeBundleWritten
        | P::MakeLogOpened
        | P::SpawnReserved
        | P::SpawnLaunched
        | P::MakeShimSpawned
        | P::MakeCreated
        | P::MakeTold
        | P::MakeStarted
        | P::MakeCommitted => at(&[Run, Start]),
        P::SlotTold => with_slots(&[Run]),
        P::MakePrepared => Placement { is_created: true, ..at(&[Run]) },
        P::ExecDone | P::ExecRecorded | P::ExecRuns | P::ExecEnded => at(&[Exec]),
        P::StopRequested | P::StopSignalled => at(&[Stop]),
        P::ExitTaken | P::ExitStored | P::ExitSettled => at(&[Stop, End]),
        P::UpgradeAsked | P::UpgradeDone => at(&[Upgrade]),
        P::ShimEnded => at(&[Stop, Delete]),
        P::DeleteRecorded | P::BundleRemoved | P::LogRemoved | P::RootReleased | P::RecordRemoved => at(&[Delete]),
        P::AttachLooked => Placement { skips: &[0, 1], ..provoked(Provocation::Daemon) },
        P::AttachDone => Placement { skips: &[0, 1], ..provoked(Provocation::Daemon) },
        P::AttachReserved | P::AttachLaunched => provoked(Provocation::Shim),

        P::ShimClaimed | P::ShimBound | P::ShimTaskRead | P::ShimReady => at(&[Run, Start]),
        P::SlotReady => with_slots(&[Run]),
        P::CreateBegun | P::CreateMade | P::CreateRecorded | P::StartBegun | P::StartRecorded => at(&[Run, Start]),
        P::SpoolTaken | P::SpoolNoted | P::SpoolLogged | P::SpoolFinished => often(&[Run], &[0, 3, 12]),
        P::SpoolCut => often(&[Run], &[0, 1]),
        P::RotationRenamed => often(&[Run], &[0, 1, 2]),
        P::RotationReopened => often(&[Run], &[0, 1]),
        P::EndSeen | P::EndDrained | P::EndWritten | P::EndTold => at(&[Stop, End]),
        P::DeleteBegun | P::DeleteCgroupRemoved | P::DeleteForgotten | P::ShimShutDown => at(&[Stop, End]),
        P::AdoptRead | P::AdoptReplayed | P::AdoptTaken => provoked(Provocation::Shim),
        P::HandOverBegun | P::HandOverClaimed => at(&[Upgrade]),
    })
}

/// Tells whether the daemon comes by it; a shim does otherwise.
pub(crate) fn is_of_daemon(point: Failpoint) -> bool {
    point.name().starts_with("daemon.")
}
