//! What is stored about one container. Not what is published, and not what the shim reports.

use std::path::PathBuf;

use contd_types::{
    Caller, ContainerId, ContainerSpec, Entrypoint, Exit, InForce, NamespaceId, Signal, State, Timestamp, UserSpec,
};
use serde::{Deserialize, Serialize};

/// The version of the record format that this code writes, and the newest that it reads.
pub const RECORD_VERSION: u32 = 1;

/// What the user last asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Desired {
    /// That it runs.
    Run,
    /// That it is stopped; remembered over reboots.
    Stop,
}

/// What a container was made with where its spec leaves the choice to the flist.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MadeWith {
    /// What it runs.
    pub entrypoint: Option<Entrypoint>,
    /// Environment, each `KEY=VALUE`.
    pub env: Vec<String>,
    /// Working directory.
    pub working_dir: Option<String>,
    /// Who it runs as.
    pub user: Option<UserSpec>,
    /// The signal that asks it to end.
    pub stop_signal: Option<Signal>,
}

impl MadeWith {
    /// Notes what `complete` has; `None` if that is what `spec` has.
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
    /// The boot in which it was written last.
    pub boot_id: String,
    /// Counts the writes; of two records the one with the lower number loses. See [`ContainerRecord::bump`].
    pub generation: u64,
    /// Its id.
    pub id: ContainerId,
    /// Its namespace.
    pub namespace: NamespaceId,
    /// What it was asked to be.
    pub spec: ContainerSpec,
    /// Where it is, or where a step that was begun will lead.
    pub state: State,
    /// When `Run` was accepted.
    pub created_at: Timestamp,
    /// When it last began to run.
    pub started_at: Option<Timestamp>,
    /// When it last ended.
    pub finished_at: Option<Timestamp>,
    /// How often the restart policy has started it again.
    pub restart_count: u32,
    /// What the user last asked for.
    pub desired: Desired,
    /// Whether `Run` was answered: from then on it is never rolled back.
    pub is_acknowledged: bool,
    /// Joins a repeated `Run` to the first.
    pub idempotency_key: Option<String>,
    /// How its last run ended, also while it runs again.
    pub exit: Option<Exit>,
    /// The host path of its log.
    pub log_path: PathBuf,
    /// Whether its log files bear marks. Those of an earlier version do not, and are its own by this record.
    #[serde(default)]
    pub has_log_marks: bool,
    /// Whether it ran when its node was shut down, and was ended for that: the next daemon treats it as after a reboot.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub went_down_with_node: bool,
    /// What its flist added to the spec when it was last made; `None` if nothing, or if it was not made yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub made_with: Option<MadeWith>,
    /// Who asked for it, if that is somebody with limited rights: each start is judged by its rules of the day.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub caller: Option<Caller>,
    /// What the node decided when it was last made; `None` if it was not made yet, or by a daemon that did not note it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub in_force: Option<InForce>,
}

impl ContainerRecord {
    /// Makes the first record of a container: being created, wanted to run, not acknowledged.
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

    /// Tells whether its times are those of a run that has begun and not ended. Otherwise they are of the run before, or
    /// there was none.
    pub fn is_run_known(&self) -> bool {
        self.started_at.is_some() && self.finished_at.is_none()
    }

    /// Notes that it runs: the end of the run before is not that of this one.
    pub fn begin_run(&mut self, at: Timestamp) {
        (self.started_at, self.finished_at) = (Some(at), None);
    }

    /// Notes how and when its run has ended: never before it began, whatever became of the clock or of whoever watched.
    pub fn end_run(&mut self, exit: &Exit) {
        let began = self.started_at.filter(|_| self.is_run_known()).unwrap_or(exit.at);
        (self.started_at, self.finished_at) = (Some(began), Some(exit.at.max(began)));
        self.exit = Some(exit.clone());
    }

    /// Gives the spec with what the flist added to it, as people are shown it.
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
        // It was started again, and nobody wrote when.
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
