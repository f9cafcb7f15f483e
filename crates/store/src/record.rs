//! The stored record of one container. It is neither the published state nor the shim's report.

use std::path::PathBuf;

use contd_types::{
    Caller, ContainerId, ContainerSpec, Entrypoint, Exit, InForce, NamespaceId, Signal, State, Timestamp, UserSpec,
};
use serde::{Deserialize, Serialize};

/// The version of the record format that this code writes, and the newest that it reads.
pub const RECORD_VERSION: u32 = 1;

/// The state that the user last asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Desired {
    /// The container shall run.
    Run,
    /// The container shall be stopped, also after a reboot.
    Stop,
}

/// The settings that the flist supplied where the container's spec leaves them open.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MadeWith {
    /// The command to run.
    pub entrypoint: Option<Entrypoint>,
    /// Environment, each `KEY=VALUE`.
    pub env: Vec<String>,
    /// Working directory.
    pub working_dir: Option<String>,
    /// The user and group it runs as.
    pub user: Option<UserSpec>,
    /// The signal that asks the container to end.
    pub stop_signal: Option<Signal>,
}

impl MadeWith {
    /// Returns the settings of `complete`; `None` if `spec` has the same.
    pub fn of(complete: &ContainerSpec, spec: &ContainerSpec) -> Option<Self> {
        let of = |spec: &ContainerSpec| Self {
            entrypoint: spec.entrypoint.clone(),
            env: spec.env.clone(),
            working_dir: spec.working_dir.clone(),
            user: spec.user.clone(),
            stop_signal: spec.stop_signal,
        };
        let made_with = of(complete);
        (made_with != of(spec)).then_some(made_with)
    }
}

/// The record of one container. Unknown fields are ignored when read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerRecord {
    /// The version of this format.
    pub version: u32,
    /// The boot id of the last write.
    pub boot_id: String,
    /// Counts the writes; of two records the one with the lower number loses. See [`ContainerRecord::bump`].
    pub generation: u64,
    /// The container's id.
    pub id: ContainerId,
    /// The container's namespace.
    pub namespace: NamespaceId,
    /// The spec as the user gave it.
    pub spec: ContainerSpec,
    /// The state, or the target of a step that has begun.
    pub state: State,
    /// The time when `Run` was accepted.
    pub created_at: Timestamp,
    /// The time when the container last began to run.
    pub started_at: Option<Timestamp>,
    /// The time when the container last ended.
    pub finished_at: Option<Timestamp>,
    /// How often the restart policy has started it again.
    pub restart_count: u32,
    /// The state that the user last asked for.
    pub desired: Desired,
    /// Whether `Run` was answered. An acknowledged container is never rolled back.
    pub is_acknowledged: bool,
    /// The key that joins a repeated `Run` to the first.
    pub idempotency_key: Option<String>,
    /// How the last run ended; kept while the container runs again.
    pub exit: Option<Exit>,
    /// The host path of the log.
    pub log_path: PathBuf,
    /// Whether the log files bear marks. Log files of an earlier version bear none, and this record proves whose they
    /// are.
    #[serde(default)]
    pub has_log_marks: bool,
    /// Whether the container ran when the node was shut down and was ended for that. The next daemon treats it as after
    /// a reboot.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub went_down_with_node: bool,
    /// The settings that the flist supplied when the container was last made; `None` if it supplied none, or if it was
    /// not made yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub made_with: Option<MadeWith>,
    /// The user who asked for the container, if a limited user. Each start is checked against the rules that hold then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub caller: Option<Caller>,
    /// The node's decisions when the container was last made; `None` if it was not made yet, or was made by a daemon
    /// that did not record them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub in_force: Option<InForce>,
}

