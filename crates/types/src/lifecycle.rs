//! The lifecycle of a container: one pure table, the only way to change state.
//!
//! ```text
//!   Creating ──► Created ──► Starting ──► Running ⇄ Paused          the way of a container that is run, stopped
//!                                            │                      and removed; the table below is complete
//!                                            ▼
//!   Creating ◄── Backoff ◄── Stopped ◄── Stopping
//!                               │
//!                               ▼
//!                            Deleting ──► (gone)
//! ```
//!
//! - `Creating`: root file system, bundle, log and shim are being made. No process of the container runs.
//! - `Created`: the runtime has created the container; its init waits. This is OCI's "created".
//! - `Prepared`: `contd create` has made the root file system, bundle and log. There is no shim and no process until the
//!   first start. [`StateName`] calls both `created`, because a caller can do the same with both.
//! - `Starting`: init was told to execute the entrypoint.
//! - `Running`, `Paused`: the entrypoint runs, or its cgroup is frozen.
//! - `Stopping`: the container was told to end. `pid` is set once the runtime has created it.
//! - `Stopped`: the container has ended, with its exit.
//! - `Backoff`: the container has ended and its restart policy will start it again at `until`.
//! - `Failed`: a step of making it failed, and all earlier steps were undone.
//! - `Recovering`: a new daemon has read the record of a live container and attaches to its shim again.
//! - `Deleting`: the container is being removed; no transition leads back.
//! - `Lingering`: the same, but a process or mount resists. The removal is repeated until nothing is left; the name is
//!   free meanwhile. [`StateName`] calls it `deleting`.
//!
//! Every transition, in the order of the states; the test `the_table_in_the_module_doc_is_the_code` compares it with
//! [`State::after`]. A transition to the same state means that the event is late or repeated and changes nothing.
//!
//! | state | event → next state |
//! |---|---|
//! | `Creating` | ShimCreated → Created, Prepared → Prepared, StopRequested → Stopping, Aborted → Failed, RecoveryBegun → Recovering |
//! | `Created` | StartRequested → Starting, StopRequested → Stopping, ShimExited → Stopped, Aborted → Failed, RecoveryBegun → Recovering |
//! | `Prepared` | Restarted → Creating, DeleteRequested → Deleting |
//! | `Starting` | ShimReady → Running, StopRequested → Stopping, ShimExited → Stopped, Aborted → Failed, RecoveryBegun → Recovering |
//! | `Running` | Paused → Paused, Resumed → Running, StopRequested → Stopping, ShimExited → Stopped, RecoveryBegun → Recovering |
//! | `Paused` | Paused → Paused, Resumed → Running, StopRequested → Stopping, ShimExited → Stopped, RecoveryBegun → Recovering |
//! | `Stopping` | ShimCreated → Stopping, ShimReady → Stopping, StopRequested → Stopping, ShimExited → Stopped, Aborted → Failed, RecoveryBegun → Recovering, RemovalResisted → Lingering |
//! | `Stopped` | StopRequested → Stopped, BackoffBegun → Backoff, Restarted → Creating, DeleteRequested → Deleting |
//! | `Backoff` | StopRequested → Stopped, Restarted → Creating, DeleteRequested → Deleting |
//! | `Failed` | StopRequested → Failed, Restarted → Creating, DeleteRequested → Deleting |
//! | `Recovering` | ShimCreated → Created, ShimReady → Running, ShimExited → Stopped, Aborted → Failed, RecoveryBegun → Recovering |
//! | `Deleting` | DeleteRequested → Deleting, RemovalResisted → Lingering |
//! | `Lingering` | ShimExited → Lingering, Aborted → Lingering, DeleteRequested → Lingering, RemovalResisted → Lingering |
//!
//! Only the container's actor applies events. Every other pair of state and event is an
//! [`IllegalTransition`]; none is ignored.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::exit::Exit;
use crate::time::Timestamp;

/// A process id on the host; always positive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Pid(pub i32);

