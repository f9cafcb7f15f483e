//! The verbs, in the order of [`crate::messages::api`].

use std::fs::OpenOptions;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use actix::fut::ActorFutureExt;
use actix::{ActorContext, Handler, ResponseActFuture, ResponseFuture, WrapFuture};
use contd_protocol::api::{NamespaceSummary, Plan, Target};
use contd_types::{
    ApiError, ContainerId, ContainerInfo, ContainerStats, ErrorKind, ExecInfo, ExecSpec, Exit, NamespaceId,
    ProcessInfo, State, StateName,
};
use tokio::sync::watch;
use tracing::info;

use super::down::end_all;
use super::looks::{dry_run, not_found, processes_of, stats_of, stats_page, stream_log};
use super::{Phase, Supervisor};
use crate::container::{REMOVAL_PATIENCE, ROLLBACK_TIMEOUT};
use crate::containers::{Containers, EXEC_DEADLINE, KILL_DEADLINE, PAUSE_DEADLINE, UPDATE_DEADLINE, Verb};
use crate::messages::container::{
    self, Delete, Exec, Kill, OpenInput, Restart, SetPaused, Start, Stop, Update, Upgrade, Wait,
};
use crate::messages::namespace::{Goal, Run};
use crate::messages::supervisor::AwaitEnd;
use crate::messages::{
    AttachContainer, Attachment, AwaitRemoval, CloseInput, ContainerPage, CreateContainer, DeleteContainer,
    DryRunContainer, EventReceiver, ExecContainer, ExecutedProcess, FindElsewhere, FollowLog, InspectContainer,
    KillContainer, KillExec, ListContainers, ListExecs, ListNamespaces, ListProcesses, ListStats, LogStreamReceiver,
    NodeStatus, NodeStatusReport, PauseContainer, ReadLog, ReadStats, Reconfigure, ResizeContainer, RestartContainer,
    RunContainer, ShutDownNode, Shutdown, StartContainer, StatsPage, StopContainer, SubscribeEvents, UpdateContainer,
    UpgradeShim, WaitContainer, WaitExec,
};
use crate::shared::Shared;

/// For ever, as far as a timer goes.
const NO_DEADLINE: Duration = Duration::MAX;
/// Opening a file, or a look at the journal's cursor.
pub(super) const SERVICE_TIMEOUT: Duration = Duration::from_secs(10);

pub(super) type Answered<T> = ResponseActFuture<Supervisor, Result<T, ApiError>>;

impl Handler<RunContainer> for Supervisor {
    type Result = Answered<ContainerId>;

    fn handle(&mut self, message: RunContainer, _ctx: &mut Self::Context) -> Self::Result {
        self.make(message, Goal::Running)
    }
}

impl Handler<CreateContainer> for Supervisor {
    type Result = Answered<ContainerId>;

    fn handle(&mut self, message: CreateContainer, _ctx: &mut Self::Context) -> Self::Result {
        let CreateContainer { namespace, spec, caller, idempotency_key, progress } = message;
        self.make(RunContainer { namespace, spec, caller, idempotency_key, progress, hold: None }, Goal::Prepared)
    }
}

impl Supervisor {
    /// Answers from memory.
    fn answer_from_view<T: 'static>(&self, look: impl FnOnce(&Shared) -> Result<T, ApiError> + 'static) -> Answered<T> {
        self.when_ready(|actor, _ctx| Box::pin(std::future::ready(look(&actor.shared))))
    }

    fn stream(&self, target: Target, tail: Option<u64>, is_following: bool) -> Answered<LogStreamReceiver> {
        self.when_ready(move |actor, _ctx| {
            let (shared, services) = (Arc::clone(&actor.shared), Arc::clone(&actor.services));
            Box::pin(stream_log(shared, services, target, tail, is_following))
        })
    }

    /// Admits a container and has it made, as far as its goal goes.
    fn make(&mut self, message: RunContainer, goal: Goal) -> Answered<ContainerId> {
        self.when_ready(move |actor, ctx| {
            let RunContainer { namespace, spec, caller, idempotency_key, progress, hold } = message;
            let run = Run { spec, caller, idempotency_key, progress, hold, goal };
            actor.ask_namespace(namespace, run, ctx)
        })
    }
}

impl Handler<UpdateContainer> for Supervisor {
    type Result = Answered<()>;