impl ContainerRecord {
    /// Makes the first record of a container: being created, desired to run, not acknowledged.
    pub fn new(
        namespace: NamespaceId,
        id: ContainerId,
        spec: ContainerSpec,
        boot_id: impl Into<String>,
        log_path: impl Into<PathBuf>,
        now: Timestamp,
    ) -> Self {
        Self {
            version: RECORD_VERSION,
            boot_id: boot_id.into(),
            generation: 1,
            id,
            namespace,
            spec,
            state: State::Creating,
            created_at: now,
            started_at: None,
            finished_at: None,
            restart_count: 0,
            desired: Desired::Run,
            is_acknowledged: false,
            idempotency_key: None,
            exit: None,
            log_path: log_path.into(),
            has_log_marks: true,
            went_down_with_node: false,
            made_with: None,
            caller: None,
            in_force: None,
        }
    }

    /// Tells whether the times are those of a run that has begun and not ended. Otherwise they belong to the run
    /// before, or there was none.
    pub fn is_run_known(&self) -> bool {
        self.started_at.is_some() && self.finished_at.is_none()
    }

    /// Records the begin of a run, and clears the end of the run before.
    pub fn begin_run(&mut self, at: Timestamp) {
        (self.started_at, self.finished_at) = (Some(at), None);
    }

    /// Records how and when the run ended. The end is never before the begin, even if the clock was set back or the
    /// begin was not recorded.
    pub fn end_run(&mut self, exit: &Exit) {
        let began = self.started_at.filter(|_| self.is_run_known()).unwrap_or(exit.at);
        (self.started_at, self.finished_at) = (Some(began), Some(exit.at.max(began)));
        self.exit = Some(exit.clone());
    }

    /// Returns the spec with the settings that the flist supplied, for display.
    pub fn complete_spec(&self) -> ContainerSpec {
        let mut spec = self.spec.clone();
        if let Some(MadeWith { entrypoint, env, working_dir, user, stop_signal }) = self.made_with.clone() {
            (spec.entrypoint, spec.env, spec.working_dir) = (entrypoint, env, working_dir);
            (spec.user, spec.stop_signal) = (user, stop_signal);
        }
        spec
    }

    /// Counts one write; the only writer calls it once per change, and not again when it repeats a failed write.
    pub fn bump(&mut self) {
        self.generation = self.generation.saturating_add(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use contd_types::{ContainerName, ExitCause, ExitSource};

    fn record() -> ContainerRecord {
        let spec = ContainerSpec::new(ContainerName::new("c").expect("a name"), "dir:/x");
        let (namespace, id) = (NamespaceId::new("a").expect("a name"), ContainerId::from_random([1; 16]));
        ContainerRecord::new(namespace, id, spec, "boot", "/l", Timestamp(1))
    }

    fn exit(at: u64) -> Exit {
        Exit {
            cause: ExitCause::Code(0),
            at: Timestamp(at),
            oom_kills: 0,
            source: ExitSource::Reaped,
            is_drained: true,
        }
    }

    #[test]
    fn the_times_of_a_record_are_those_of_one_run_and_in_order() {
        let times = |record: &ContainerRecord| (record.started_at.map(|at| at.0), record.finished_at.map(|at| at.0));
        let mut record = record();
        record.begin_run(Timestamp(10));
        assert_eq!(times(&record), (Some(10), None));
        record.end_run(&exit(20));
        assert_eq!(times(&record), (Some(10), Some(20)));
        // It was started again, and the start was not recorded.
        record.end_run(&exit(40));
        assert_eq!(times(&record), (Some(40), Some(40)));
        record.begin_run(Timestamp(50));
        // The clock was set back meanwhile.
        record.end_run(&exit(45));
        assert_eq!(times(&record), (Some(50), Some(50)));
        assert_eq!(record.exit.map(|exit| exit.at.0), Some(45));
    }

    #[test]
    fn a_record_of_an_earlier_version_says_that_its_log_has_no_marks() {
        let mut text = serde_json::to_value(record()).expect("JSON");
        assert_eq!(text["has_log_marks"], true);
        text.as_object_mut().expect("a record").remove("has_log_marks");
        let old: ContainerRecord = serde_json::from_value(text).expect("it is read");
        assert!(!old.has_log_marks);
    }
}