impl fmt::Display for Pid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The state of a container. The module's documentation explains each one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum State {
    /// The container is being made.
    Creating,
    /// The container is made; init waits.
    Created {
        /// The pid of its init.
        pid: Pid,
    },
    /// Init was told to execute the entrypoint.
    Starting {
        /// The pid of its init.
        pid: Pid,
    },
    /// The entrypoint runs.
    Running {
        /// The pid of its init.
        pid: Pid,
    },
    /// The container's processes are frozen.
    Paused {
        /// The pid of its init.
        pid: Pid,
    },
    /// The container was told to end.
    Stopping {
        /// The pid of its init, once there is one.
        pid: Option<Pid>,
    },
    /// The container has ended.
    Stopped {
        /// How it ended.
        exit: Exit,
    },
    /// The container has ended and waits for its next start.
    Backoff {
        /// How it ended.
        exit: Exit,
        /// The number of the coming restart in a row, from 1.
        attempt: u32,
        /// The time of the restart, for display; the daemon counts on the monotonic clock.
        until: Timestamp,
    },
    /// The container could not be made.
    Failed {
        /// The step that failed.
        step: Step,
        /// The reason.
        reason: String,
    },
    /// The daemon is re-attaching to the container.
    Recovering,
    /// The container is being removed.
    Deleting,
    /// The container is made without its processes, and was never started.
    Prepared,
    /// The container is being removed, and a process or mount of it resists.
    Lingering {
        /// The process or mount, and the reason.
        reason: String,
    },
}

/// The steps of making a container, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Step {
    /// Checks of name, quota and spec.
    Admit,
    /// Writing the record.
    Record,
    /// Preparing the root file system.
    Rootfs,
    /// Writing the OCI bundle.
    Bundle,
    /// Making the log file.
    Log,
    /// Starting the shim process.
    Shim,
    /// Creation by the runtime.
    Create,
    /// Start by the runtime.
    Start,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Admit => "admit",
            Self::Record => "record",
            Self::Rootfs => "rootfs",
            Self::Bundle => "bundle",
            Self::Log => "log",
            Self::Shim => "shim",
            Self::Create => "create",
            Self::Start => "start",
        })
    }
}

/// The name of a state, without its fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[expect(missing_docs, reason = "each is documented at `State`")]
pub enum StateName {
    Creating,
    Created,
    Starting,
    Running,
    Paused,
    Stopping,
    Stopped,
    Backoff,
    Failed,
    Recovering,
    Deleting,
}

impl StateName {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::Creating,
        Self::Created,
        Self::Starting,
        Self::Running,
        Self::Paused,
        Self::Stopping,
        Self::Stopped,
        Self::Backoff,
        Self::Failed,
        Self::Recovering,
        Self::Deleting,
    ];
}

impl fmt::Display for StateName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Creating => "creating",
            Self::Created => "created",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopping => "stopping",
            Self::Stopped => "stopped",
            Self::Backoff => "backoff",
            Self::Failed => "failed",
            Self::Recovering => "recovering",
            Self::Deleting => "deleting",
        })
    }
}

/// The inputs of the lifecycle table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The shim's runtime has made the container.
    ShimCreated {
        /// The pid of its init.
        pid: Pid,
    },
    /// The container is made without its processes, as requested.
    Prepared,
    /// A start was requested.
    StartRequested,
    /// The shim reports that init has executed the entrypoint.
    ShimReady {
        /// The pid of its init.
        pid: Pid,
    },
    /// The container's processes were frozen.
    Paused,
    /// The container's processes were thawed.
    Resumed,
    /// A stop was requested.
    StopRequested,
    /// Init has ended.
    ShimExited {
        /// How it ended.
        exit: Exit,
    },
    /// A step of making the container failed, and the earlier steps were undone.
    Aborted {
        /// The step that failed.
        step: Step,
        /// The reason.
        reason: String,
    },
    /// The restart policy will start the container again.
    BackoffBegun {
        /// The number of the coming restart in a row, from 1.
        attempt: u32,
        /// The time of the restart.
        until: Timestamp,
    },
    /// The container is made again, by policy or by request.
    Restarted,
    /// The daemon has read the record and looks for the shim.
    RecoveryBegun,
    /// A deletion was requested.
    DeleteRequested,
    /// A process or mount of the container resists its removal.
    RemovalResisted {
        /// The process or mount, and the reason.
        reason: String,
    },
}