    fn handle(&mut self, message: UpdateContainer, _ctx: &mut Self::Context) -> Self::Result {
        let UpdateContainer { target, changes } = message;
        self.ask_container(target, |_, _| Verb::new("update", UPDATE_DEADLINE), Update { changes })
    }
}

impl Handler<UpgradeShim> for Supervisor {
    type Result = Answered<()>;

    fn handle(&mut self, UpgradeShim { target }: UpgradeShim, _ctx: &mut Self::Context) -> Self::Result {
        self.ask_container(target, |_, _| Verb::new("upgrade the shim of", KILL_DEADLINE), Upgrade)
    }
}

impl Handler<DryRunContainer> for Supervisor {
    type Result = Answered<Plan>;

    fn handle(&mut self, message: DryRunContainer, _ctx: &mut Self::Context) -> Self::Result {
        self.when_ready(|actor, _ctx| {
            let shared = Arc::clone(&actor.shared);
            let services = Arc::clone(&actor.services);
            Box::pin(dry_run(shared, services, message))
        })
    }
}

impl Handler<StartContainer> for Supervisor {
    type Result = Answered<()>;

    fn handle(&mut self, StartContainer { target }: StartContainer, _ctx: &mut Self::Context) -> Self::Result {
        self.ask_container(target, |containers, _| Verb::new("start", containers.make_deadline()), Start)
    }
}

impl Handler<StopContainer> for Supervisor {
    type Result = Answered<(ContainerId, Exit)>;

    fn handle(&mut self, StopContainer { target, timeout }: StopContainer, _ctx: &mut Self::Context) -> Self::Result {
        let verb =
            move |containers: &Containers, id: &ContainerId| Verb::new("stop", containers.stop_deadline(id, timeout));
        self.ask_container_and_name(target, verb, Stop { timeout })
    }
}

impl Handler<RestartContainer> for Supervisor {
    type Result = Answered<()>;

    fn handle(&mut self, message: RestartContainer, _ctx: &mut Self::Context) -> Self::Result {
        let RestartContainer { target, timeout } = message;
        let verb = move |containers: &Containers, id: &ContainerId| {
            let deadline = containers.stop_deadline(id, timeout).saturating_add(containers.make_deadline());
            Verb::new("restart", deadline)
        };
        self.ask_container(target, verb, Restart { timeout })
    }
}

impl Handler<PauseContainer> for Supervisor {
    type Result = Answered<()>;

    fn handle(
        &mut self,
        PauseContainer { target, is_paused }: PauseContainer,
        _ctx: &mut Self::Context,
    ) -> Self::Result {
        let name = if is_paused { "pause" } else { "unpause" };
        self.ask_container(target, move |_, _| Verb::new(name, PAUSE_DEADLINE), SetPaused { is_paused })
    }
}

impl Handler<KillContainer> for Supervisor {
    type Result = Answered<()>;

    fn handle(&mut self, KillContainer { target, signal }: KillContainer, _ctx: &mut Self::Context) -> Self::Result {
        self.ask_container(target, |_, _| Verb::new("signal", KILL_DEADLINE), Kill { signal })
    }
}

impl Handler<AttachContainer> for Supervisor {
    type Result = Answered<Attachment>;

    fn handle(&mut self, AttachContainer { target }: AttachContainer, _ctx: &mut Self::Context) -> Self::Result {
        let verb = |_: &Containers, _: &ContainerId| Verb::new("attach to", KILL_DEADLINE);
        let answer = self.ask_container_and_name(target, verb, OpenInput);
        Box::pin(answer.map(move |answer, actor: &mut Self, _ctx| {
            let (container, input) = answer?;
            let has_terminal = actor.shared.view.get(&container).is_some_and(|info| info.spec.has_terminal);
            Ok(Attachment { container, has_terminal, input })
        }))
    }
}

impl Handler<CloseInput> for Supervisor {
    type Result = Answered<()>;

    fn handle(&mut self, CloseInput { target }: CloseInput, _ctx: &mut Self::Context) -> Self::Result {
        let verb = |_: &Containers, _: &ContainerId| Verb::new("close the input of", KILL_DEADLINE);
        self.ask_container(target, verb, container::CloseInput)
    }
}

impl Handler<ResizeContainer> for Supervisor {
    type Result = Answered<()>;

    fn handle(&mut self, ResizeContainer { target, size }: ResizeContainer, _ctx: &mut Self::Context) -> Self::Result {
        let verb = |_: &Containers, _: &ContainerId| Verb::new("resize the terminal of", KILL_DEADLINE);
        self.ask_container(target, verb, container::Resize { size })
    }
}

