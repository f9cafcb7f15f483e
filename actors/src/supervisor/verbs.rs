//! The verbs, in the order of [`crate::messages::api`].

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use actix::fut::ActorFutureExt;
use actix::{ActorContext, Addr, Context, Handler, Message, ResponseActFuture, ResponseFuture, WrapFuture};
use contd_logs::LogFiles;
use contd_protocol::api::{NamespaceSummary, Plan, Target};
use contd_rootfs::PrepareRootfs;
use contd_types::{ApiError, ContainerId, ContainerInfo, ErrorKind, Exit, NamespaceId, State, StateName};
use tokio::sync::watch;
use tracing::info;

use super::down::end_all;
use super::{Phase, Supervisor};
use crate::call::ask;
use crate::random::new_id;
use crate::container::REMOVAL_PATIENCE;
use crate::error::{NamespaceError, StepError};
use crate::locks::Wanted;
use crate::messages::namespace::{
    RouteDelete, RouteKill, RouteStart, RouteStop, RouteUpdate, RouteUpgradeShim, RouteWait, Run,
};
use crate::messages::node::{FindRemovedLog, PrepareRoot, PreviewBundle, StreamLog};
use crate::messages::supervisor::AwaitEnd;
use crate::messages::{
    AwaitRemoval, ContainerPage, CreateContainer, DeleteContainer, DryRunContainer, EventReceiver, FindElsewhere,
    FollowLog, InspectContainer, KillContainer, ListContainers, ListNamespaces, LogStreamReceiver, NodeStatus,
    NodeStatusReport, RECOVERY_WAIT, ReadLog, Reconfigure, RunContainer, ShutDownNode, Shutdown, StartContainer,
    StopContainer, SubscribeEvents, UpdateContainer, UpgradeShim, WaitContainer,
};
use crate::namespace::NamespaceActor;
use crate::pool::WhenBlocked;
use crate::shared::Shared;
use crate::task::make::Goal;
use crate::task::{Subject, undo, with_sources};

/// The namespace's own deadlines are shorter and say more.
const ROUTED: Duration = Duration::MAX;
/// Opening a file, or a look at the journal's cursor.
const SERVICE_TIMEOUT: Duration = Duration::from_secs(10);
/// As for a real bundle.
const PREVIEW_TIMEOUT: Duration = Duration::from_secs(30);

type Routed<T> = ResponseActFuture<Supervisor, Result<T, ApiError>>;

impl Handler<RunContainer> for Supervisor {
    type Result = Routed<ContainerId>;

    fn handle(&mut self, message: RunContainer, _ctx: &mut Self::Context) -> Self::Result {
        self.make(message, Goal::Running)
    }
}

impl Handler<CreateContainer> for Supervisor {
    type Result = Routed<ContainerId>;

    fn handle(&mut self, message: CreateContainer, _ctx: &mut Self::Context) -> Self::Result {
        let CreateContainer { namespace, spec, caller, idempotency_key, progress } = message;
        self.make(RunContainer { namespace, spec, caller, idempotency_key, progress, hold: None }, Goal::Prepared)
    }
}

impl Supervisor {
    /// Admits a container and has it made, as far as its goal goes.
    fn make(&mut self, message: RunContainer, goal: Goal) -> Routed<ContainerId> {
        self.when_ready(move |actor, ctx| {
            let RunContainer { namespace, spec, caller, idempotency_key, progress, hold } = message;
            let run = Run { spec, caller, idempotency_key, progress, hold, goal };
            actor.forward(&namespace, run, ctx)
        })
    }
}

impl Handler<UpdateContainer> for Supervisor {
    type Result = Routed<()>;

    fn handle(&mut self, message: UpdateContainer, _ctx: &mut Self::Context) -> Self::Result {
        let UpdateContainer { target, restart } = message;
        self.routed(target, move |id| RouteUpdate(id, restart))
    }
}

impl Handler<UpgradeShim> for Supervisor {
    type Result = Routed<()>;

    fn handle(&mut self, UpgradeShim { target }: UpgradeShim, _ctx: &mut Self::Context) -> Self::Result {
        self.routed(target, RouteUpgradeShim)
    }
}

impl Handler<DryRunContainer> for Supervisor {
    type Result = Routed<Plan>;

    fn handle(&mut self, message: DryRunContainer, _ctx: &mut Self::Context) -> Self::Result {
        self.when_ready(|actor, _ctx| {
            let shared = Arc::clone(&actor.shared);
            Box::pin(async move { dry_run(shared, message).await })
        })
    }
}

impl Handler<StartContainer> for Supervisor {
    type Result = Routed<()>;

    fn handle(&mut self, StartContainer { target }: StartContainer, _ctx: &mut Self::Context) -> Self::Result {
        self.routed(target, RouteStart)
    }
}