/// A transition that the table does not have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a container that is {from} cannot take the event {event}")]
pub struct IllegalTransition {
    /// The state, which stays as it is.
    pub from: StateName,
    /// The event's name.
    pub event: &'static str,
}

impl Event {
    /// Returns the name of the event, for errors and logs.
    pub fn name(&self) -> &'static str {
        match self {
            Self::ShimCreated { .. } => "shim-created",
            Self::Prepared => "prepared",
            Self::StartRequested => "start-requested",
            Self::ShimReady { .. } => "shim-ready",
            Self::Paused => "paused",
            Self::Resumed => "resumed",
            Self::StopRequested => "stop-requested",
            Self::ShimExited { .. } => "shim-exited",
            Self::Aborted { .. } => "aborted",
            Self::BackoffBegun { .. } => "backoff-begun",
            Self::Restarted => "restarted",
            Self::RecoveryBegun => "recovery-begun",
            Self::DeleteRequested => "delete-requested",
            Self::RemovalResisted { .. } => "removal-resisted",
        }
    }
}

impl State {
    /// Applies an event; the whole table.
    ///
    /// # Errors
    /// [`IllegalTransition`] for a move that the table does not have; the state stays what it was.
    pub fn after(self, event: Event) -> Result<Self, IllegalTransition> {
        use Event as E;
        use State as S;
        Ok(match (self, event) {
            // Making the container, the first time and each further time.
            (S::Creating | S::Recovering, E::ShimCreated { pid }) => S::Created { pid },
            (S::Created { pid }, E::StartRequested) => S::Starting { pid },
            (S::Starting { .. } | S::Recovering, E::ShimReady { pid }) => S::Running { pid },
            (
                S::Creating | S::Created { .. } | S::Starting { .. } | S::Stopping { .. } | S::Recovering,
                E::Aborted { step, reason },
            ) => S::Failed { step, reason },
            (S::Creating, E::Prepared) => S::Prepared,
            (S::Stopped { .. } | S::Backoff { .. } | S::Failed { .. } | S::Prepared, E::Restarted) => S::Creating,

            // Freezing and thawing.
            (S::Running { pid }, E::Paused) => S::Paused { pid },
            (S::Paused { pid }, E::Resumed) => S::Running { pid },
            (state @ S::Paused { .. }, E::Paused) | (state @ S::Running { .. }, E::Resumed) => state,

            // Ending the container.
            (S::Creating, E::StopRequested) => S::Stopping { pid: None },
            (S::Created { pid } | S::Starting { pid } | S::Running { pid } | S::Paused { pid }, E::StopRequested) => {
                S::Stopping { pid: Some(pid) }
            }
            (S::Stopping { .. }, E::ShimCreated { pid } | E::ShimReady { pid }) => S::Stopping { pid: Some(pid) },
            (state @ (S::Stopping { .. } | S::Stopped { .. } | S::Failed { .. }), E::StopRequested) => state,
            (S::Backoff { exit, .. }, E::StopRequested) => S::Stopped { exit },
            (
                S::Created { .. }
                | S::Starting { .. }
                | S::Running { .. }
                | S::Paused { .. }
                | S::Stopping { .. }
                | S::Recovering,
                E::ShimExited { exit },
            ) => S::Stopped { exit },
            (S::Stopped { exit }, E::BackoffBegun { attempt, until }) => S::Backoff { exit, attempt, until },

            // Recovering after a restart of the daemon.
            (
                S::Creating
                | S::Created { .. }
                | S::Starting { .. }
                | S::Running { .. }
                | S::Paused { .. }
                | S::Stopping { .. }
                | S::Recovering,
                E::RecoveryBegun,
            ) => S::Recovering,

            // Removing the container.
            (
                S::Stopped { .. } | S::Backoff { .. } | S::Failed { .. } | S::Prepared | S::Deleting,
                E::DeleteRequested,
            ) => S::Deleting,
            // A process that survives SIGKILL keeps the container in `Stopping`, until a removal gives up waiting.
            (S::Stopping { .. } | S::Deleting | S::Lingering { .. }, E::RemovalResisted { reason }) => {
                S::Lingering { reason }
            }
            // Late events: the container was being made, or ran, when its removal began.
            (state @ S::Lingering { .. }, E::DeleteRequested | E::ShimExited { .. } | E::Aborted { .. }) => state,

            (from, event) => return Err(IllegalTransition { from: from.name(), event: event.name() }),
        })
    }