impl Handler<ExecContainer> for Supervisor {
    type Result = Answered<ExecutedProcess>;

    fn handle(&mut self, message: ExecContainer, _ctx: &mut Self::Context) -> Self::Result {
        let ExecContainer { target, exec: spec, stdio } = message;
        let prepared = prepare_exec(&spec, stdio).and_then(|stdio| {
            let failed = |error| ApiError::new(ErrorKind::Internal, format!("execute a process: {error}"));
            Ok((crate::random::exec_id().map_err(failed)?, stdio))
        });
        let (exec, stdio) = match prepared {
            Ok(prepared) => prepared,
            Err(refused) => return Box::pin(actix::fut::err(refused)),
        };
        let verb = |_: &Containers, _: &ContainerId| Verb::new("execute a process in", EXEC_DEADLINE);
        let answer = self.ask_container_and_name(target, verb, Exec { exec, spec, stdio });
        Box::pin(answer.map(move |answer, _actor, _ctx| {
            let (container, contd_shim_client::Executed { pid, pidfd, terminal }) = answer?;
            Ok(ExecutedProcess { container, exec, pid, pidfd, terminal })
        }))
    }
}

/// Checks what a process is given, and opens what it is not.
fn prepare_exec(spec: &ExecSpec, stdio: Option<[OwnedFd; 3]>) -> Result<Option<[OwnedFd; 3]>, ApiError> {
    spec.validate().map_err(|error| ApiError::from_error(&error))?;
    match (spec.terminal, stdio) {
        (Some(_), None) => Ok(None),
        (Some(_), Some(_)) => {
            let message =
                "execute a process in a container: it has a terminal of its own, and no descriptors of its caller's";
            Err(ApiError::new(ErrorKind::InvalidArgument, message))
        }
        (None, Some(stdio)) => Ok(Some(stdio)),
        (None, None) => {
            let open = || OpenOptions::new().read(true).write(true).open("/dev/null").map(OwnedFd::from);
            let opened = open().and_then(|stdin| Ok([stdin, open()?, open()?]));
            let failed = |error| ApiError::new(ErrorKind::Internal, format!("open /dev/null for a process: {error}"));
            opened.map(Some).map_err(failed)
        }
    }
}

impl Handler<WaitExec> for Supervisor {
    type Result = Answered<Exit>;

    fn handle(&mut self, WaitExec { target, exec }: WaitExec, _ctx: &mut Self::Context) -> Self::Result {
        let verb = |_: &Containers, _: &ContainerId| Verb {
            name: "wait for a process in",
            deadline: NO_DEADLINE,
            is_forced: false,
        };
        self.ask_container(target, verb, container::WaitExec { exec })
    }
}

impl Handler<KillExec> for Supervisor {
    type Result = Answered<()>;

    fn handle(&mut self, KillExec { target, exec, signal }: KillExec, _ctx: &mut Self::Context) -> Self::Result {
        let verb = |_: &Containers, _: &ContainerId| Verb::new("signal a process in", KILL_DEADLINE);
        self.ask_container(target, verb, container::KillExec { exec, signal })
    }
}

impl Handler<ListExecs> for Supervisor {
    type Result = Answered<Vec<ExecInfo>>;

    fn handle(&mut self, ListExecs { target }: ListExecs, _ctx: &mut Self::Context) -> Self::Result {
        let verb = |_: &Containers, _: &ContainerId| Verb::new("list the processes in", KILL_DEADLINE);
        self.ask_container(target, verb, container::ListExecs)
    }
}

impl Handler<DeleteContainer> for Supervisor {
    type Result = Answered<()>;

    fn handle(&mut self, message: DeleteContainer, _ctx: &mut Self::Context) -> Self::Result {
        let DeleteContainer { target, force, timeout } = message;
        let verb = move |containers: &Containers, id: &ContainerId| {
            let deadline = containers.stop_deadline(id, timeout).saturating_add(ROLLBACK_TIMEOUT);
            Verb { name: "delete", deadline, is_forced: force }
        };
        self.ask_container(target, verb, Delete { force, timeout })
    }
}

impl Handler<InspectContainer> for Supervisor {
    type Result = Answered<ContainerInfo>;