impl Handler<StopContainer> for Supervisor {
    type Result = Routed<(ContainerId, Exit)>;

    fn handle(&mut self, StopContainer { target, timeout }: StopContainer, _ctx: &mut Self::Context) -> Self::Result {
        self.routed_with_id(target, move |id| RouteStop(id, timeout))
    }
}

impl Handler<KillContainer> for Supervisor {
    type Result = Routed<()>;

    fn handle(&mut self, KillContainer { target, signal }: KillContainer, _ctx: &mut Self::Context) -> Self::Result {
        self.routed(target, move |id| RouteKill(id, signal))
    }
}

impl Handler<DeleteContainer> for Supervisor {
    type Result = Routed<()>;

    fn handle(&mut self, message: DeleteContainer, _ctx: &mut Self::Context) -> Self::Result {
        let DeleteContainer { target, force, timeout } = message;
        self.routed(target, move |id| RouteDelete { id, force, timeout })
    }
}

impl Handler<InspectContainer> for Supervisor {
    type Result = Routed<ContainerInfo>;

    fn handle(&mut self, InspectContainer { target }: InspectContainer, _ctx: &mut Self::Context) -> Self::Result {
        self.answer_from_view(move |shared| {
            let id = shared.view.resolve(&target)?;
            let info = shared.view.get(&id).ok_or_else(|| not_found(&target))?;
            Ok((*info).clone())
        })
    }
}

impl Handler<WaitContainer> for Supervisor {
    type Result = Routed<(ContainerId, Exit)>;

    fn handle(&mut self, WaitContainer { target }: WaitContainer, _ctx: &mut Self::Context) -> Self::Result {
        self.routed_with_id(target, RouteWait)
    }
}

impl Handler<AwaitRemoval> for Supervisor {
    type Result = Routed<()>;

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
    type Result = Routed<Vec<(NamespaceId, StateName)>>;

    fn handle(&mut self, FindElsewhere { target }: FindElsewhere, _ctx: &mut Self::Context) -> Self::Result {
        self.answer_from_view(move |shared| Ok(shared.view.elsewhere(&target)))
    }
}

impl Handler<ListContainers> for Supervisor {
    type Result = Routed<ContainerPage>;

    fn handle(&mut self, query: ListContainers, _ctx: &mut Self::Context) -> Self::Result {
        self.answer_from_view(move |shared| Ok(shared.view.list(&query)))
    }
}

impl Handler<ListNamespaces> for Supervisor {
    type Result = Routed<Vec<NamespaceSummary>>;

    fn handle(&mut self, _message: ListNamespaces, _ctx: &mut Self::Context) -> Self::Result {
        self.answer_from_view(|shared| Ok(shared.view.namespaces()))
    }
}

impl Handler<ReadLog> for Supervisor {
    type Result = Routed<LogStreamReceiver>;

    fn handle(&mut self, ReadLog { target, tail }: ReadLog, _ctx: &mut Self::Context) -> Self::Result {
        self.stream_log(target, tail, false)
    }
}

impl Handler<FollowLog> for Supervisor {
    type Result = Routed<LogStreamReceiver>;

    fn handle(&mut self, FollowLog { target, tail }: FollowLog, _ctx: &mut Self::Context) -> Self::Result {
        self.stream_log(target, tail, true)
    }
}

impl Handler<SubscribeEvents> for Supervisor {
    type Result = ResponseFuture<Result<EventReceiver, ApiError>>;

    fn handle(&mut self, message: SubscribeEvents, _ctx: &mut Self::Context) -> Self::Result {
        let shared = Arc::clone(&self.shared);
        Box::pin(async move { shared.event.ask(message, SERVICE_TIMEOUT).await? })
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
    type Result = Routed<u32>;

    fn handle(&mut self, ShutDownNode { longest }: ShutDownNode, _ctx: &mut Self::Context) -> Self::Result {
        self.when_ready(move |actor, _ctx| {
            // First of all: whoever is admitted before is shown, and found below.
            actor.shared.go_down();
            let shared = Arc::clone(&actor.shared);
            let namespaces = actor.namespaces.iter().map(|(name, branch)| (name.clone(), branch.addr.subscribe()));
            Box::pin(end_all(shared, namespaces.collect(), longest))
        })
    }
}

impl Handler<Shutdown> for Supervisor {
    type Result = Routed<()>;