    /// Returns the name, without the state's fields.
    pub fn name(&self) -> StateName {
        match self {
            Self::Creating => StateName::Creating,
            Self::Created { .. } | Self::Prepared => StateName::Created,
            Self::Starting { .. } => StateName::Starting,
            Self::Running { .. } => StateName::Running,
            Self::Paused { .. } => StateName::Paused,
            Self::Stopping { .. } => StateName::Stopping,
            Self::Stopped { .. } => StateName::Stopped,
            Self::Backoff { .. } => StateName::Backoff,
            Self::Failed { .. } => StateName::Failed,
            Self::Recovering => StateName::Recovering,
            Self::Deleting | Self::Lingering { .. } => StateName::Deleting,
        }
    }

    /// Returns the pid of the init process, if there is one.
    pub fn pid(&self) -> Option<Pid> {
        match self {
            Self::Created { pid } | Self::Starting { pid } | Self::Running { pid } | Self::Paused { pid } => Some(*pid),
            Self::Stopping { pid } => *pid,
            Self::Creating
            | Self::Stopped { .. }
            | Self::Backoff { .. }
            | Self::Failed { .. }
            | Self::Recovering
            | Self::Prepared
            | Self::Deleting
            | Self::Lingering { .. } => None,
        }
    }

    /// Returns the exit, if there is one.
    pub fn exit(&self) -> Option<&Exit> {
        match self {
            Self::Stopped { exit } | Self::Backoff { exit, .. } => Some(exit),
            _ => None,
        }
    }