    fn handle(&mut self, InspectContainer { target }: InspectContainer, _ctx: &mut Self::Context) -> Self::Result {
        self.answer_from_view(move |shared| {
            let id = shared.view.resolve(&target)?;
            let info = shared.view.get(&id).ok_or_else(|| not_found(&target))?;
            Ok((*info).clone())
        })
    }
}

impl Handler<WaitContainer> for Supervisor {
    type Result = Answered<(ContainerId, Exit)>;

    fn handle(&mut self, WaitContainer { target }: WaitContainer, _ctx: &mut Self::Context) -> Self::Result {
        let verb = |_: &Containers, _: &ContainerId| Verb { name: "wait for", deadline: NO_DEADLINE, is_forced: true };
        self.ask_container_and_name(target, verb, Wait)
    }
}

impl Handler<AwaitRemoval> for Supervisor {
    type Result = Answered<()>;

    fn handle(&mut self, AwaitRemoval { target }: AwaitRemoval, _ctx: &mut Self::Context) -> Self::Result {
        self.when_ready(move |actor, _ctx| {
            let view = &actor.shared.view;
            let watched = view.resolve(&target).ok().and_then(|id| view.watch(&id));
            Box::pin(async move {
                let Some(mut watched) = watched else { return Ok(()) };
                let is_on_its_way = |info: &ContainerInfo| {
                    info.spec.is_auto_removed && matches!(info.state, State::Stopped { .. } | State::Deleting)
                };
                // The channel ends when the container is gone. Whoever is attached and does not read keeps it longer.
                let removed = watched.wait_for(|info| !is_on_its_way(info));
                let _removed_or_late = tokio::time::timeout(REMOVAL_PATIENCE, removed).await;
                Ok(())
            })
        })
    }
}

impl Handler<FindElsewhere> for Supervisor {
    type Result = Answered<Vec<(NamespaceId, StateName)>>;

    fn handle(&mut self, FindElsewhere { target }: FindElsewhere, _ctx: &mut Self::Context) -> Self::Result {
        self.answer_from_view(move |shared| Ok(shared.view.elsewhere(&target)))
    }
}

impl Handler<ListContainers> for Supervisor {
    type Result = Answered<ContainerPage>;

    fn handle(&mut self, query: ListContainers, _ctx: &mut Self::Context) -> Self::Result {
        self.answer_from_view(move |shared| Ok(shared.view.list(&query)))
    }
}

impl Handler<ReadStats> for Supervisor {
    type Result = Answered<ContainerStats>;

    fn handle(&mut self, ReadStats { target }: ReadStats, _ctx: &mut Self::Context) -> Self::Result {
        self.when_ready(move |actor, _ctx| Box::pin(stats_of(Arc::clone(&actor.shared), target)))
    }
}

impl Handler<ListStats> for Supervisor {
    type Result = Answered<StatsPage>;

    fn handle(&mut self, query: ListStats, _ctx: &mut Self::Context) -> Self::Result {
        self.when_ready(move |actor, _ctx| Box::pin(stats_page(Arc::clone(&actor.shared), query)))
    }
}

impl Handler<ListProcesses> for Supervisor {
    type Result = Answered<Vec<ProcessInfo>>;

    fn handle(&mut self, ListProcesses { target }: ListProcesses, _ctx: &mut Self::Context) -> Self::Result {
        self.when_ready(move |actor, _ctx| Box::pin(processes_of(Arc::clone(&actor.shared), target)))
    }
}

impl Handler<ListNamespaces> for Supervisor {
    type Result = Answered<Vec<NamespaceSummary>>;

    fn handle(&mut self, _message: ListNamespaces, _ctx: &mut Self::Context) -> Self::Result {
        self.answer_from_view(|shared| Ok(shared.view.namespaces()))
    }
}

impl Handler<ReadLog> for Supervisor {
    type Result = Answered<LogStreamReceiver>;

    fn handle(&mut self, ReadLog { target, tail }: ReadLog, _ctx: &mut Self::Context) -> Self::Result {
        self.stream(target, tail, false)
    }
}

impl Handler<FollowLog> for Supervisor {
    type Result = Answered<LogStreamReceiver>;

    fn handle(&mut self, FollowLog { target, tail }: FollowLog, _ctx: &mut Self::Context) -> Self::Result {
        self.stream(target, tail, true)
    }
}

impl Handler<SubscribeEvents> for Supervisor {
    type Result = ResponseFuture<Result<EventReceiver, ApiError>>;

