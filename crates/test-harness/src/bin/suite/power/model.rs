//! The acknowledgements, and so the containers and flists that must be there after the power was lost.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// The exit code of a container that ends by itself, and of one that is told to.
pub(super) const ENDS_WITH: u8 = 7;
pub(super) const TOLD_WITH: u8 = 9;

/// A restart policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Policy {
    No,
    OnFailure,
    Always,
    UnlessStopped,
}

impl Policy {
    pub(super) const ALL: [Self; 4] = [Self::No, Self::OnFailure, Self::Always, Self::UnlessStopped];

    /// Reads it as `contd inspect` shows it.
    pub(super) fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|policy| policy.to_string() == text)
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::No => "no",
            Self::OnFailure => "on-failure",
            Self::Always => "always",
            Self::UnlessStopped => "unless-stopped",
        })
    }
}

/// The last thing that is known of a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lately {
    /// Made, and never started.
    Created,
    Runs,
    /// Stopped by a user.
    Told,
    /// It has ended by itself.
    Ended,
    /// It ran when the power was lost, and its policy did not start it again.
    WentDown,
}

/// How a stopped container must have ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// By itself, with [`ENDS_WITH`].
    Itself,
    /// Told to: with [`TOLD_WITH`], or killed because it was slow.
    Told,
    /// By the loss of power.
    Reboot,
}

/// The state in which a container must be found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    Created,
    Running,
    Stopped(End),
    /// Of one whose start was under way only.
    Failed,
}

/// A container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Container {
    /// In its label `serial`: of the containers that have had its name, which one it is.
    pub(super) serial: u64,
    pub(super) flist: String,
    pub(super) policy: Policy,
    pub(super) lately: Lately,
    /// It has said that it wrote and synced a file in its own layer.
    pub(super) has_layer: bool,
}

impl Container {
    /// Returns the state after the next boot.
    pub(super) fn after_boot(&self) -> Found {
        match (self.lately, self.policy) {
            (Lately::Created, _) => Found::Created,
            (Lately::Runs, Policy::No) => Found::Stopped(End::Reboot),
            (Lately::Runs, _) | (Lately::Told | Lately::Ended | Lately::WentDown, Policy::Always) => Found::Running,
            // Only a user who stopped it is heeded.
            (Lately::Ended | Lately::WentDown, Policy::UnlessStopped) => Found::Running,
            (Lately::Told, _) => Found::Stopped(End::Told),
            (Lately::Ended, _) => Found::Stopped(End::Itself),
            (Lately::WentDown, _) => Found::Stopped(End::Reboot),
        }
    }
}

/// A container with an operation that was not acknowledged: the ways in which it may be found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Unclear {
    pub(super) may_be_absent: bool,
    /// Each with the policy that it has then.
    pub(super) may_be: Vec<(Policy, Found)>,
    /// Its state, if it is there.
    pub(super) as_container: Container,
}

/// All that was acknowledged.
#[derive(Debug, Default)]
pub(super) struct Model {
    /// By name.
    pub(super) containers: BTreeMap<String, Container>,
    /// By name; these are not in `containers`.
    pub(super) unclear: BTreeMap<String, Unclear>,
    /// Paths, and the SHA-256 of the file `/content`.
    pub(super) flists: BTreeMap<String, String>,
    /// Flists that were being made: whole, or not there.
    pub(super) unclear_flists: BTreeSet<String>,
    /// Names whose log may be there without a container: a run of that name was never acknowledged.
    pub(super) loose_logs: BTreeSet<String>,
    /// The number of the last thing that was made.
    pub(super) serial: u64,
}

impl Model {
    /// Returns the ways in which a container may be found; `None` for one that must not be there.
    pub(super) fn expected(&self, name: &str) -> Option<Unclear> {
        let known = self.containers.get(name).map(|container| Unclear {
            may_be_absent: false,
            may_be: vec![(container.policy, container.after_boot())],
            as_container: container.clone(),
        });
        known.or_else(|| self.unclear.get(name).cloned())
    }

    /// Lists it, for a failure.
    pub(super) fn describe(&self) -> String {
        let mut text = String::from("acknowledged, as far as it is known:");
        for (name, container) in &self.containers {
            text.push_str(&format!("\n  {name}: {container:?}"));
        }
        for (name, unclear) in &self.unclear {
            text.push_str(&format!("\n  {name}, not acknowledged: {unclear:?}"));
        }
        for path in self.flists.keys() {
            text.push_str(&format!("\n  {path}"));
        }
        for path in &self.unclear_flists {
            text.push_str(&format!("\n  {path}, not acknowledged"));
        }
        text
    }
}