    /// Tells whether the container may have a shim, for which a new daemon must look.
    pub fn may_have_shim(&self) -> bool {
        match self {
            Self::Creating
            | Self::Created { .. }
            | Self::Starting { .. }
            | Self::Running { .. }
            | Self::Paused { .. }
            | Self::Stopping { .. }
            | Self::Recovering => true,
            Self::Stopped { .. }
            | Self::Backoff { .. }
            | Self::Failed { .. }
            | Self::Prepared
            | Self::Deleting
            | Self::Lingering { .. } => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit::{ExitCause, ExitSource};
    use proptest::prelude::*;

    fn exit(code: u8) -> Exit {
        Exit {
            cause: ExitCause::Code(code),
            at: Timestamp(1),
            oom_kills: 0,
            source: ExitSource::Reaped,
            is_drained: true,
        }
    }

    fn after(state: State, events: &[Event]) -> State {
        events.iter().fold(state, |state, event| state.after(event.clone()).expect("a legal move"))
    }

    const PID: Pid = Pid(7);

    #[test]
    fn a_container_runs_from_creation_to_deletion() {
        let path = [
            Event::ShimCreated { pid: PID },
            Event::StartRequested,
            Event::ShimReady { pid: PID },
            Event::ShimExited { exit: exit(0) },
            Event::DeleteRequested,
        ];
        assert_eq!(after(State::Creating, &path), State::Deleting);
    }

    #[test]
    fn a_stop_stands_when_the_start_answers_late() {
        let path = [Event::StopRequested, Event::ShimReady { pid: PID }];
        assert_eq!(after(State::Starting { pid: PID }, &path), State::Stopping { pid: Some(PID) });
    }

    #[test]
    fn a_stop_during_creation_waits_for_the_half_made_container() {
        let path = [Event::StopRequested, Event::ShimCreated { pid: PID }];
        assert_eq!(after(State::Creating, &path), State::Stopping { pid: Some(PID) });
    }

    #[test]
    fn a_stop_ends_the_back_off_and_keeps_the_exit() {
        let waiting = State::Backoff { exit: exit(3), attempt: 2, until: Timestamp(9) };
        assert_eq!(after(waiting, &[Event::StopRequested]), State::Stopped { exit: exit(3) });
    }

    #[test]
    fn a_running_container_cannot_be_deleted_before_it_has_ended() {
        let refused = State::Running { pid: PID }.after(Event::DeleteRequested).expect_err("illegal");
        assert_eq!(refused, IllegalTransition { from: StateName::Running, event: "delete-requested" });
    }

    #[test]
    fn asking_twice_changes_nothing() {
        let stopped = State::Stopped { exit: exit(0) };
        assert_eq!(after(stopped.clone(), &[Event::StopRequested]), stopped);
        assert_eq!(after(State::Deleting, &[Event::DeleteRequested]), State::Deleting);
        assert_eq!(after(State::Recovering, &[Event::RecoveryBegun]), State::Recovering);
    }

    #[test]
    fn what_does_not_go_is_being_deleted_whatever_comes_late() {
        let resisted = |reason: &str| Event::RemovalResisted { reason: reason.into() };
        let path = [
            resisted("a process"),
            Event::DeleteRequested,
            Event::ShimExited { exit: exit(0) },
            Event::Aborted { step: Step::Create, reason: "late".into() },
        ];
        let lingering = after(State::Stopping { pid: Some(PID) }, &path);
        assert_eq!(lingering, State::Lingering { reason: "a process".into() });
        assert_eq!(lingering.name(), StateName::Deleting);
        assert_eq!(after(lingering, &[resisted("a mount")]), State::Lingering { reason: "a mount".into() });
        State::Running { pid: PID }.after(resisted("nobody asked")).expect_err("it was not told to go");
    }

    /// One state of each kind, and one event of each kind.
    fn all() -> (Vec<State>, Vec<Event>) {
        let until = Timestamp(5);
        let reason = || "planted".to_owned();
        let states = vec![
            State::Creating,
            State::Created { pid: PID },
            State::Prepared,
            State::Starting { pid: PID },
            State::Running { pid: PID },
            State::Paused { pid: PID },
            State::Stopping { pid: Some(PID) },
            State::Stopped { exit: exit(0) },
            State::Backoff { exit: exit(0), attempt: 1, until },
            State::Failed { step: Step::Create, reason: reason() },
            State::Recovering,
            State::Deleting,
            State::Lingering { reason: reason() },
        ];
        let events = vec![
            Event::ShimCreated { pid: PID },
            Event::Prepared,
            Event::StartRequested,
            Event::ShimReady { pid: PID },
            Event::Paused,
            Event::Resumed,
            Event::StopRequested,
            Event::ShimExited { exit: exit(0) },
            Event::Aborted { step: Step::Create, reason: reason() },
            Event::BackoffBegun { attempt: 1, until },
            Event::Restarted,
            Event::RecoveryBegun,
            Event::DeleteRequested,
            Event::RemovalResisted { reason: reason() },
        ];
        (states, events)
    }

    /// Returns the name of a variant.
    fn variant(value: &impl fmt::Debug) -> String {
        format!("{value:?}").chars().take_while(|c| c.is_alphanumeric()).collect()
    }

    #[test]
    fn the_table_in_the_module_doc_is_the_code() {
        let (states, events) = all();
        let row = |state: &State| {
            let moves = events.iter().filter_map(|event| {
                let next = state.clone().after(event.clone()).ok()?;
                Some(format!("{} → {}", variant(event), variant(&next)))
            });
            format!("//! | `{}` | {} |", variant(state), moves.collect::<Vec<_>>().join(", "))
        };
        let table: Vec<String> = states.iter().map(row).collect();
        let doc: Vec<&str> = include_str!("lifecycle.rs").lines().filter(|line| line.starts_with("//! | `")).collect();
        assert_eq!(doc, table, "the table as the code has it:\n{}\n", table.join("\n"));
    }

    fn any_event() -> impl Strategy<Value = Event> {
        prop_oneof![
            (1..9i32).prop_map(|pid| Event::ShimCreated { pid: Pid(pid) }),
            Just(Event::StartRequested),
            Just(Event::Prepared),
            (1..9i32).prop_map(|pid| Event::ShimReady { pid: Pid(pid) }),
            Just(Event::Paused),
            Just(Event::Resumed),
            Just(Event::StopRequested),
            any::<u8>().prop_map(|code| Event::ShimExited { exit: exit(code) }),
            Just(Event::Aborted { step: Step::Create, reason: "planted".into() }),
            (1..9u32).prop_map(|attempt| Event::BackoffBegun { attempt, until: Timestamp(5) }),
            Just(Event::Restarted),
            Just(Event::RecoveryBegun),
            Just(Event::DeleteRequested),
            Just(Event::RemovalResisted { reason: "planted".into() }),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        #[test]
        fn no_sequence_of_events_breaks_an_invariant(events in proptest::collection::vec(any_event(), 0..100)) {
            let mut state = State::Creating;
            let mut last_exit: Option<Exit> = None;
            for event in events {
                let before = state.clone();
                match state.clone().after(event.clone()) {
                    Err(refused) => {
                        prop_assert_eq!(refused.from, before.name());
                        continue;
                    }
                    Ok(next) => state = next,
                }
                if let Event::ShimExited { exit } = &event {
                    last_exit = Some(exit.clone());
                }
                // Deleting is never left.
                prop_assert!(before.name() != StateName::Deleting || state.name() == StateName::Deleting);
                // A shown exit is always the reported one, never invented.
                if let Some(shown) = state.exit() {
                    prop_assert_eq!(Some(shown), last_exit.as_ref());
                }
                // A running container has a pid; one that has ended has none.
                match state.name() {
                    StateName::Created if state == State::Prepared => prop_assert!(!state.may_have_shim()),
                    StateName::Created | StateName::Starting | StateName::Running | StateName::Paused => {
                        prop_assert!(state.pid().is_some());
                    }
                    StateName::Stopped | StateName::Backoff | StateName::Failed | StateName::Deleting => {
                        prop_assert!(state.pid().is_none());
                        prop_assert!(!state.may_have_shim());
                    }
                    StateName::Creating | StateName::Stopping | StateName::Recovering => {}
                }
                // A stop is never undone by anything but an exit, an abort, a recovery or a removal.
                if before.name() == StateName::Stopping {
                    prop_assert!(matches!(
                        state.name(),
                        StateName::Stopping
                            | StateName::Stopped
                            | StateName::Failed
                            | StateName::Recovering
                            | StateName::Deleting
                    ));
                }
            }
        }

        #[test]
        fn every_live_state_can_reach_deletion(events in proptest::collection::vec(any_event(), 0..50)) {
            let mut state = State::Creating;
            for event in events {
                if let Ok(next) = state.clone().after(event) {
                    state = next;
                }
            }
            let way_out = [Event::StopRequested, Event::ShimExited { exit: exit(0) }, Event::DeleteRequested];
            for event in way_out.into_iter().chain([Event::Aborted { step: Step::Create, reason: "planted".into() }]) {
                if let Ok(next) = state.clone().after(event) {
                    state = next;
                }
            }
            if state.name() == StateName::Failed {
                state = state.after(Event::DeleteRequested).expect("a failed container can go");
            }
            prop_assert_eq!(state.name(), StateName::Deleting);
        }
    }
}