    fn handle(&mut self, _message: Shutdown, _ctx: &mut Self::Context) -> Self::Result {
        info!("shutting down; containers run on");
        self.phase.send_replace(Phase::Closing);
        let mut operations = self.shared.operations.subscribe();
        let drain = self.shared.config.shutdown_drain;
        let drained = async move {
            let idle = operations.wait_for(|count| *count == 0);
            tokio::time::timeout(drain, idle).await.is_ok()
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

impl Supervisor {
    /// Answers from memory.
    fn answer_from_view<T: 'static>(&self, look: impl FnOnce(&Shared) -> Result<T, ApiError> + 'static) -> Routed<T> {
        self.when_ready(|actor, _ctx| Box::pin(std::future::ready(look(&actor.shared))))
    }

    /// Finds the container that is meant and sends a message about it to its namespace's actor.
    fn routed<M, T>(&self, target: Target, message: impl FnOnce(ContainerId) -> M + 'static) -> Routed<T>
    where
        NamespaceActor: Handler<M>,
        M: Message<Result = Result<T, NamespaceError>> + Send + 'static,
        T: Send + 'static,
    {
        self.when_ready(move |actor, ctx| match actor.shared.view.resolve(&target) {
            Ok(id) => actor.forward(&target.namespace, message(id), ctx),
            Err(unknown) => Box::pin(std::future::ready(Err(unknown.into()))),
        })
    }

    /// [`Self::routed`], answered with the id that was meant.
    fn routed_with_id<M, T>(
        &self,
        target: Target,
        message: impl FnOnce(ContainerId) -> M + 'static,
    ) -> Routed<(ContainerId, T)>
    where
        NamespaceActor: Handler<M>,
        M: Message<Result = Result<T, NamespaceError>> + Send + 'static,
        T: Send + 'static,
    {
        self.when_ready(move |actor, ctx| match actor.shared.view.resolve(&target) {
            Ok(id) => {
                let answer = actor.forward(&target.namespace, message(id.clone()), ctx);
                Box::pin(async move { answer.await.map(|exit| (id, exit)) })
            }
            Err(unknown) => Box::pin(std::future::ready(Err(unknown.into()))),
        })
    }

    /// Sends a message to a namespace's actor, once that is there.
    fn forward<M, T>(
        &mut self,
        namespace: &NamespaceId,
        message: M,
        ctx: &mut Context<Self>,
    ) -> ResponseFuture<Result<T, ApiError>>
    where
        NamespaceActor: Handler<M>,
        M: Message<Result = Result<T, NamespaceError>> + Send + 'static,
        T: Send + 'static,
    {
        let mut addr = self.namespace(namespace, ctx);
        let lost = format!("reach namespace {namespace}: its actor is being rebuilt");
        Box::pin(async move {
            let found = tokio::time::timeout(RECOVERY_WAIT, addr.wait_for(Option::is_some)).await;
            let addr: Option<Addr<NamespaceActor>> = found.ok().and_then(Result::ok).and_then(|found| found.clone());
            let Some(addr) = addr else {
                return Err(ApiError::new(ErrorKind::Unavailable, lost).with_hint("retry; see the daemon's log"));
            };
            Ok(ask(&addr, message, ROUTED).await??)
        })
    }

    fn stream_log(&self, target: Target, tail: Option<u64>, is_following: bool) -> Routed<LogStreamReceiver> {
        self.when_ready(move |actor, _ctx| {
            let shared = Arc::clone(&actor.shared);
            Box::pin(async move {
                let found = log_of(&shared, &target);
                let is_in_place = |(container, _): &(watch::Receiver<Arc<ContainerInfo>>, LogFiles)| {
                    container.borrow().state != State::Deleting
                };
                let kept = match found.as_ref().is_ok_and(is_in_place) {
                    true => None,
                    // It may have been put to those of removed containers.
                    false => {
                        let id = shared.view.resolve(&target).ok();
                        let container = id.map_or_else(|| target.container.to_string(), |id| id.to_string());
                        let find = FindRemovedLog { namespace: target.namespace.clone(), container };
                        let kept = shared.log.ask(find, SERVICE_TIMEOUT).await?;
                        kept.map_err(|failure| ApiError::from_error(&failure))?
                    }
                };
                let (container, files) = match kept {
                    Some(files) => (None, files),
                    None => found.map(|(container, files)| (Some(container), files))?,
                };
                let message = StreamLog { namespace: target.namespace, files, tail, container, is_following };
                let answer = shared.log.ask(message, SERVICE_TIMEOUT).await?;
                answer.map_err(|failure| ApiError::from_error(&failure))
            })
        })
    }
}

/// Finds a container and names its log.
fn log_of(shared: &Shared, target: &Target) -> Result<(watch::Receiver<Arc<ContainerInfo>>, LogFiles), ApiError> {
    let id = shared.view.resolve(target)?;
    let watched = shared.view.watch(&id).ok_or_else(|| not_found(target))?;
    if matches!(watched.borrow().state, State::Lingering { .. }) {
        // By its path it may be another container's.
        let message = format!("read the log of container {id}: it is being removed, and its log is gone");
        return Err(ApiError::new(ErrorKind::Conflict, message).with_hint("see what keeps it: contd ps -a"));
    }
    let files = shared.marked_log(Path::new(&watched.borrow().log_path), &id);
    Ok((watched, files))
}

fn not_found(target: &Target) -> ApiError {
    let Target { namespace, container } = target;
    ApiError::new(ErrorKind::NotFound, format!("find container {container} in namespace {namespace}: there is none"))
}

/// Prepares a root under an id of its own, shows what would be run on it, and releases it.
async fn dry_run(shared: Arc<Shared>, message: DryRunContainer) -> Result<Plan, ApiError> {
    let DryRunContainer { namespace, spec, caller } = message;
    spec.validate()?;
    // As much work as a run.
    let place = shared.admission.try_run(&namespace, &shared.settings().limits);
    let _place = place.map_err(|none| NamespaceError::no_place(none, &namespace, &spec.name))?;
    let id = new_id().map_err(|source| NamespaceError::NoRandomness { name: spec.name.clone(), source })?;
    let spec = Arc::new(spec);
    let subject = Subject {
        locks: shared.locks.of(&id),
        shared: Arc::clone(&shared),
        namespace: namespace.clone(),
        id: id.clone(),
        name: spec.name.clone(),
        spec: Arc::clone(&spec),
        caller: caller.map(Arc::new),
    };
    let wanted = Wanted::default();
    let previewed = preview(&subject, &wanted).await;
    wanted.give_up();
    let released = undo::release_root(&subject, WhenBlocked::Queue).await;
    let config_json = previewed.map_err(|failure| ApiError::from_error(&failure))?;
    released.map_err(|leftover| ApiError::from_error(&leftover.source))?;
    let log_path = shared.log_path(&namespace, &spec.name).to_string_lossy().into_owned();
    Ok(Plan { config_json, log_path })
}

async fn preview(subject: &Subject, wanted: &Wanted) -> Result<String, StepError> {
    let (shared, spec) = (&subject.shared, &subject.spec);
    let grant = subject.judge()?;
    let request = PrepareRootfs {
        namespace: subject.namespace.clone(),
        id: subject.id.clone(),
        flist: spec.flist.clone(),
        is_read_only: true,
        layer: subject.layer(),
        is_layer_required: spec.layer.is_some(),
        size_bytes: spec.rootfs_size_bytes.unwrap_or(shared.settings().defaults.rootfs_size_bytes),
        is_size_required: spec.rootfs_size_bytes.is_some(),
        upper_dir: None,
        is_trusted: false,
        grant,
    };
    let prepare = PrepareRoot { locks: Arc::clone(&subject.locks), wanted: wanted.clone(), request, progress: None };
    let prepared = shared.flist.ask(prepare, shared.config.rootfs_timeout).await.map_err(StepError::Call)??;
    let message = PreviewBundle {
        wanted: wanted.clone(),
        namespace: subject.namespace.clone(),
        id: subject.id.clone(),
        spec: with_sources(spec, &prepared.sources),
        root: prepared.root,
        image: prepared.image,
    };
    shared.bundle.ask(message, PREVIEW_TIMEOUT).await.map_err(StepError::Call)?
}

#[cfg(any(test, feature = "testing"))]
mod panics {
    use super::Supervisor;
    use crate::call::tell;
    use crate::messages::namespace::PanicContainer;
    use crate::messages::node::Panic;
    use crate::messages::{PanicIn, PlantPanic};
    use actix::Handler;

    impl Handler<PlantPanic> for Supervisor {
        type Result = ();

        #[expect(clippy::panic, reason = "a test plants it")]
        fn handle(&mut self, PlantPanic(place): PlantPanic, _ctx: &mut Self::Context) {
            let shared = &self.shared;
            match place {
                PanicIn::Flist => drop(shared.flist.get().map(|addr| tell(&addr, Panic))),
                PanicIn::Bundle => drop(shared.bundle.get().map(|addr| tell(&addr, Panic))),
                PanicIn::Log => drop(shared.log.get().map(|addr| tell(&addr, Panic))),
                PanicIn::Event => drop(shared.event.get().map(|addr| tell(&addr, Panic))),
                PanicIn::Namespace(namespace) => {
                    let addr = self.namespaces.get(&namespace).and_then(|branch| branch.addr.borrow().clone());
                    let _told = addr.map(|addr| tell(&addr, Panic));
                }
                PanicIn::Container(target) => {
                    let Ok(id) = shared.view.resolve(&target) else { return };
                    let branch = self.namespaces.get(&target.namespace);
                    let addr = branch.and_then(|branch| branch.addr.borrow().clone());
                    let _told = addr.map(|addr| tell(&addr, PanicContainer(id)));
                }
                PanicIn::Supervisor => panic!("planted"),
            }
        }
    }
}