    fn handle(&mut self, message: SubscribeEvents, _ctx: &mut Self::Context) -> Self::Result {
        let services = Arc::clone(&self.services);
        Box::pin(async move { services.event.ask(message, SERVICE_TIMEOUT).await? })
    }
}

impl Handler<NodeStatus> for Supervisor {
    type Result = Result<NodeStatusReport, ApiError>;

    fn handle(&mut self, _message: NodeStatus, _ctx: &mut Self::Context) -> Self::Result {
        let census = self.shared.view.census();
        Ok(NodeStatusReport {
            containers: census.containers,
            running: census.running,
            recovering: census.recovering,
            runs_in_flight: u32::try_from(self.shared.admission.on_the_way()).unwrap_or(u32::MAX),
            records_set_aside: self.records_set_aside,
            actors_rebuilt: self.shared.rebuilt.load(Ordering::Relaxed),
        })
    }
}

impl Handler<Reconfigure> for Supervisor {
    type Result = ();

    fn handle(&mut self, Reconfigure(settings): Reconfigure, _ctx: &mut Self::Context) {
        self.shared.set_settings(settings);
    }
}

impl Handler<ShutDownNode> for Supervisor {
    type Result = Answered<u32>;

    fn handle(&mut self, ShutDownNode { longest }: ShutDownNode, _ctx: &mut Self::Context) -> Self::Result {
        self.when_ready(move |actor, _ctx| {
            // First of all: a run that was admitted before is shown, and found below.
            actor.shared.go_down();
            let (shared, services) = (Arc::clone(&actor.shared), Arc::clone(&actor.services));
            Box::pin(end_all(shared, services, Arc::clone(&actor.containers), longest))
        })
    }
}

impl Handler<Shutdown> for Supervisor {
    type Result = Answered<()>;

    fn handle(&mut self, _message: Shutdown, _ctx: &mut Self::Context) -> Self::Result {
        info!("shutting down; containers run on");
        self.phase.send_replace(Phase::Closing);
        let mut operations = self.shared.operations.subscribe();
        let drain = self.shared.config.shutdown_drain;
        let records = self.shared.records.clone();
        let drained = async move {
            let idle = operations.wait_for(|count| *count == 0);
            let is_drained = tokio::time::timeout(drain, idle).await.is_ok();
            // Actors may still be at work when the next node has the records.
            let is_written = tokio::time::timeout(drain, records.end()).await.is_ok();
            is_drained && is_written
        };
        Box::pin(drained.into_actor(self).map(|is_drained, actor, ctx| {
            if !is_drained {
                info!("work in flight is left to the next start, which takes it back or finishes it");
            }
            // The children end with their lifeline.
            actor.lifeline = watch::channel(()).0;
            ctx.stop();
            Ok(())
        }))
    }
}

impl Handler<AwaitEnd> for Supervisor {
    type Result = ResponseActFuture<Self, ()>;

    fn handle(&mut self, _message: AwaitEnd, _ctx: &mut Self::Context) -> Self::Result {
        Box::pin(std::future::pending().into_actor(self))
    }
}

#[cfg(any(test, feature = "testing"))]
mod panics {
    use super::Supervisor;
    use crate::call::tell;
    use crate::messages::{PanicIn, PlantPanic};
    use crate::supervision::Panic;
    use actix::Handler;

    impl Handler<PlantPanic> for Supervisor {
        type Result = ();

        #[expect(clippy::panic, reason = "a test plants it")]
        fn handle(&mut self, PlantPanic(place): PlantPanic, _ctx: &mut Self::Context) {
            let services = &self.services;
            match place {
                PanicIn::Flist => drop(services.flist.get().map(|addr| tell(&addr, Panic))),
                PanicIn::Bundle => drop(services.bundle.get().map(|addr| tell(&addr, Panic))),
                PanicIn::Log => drop(services.log.get().map(|addr| tell(&addr, Panic))),
                PanicIn::Event => drop(services.event.get().map(|addr| tell(&addr, Panic))),
                PanicIn::Namespace(namespace) => drop(self.namespaces.get(&namespace).map(|addr| tell(&addr, Panic))),
                PanicIn::Container(target) => {
                    let found = self.shared.view.resolve(&target).ok();
                    let addr = found.and_then(|id| self.containers.addresses.get(&id));
                    let _told = addr.map(|addr| tell(&addr, Panic));
                }
                PanicIn::Supervisor => panic!("planted"),
            }
        }
    }
}
