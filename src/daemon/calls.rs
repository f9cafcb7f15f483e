//! Each request of the API, carried to the actors and back.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use actix::Addr;
use contd_actors::messages::{
    AttachContainer, Attachment, AwaitRemoval, CloseInput, CreateContainer, DeleteContainer, DryRunContainer,
    EventItem, ExecContainer, ExecutedProcess, FollowLog, InspectContainer, KillContainer, KillExec, ListContainers,
    ListExecs, ListNamespaces, ListProcesses, ListStats, LogStreamReceiver, PauseContainer, ReadLog, ReadStats,
    ResizeContainer, RestartContainer, RunContainer, ShutDownNode, StartContainer, StatsPage, StopContainer,
    SubscribeEvents, UpdateContainer, UpgradeShim, WaitContainer, WaitExec,
};
use contd_actors::{Supervisor, ask_api};
use contd_protocol::CodecError;
use contd_protocol::api::{
    ExecRequest, Item, MAX_IDEMPOTENCY_KEY_BYTES, MAX_PROCESSES, Request, Response, RunRequest, Target, VersionInfo,
};
use contd_rootfs::FetchProgress;
use contd_types::{
    ApiError, Caller, Changes, ContainerId, ContainerRef, ContainerSpec, ErrorKind, ExecId, NamespaceId, Timestamp,
};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;
use tracing::info;

use crate::daemon::access::{Peer, Rights, Scope, describe};
use crate::daemon::connection::ItemSender;
use crate::daemon::exec_stream::{self, Inputs};
use crate::daemon::hints::About;
use crate::daemon::leaving::Leaving;
use crate::daemon::places::{Kind, Places};
use contd_node::{Config, FlistPlaces, Limits, Rules};

/// For questions that are answered from memory: the actors need microseconds; more means that they are stuck.
pub(crate) const QUERY_DEADLINE: Duration = Duration::from_secs(15);
/// For `Run` and `DryRun`: fetching a large flist over a slow link, then the runtime; each has its own deadline inside.
const RUN_DEADLINE: Duration = Duration::from_secs(15 * 60);
/// For starts, signals and removals, beyond the time that the container itself is given.
pub(crate) const CHANGE_DEADLINE: Duration = Duration::from_secs(120);
/// For what lasts as long as a container does; the caller ends it by cancelling or hanging up. About ten years.
pub(crate) const NO_DEADLINE: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// Pieces of progress that may wait for the caller; more are dropped.
const PROGRESS_QUEUED: usize = 4;

/// The part of the configuration that the API needs.
#[derive(Debug)]
pub(crate) struct ApiSettings {
    /// The rules for callers.
    pub(crate) rules: Arc<Rules>,
    /// How much of it.
    pub(crate) limits: Limits,
}

impl ApiSettings {
    /// Takes them from a node and its configuration.
    pub(crate) fn of(rules: Arc<Rules>, config: &Config) -> Arc<Self> {
        Arc::new(Self { rules, limits: config.limits.clone() })
    }
}

/// The state that all connections share.
#[derive(Debug)]
pub(crate) struct Backend {
    /// The actors.
    pub(crate) supervisor: Addr<Supervisor>,
    /// The settings that may change while the daemon runs.
    pub(crate) settings: watch::Sender<Arc<ApiSettings>>,
    /// The daemon's own user.
    pub(crate) own_uid: u32,
    /// The places of each user at the API.
    pub(crate) places: Arc<Places>,
    /// The daemon's name and version, for hellos.
    pub(crate) agent: String,
    /// When the daemon started.
    pub(crate) started_at: Timestamp,
    /// The OCI runtime in use.
    pub(crate) runtime: String,
    /// Where flists are kept and served.
    pub(crate) flists: FlistPlaces,
    /// Where the input of processes goes that travels in frames.
    pub(crate) inputs: Inputs,
    /// Whether the daemon leaves.
    pub(crate) leaving: watch::Sender<Option<Leaving>>,
}

impl Backend {
    /// Waits until the daemon leaves; then what has no end of its own has this one.
    pub(crate) async fn left(&self) -> ApiError {
        let mut leaving = self.leaving.subscribe();
        match leaving.wait_for(Option::is_some).await.map(|leaving| *leaving) {
            Ok(Some(leaving)) => leaving.to_error(),
            // We hold the sender.
            Ok(None) | Err(_) => std::future::pending().await,
        }
    }

    /// Says so when it is the daemon's leaving that kept a call from its answer.
    fn or_left(&self, answer: Answer) -> Answer {
        match (answer, *self.leaving.borrow()) {
            (Err(error), Some(leaving)) if error.kind == ErrorKind::Unavailable => {
                let mut said = leaving.to_error();
                if error.message != said.message {
                    said.causes.push(error.chain());
                }
                Err(said)
            }
            (answer, _) => answer,
        }
    }
}

/// Tells what a request is counted as.
pub(crate) fn kind_of(request: &Request) -> Kind {
    match request {
        Request::Events { .. }
        | Request::Wait { .. }
        | Request::WaitExec { .. }
        | Request::ExecStream(_)
        | Request::Logs { is_following: true, .. } => Kind::Follower,
        Request::Run(run) if run.is_attached => Kind::Follower,
        Request::Make(make) if make.is_attached => Kind::Follower,
        Request::DryRun(_) => Kind::DryRun,
        _ => Kind::Call,
    }
}

type Answer = Result<Response, ApiError>;

/// An answer with the descriptors that go with it.
#[derive(Debug)]
pub(crate) struct Answered {
    pub(crate) response: Response,
    pub(crate) fds: Vec<OwnedFd>,
}

impl From<Response> for Answered {
    fn from(response: Response) -> Self {
        Self { response, fds: Vec::new() }
    }
}

/// Carries out one request; the hint of an error is complete then.
pub(crate) async fn serve(
    backend: &Arc<Backend>,
    peer: &Peer,
    rights: &Rights,
    request: Request,
    fds: Vec<OwnedFd>,
    items: ItemSender,
) -> Result<Answered, ApiError> {
    let about = About::of(&request);
    match carry_out(backend, peer, rights, request, fds, items).await {
        Ok(response) => Ok(response),
        Err(error) => Err(about.complete(&backend.supervisor, rights, error).await),
    }
}

/// Checks the rights, then carries out, and writes the audit line of what changes something.
async fn carry_out(
    backend: &Arc<Backend>,
    peer: &Peer,
    rights: &Rights,
    mut request: Request,
    fds: Vec<OwnedFd>,
    items: ItemSender,
) -> Result<Answered, ApiError> {
    let (verb, scope, is_mutation) = describe(&request);
    // The right to type comes with the process; a line for each key would tell nobody anything.
    let is_unaudited =
        matches!(request, Request::ExecInput { .. } | Request::ResizeExec { .. } | Request::Resize { .. });
    let is_audited = is_mutation && !is_unaudited;
    if !is_audited {
        rights.check(&request)?;
        return backend.or_left(answer(backend, request, None, items).await).map(Answered::from);
    }
    let namespace = if let Scope::One(namespace) = scope { namespace.to_string() } else { String::new() };
    let subject = subject(&request);
    let begin = Instant::now();
    let (rule, result) = match permit(backend, rights, &mut request).await {
        Ok(rule) => {
            let caller = rights.limited().cloned();
            let answered = match request {
                Request::Exec(request) => execute(backend, *request, fds).await,
                Request::Attach { target } => open_input(backend, target).await,
                request => backend.or_left(answer(backend, request, caller, items).await).map(Answered::from),
            };
            (rule, answered)
        }
        Err(refusal) => (String::new(), Err(refusal)),
    };
    let outcome = result.as_ref().map_or_else(|error| error.kind.to_string(), |_| "ok".to_owned());
    let ms = u64::try_from(begin.elapsed().as_millis()).unwrap_or(u64::MAX);
    info!(target: "contd::audit", uid = peer.uid, gid = peer.gid, peer_pid = peer.pid, verb, namespace, subject, rule, outcome, ms, "call");
    result
}

/// Checks the verb, and for a caller with limited rights all that a container may have which the request makes, starts or
/// changes: by the rules as they are now. Names the rule.
async fn permit(backend: &Backend, rights: &Rights, request: &mut Request) -> Result<String, ApiError> {
    let rule = rights.check(request)?;
    let Some(caller) = rights.limited() else { return Ok(rule) };
    let settings = Arc::clone(&backend.settings.borrow());
    let judged = match request {
        Request::Run(run) | Request::Create(run) | Request::DryRun(run) => {
            settings.rules.fit(caller, &run.namespace, &mut run.spec)?
        }
        Request::Start { target } | Request::Restart { target, .. } | Request::Update { target, .. } => {
            // Also for a container of another user: who starts it has what it has.
            let message = InspectContainer { target: target.clone() };
            let info = ask_api(&backend.supervisor, message, QUERY_DEADLINE).await?;
            settings.rules.judge(caller, &target.namespace, &info.spec)?
        }
        Request::Change { target, changes } => {
            let changes = changes.read_all().map_err(|error| unreadable_changes(&error))?;
            if changes.has_limits() {
                let message = format!("update container {}: its limits are root's to change", target.container);
                return Err(ApiError::new(ErrorKind::PermissionDenied, message)
                    .with_hint("remove it and run it with other limits, up to those of your rule"));
            }
            let message = InspectContainer { target: target.clone() };
            let info = ask_api(&backend.supervisor, message, QUERY_DEADLINE).await?;
            settings.rules.judge(caller, &target.namespace, &info.spec)?
        }
        // The spec is what is judged, not a text.
        Request::Make(_) => return Err(not_plain()),
        // They end something, look, or have no more than the container has.
        Request::Exec(_)
        | Request::ExecStream(_)
        | Request::ExecInput { .. }
        | Request::ResizeExec { .. }
        | Request::WaitExec { .. }
        | Request::KillExec { .. }
        | Request::ListExecs { .. }
        | Request::Stop { .. }
        | Request::Attach { .. }
        | Request::CloseInput { .. }
        | Request::Resize { .. }
        | Request::Pause { .. }
        | Request::Unpause { .. }
        | Request::Stats { .. }
        | Request::ListStats { .. }
        | Request::Processes { .. }
        | Request::Kill { .. }
        | Request::Delete { .. }
        | Request::UpgradeShim { .. }
        | Request::Version
        | Request::Inspect { .. }
        | Request::List { .. }
        | Request::ListNamespaces
        | Request::Wait { .. }
        | Request::Logs { .. }
        | Request::Events { .. }
        | Request::FlistServers
        | Request::CacheUsage
        // Root's, by its scope.
        | Request::ShutDown { .. } => return Ok(rule),
    };
    Ok(judged.rule)
}

/// The connection puts every request into its plain form first.
fn not_plain() -> ApiError {
    ApiError::new(ErrorKind::Internal, "make a container: its spec was not read")
}

fn unreadable_changes(error: &CodecError) -> ApiError {
    ApiError::new(ErrorKind::InvalidArgument, format!("update a container: {}", contd_types::one_line(error)))
        .with_hint("use a client of the daemon's version")
}

/// Names the container that a request is about, for the audit line.
fn subject(request: &Request) -> String {
    match request {
        Request::Run(run) | Request::Create(run) | Request::DryRun(run) => run.spec.name.to_string(),
        other => other.target().map_or_else(String::new, |target| target.container.to_string()),
    }
}

async fn answer(backend: &Arc<Backend>, request: Request, caller: Option<Caller>, items: ItemSender) -> Answer {
    let node = &backend.supervisor;
    match request {
        Request::Version => Ok(Response::Version(version(backend))),
        Request::Run(run) => run_container(backend, *run, caller, items).await,
        Request::Make(_) => Err(not_plain()),
        Request::DryRun(run) => {
            let message = DryRunContainer { namespace: run.namespace, spec: run.spec, caller };
            Ok(Response::Plan(Box::new(ask_api(node, message, RUN_DEADLINE).await?)))
        }
        Request::Create(run) => create_container(node, *run, caller, items).await,
        Request::Update { target, restart } => {
            let changes = Changes { restart, ..Changes::default() };
            ask_api(node, UpdateContainer { target, changes }, CHANGE_DEADLINE).await?;
            Ok(Response::Done)
        }
        Request::Change { target, changes } => {
            let changes = changes.read_all().map_err(|error| unreadable_changes(&error))?;
            ask_api(node, UpdateContainer { target, changes }, CHANGE_DEADLINE).await?;
            Ok(Response::Done)
        }
        Request::UpgradeShim { target } => {
            ask_api(node, UpgradeShim { target }, CHANGE_DEADLINE).await?;
            Ok(Response::Done)
        }
        Request::Start { target } => {
            ask_api(node, StartContainer { target }, CHANGE_DEADLINE).await?;
            Ok(Response::Done)
        }
        Request::Stop { target, timeout } => {
            // The container's own time-out may be longer than any deadline of ours; the actors bound it.
            let namespace = target.namespace.clone();
            let (id, exit) = ask_api(node, StopContainer { target, timeout }, NO_DEADLINE).await?;
            until_removed(backend, namespace, &id).await;
            Ok(Response::Exited { id, exit })
        }
        Request::Restart { target, timeout } => {
            // As for a stop, the actors bound it.
            ask_api(node, RestartContainer { target, timeout }, NO_DEADLINE).await?;
            Ok(Response::Done)
        }
        Request::Pause { target } => {
            ask_api(node, PauseContainer { target, is_paused: true }, CHANGE_DEADLINE).await?;
            Ok(Response::Done)
        }
        Request::Unpause { target } => {
            ask_api(node, PauseContainer { target, is_paused: false }, CHANGE_DEADLINE).await?;
            Ok(Response::Done)
        }
        Request::Kill { target, signal } => {
            ask_api(node, KillContainer { target, signal }, CHANGE_DEADLINE).await?;
            Ok(Response::Done)
        }
        Request::Delete { target, force, timeout } => {
            ask_api(node, DeleteContainer { target, force, timeout }, NO_DEADLINE).await?;
            Ok(Response::Done)
        }
        Request::Inspect { target } => {
            let info = ask_api(node, InspectContainer { target }, QUERY_DEADLINE).await?;
            Ok(Response::Info(Box::new(info)))
        }
        Request::List { namespace, after, limit } => {
            let page = ask_api(node, ListContainers { namespace, after, limit }, QUERY_DEADLINE).await?;
            Ok(Response::Page { containers: page.containers, has_more: page.has_more })
        }
        Request::Stats { target } => {
            let stats = vec![ask_api(node, ReadStats { target }, QUERY_DEADLINE).await?];
            Ok(Response::Stats { stats, next: None })
        }
        Request::ListStats { namespace, after } => {
            let StatsPage { stats, next } = ask_api(node, ListStats { namespace, after }, QUERY_DEADLINE).await?;
            Ok(Response::Stats { stats, next })
        }
        Request::Processes { target } => {
            let mut processes = ask_api(node, ListProcesses { target }, QUERY_DEADLINE).await?;
            processes.truncate(MAX_PROCESSES);
            Ok(Response::Processes(processes))
        }
        Request::ListNamespaces => Ok(Response::Namespaces(ask_api(node, ListNamespaces, QUERY_DEADLINE).await?)),
        Request::FlistServers => looked(backend, |places| Ok(Response::FlistServers(places.servers()?))).await,
        Request::CacheUsage => looked(backend, |places| Ok(Response::Cache(Box::new(places.cache())))).await,
        Request::Wait { target } => wait(backend, target, items).await,
        Request::WaitExec { target, exec } => wait_exec(backend, target, exec, items).await,
        Request::KillExec { target, exec, signal } => {
            ask_api(node, KillExec { target, exec, signal }, CHANGE_DEADLINE).await?;
            Ok(Response::Done)
        }
        Request::ListExecs { target } => {
            Ok(Response::Execs(ask_api(node, ListExecs { target }, QUERY_DEADLINE).await?))
        }
        Request::ExecStream(request) => exec_stream::serve(backend, *request, items).await,
        Request::ExecInput { target, exec, content, is_last } => {
            exec_stream::write(backend, target, exec, content, is_last).await
        }
        Request::ResizeExec { target, exec, size } => exec_stream::resize(backend, target, exec, size).await,
        Request::Exec(request) => Ok(execute(backend, *request, Vec::new()).await?.response),
        Request::Attach { target } => Ok(open_input(backend, target).await?.response),
        Request::CloseInput { target } => {
            ask_api(node, CloseInput { target }, CHANGE_DEADLINE).await?;
            Ok(Response::Done)
        }
        Request::Resize { target, size } => {
            ask_api(node, ResizeContainer { target, size }, CHANGE_DEADLINE).await?;
            Ok(Response::Done)
        }
        Request::Logs { target, is_following: true, tail } => {
            let log = ask_api(node, FollowLog { target, tail }, QUERY_DEADLINE).await?;
            let mut items = items;
            if items.send(Item::Follows).await.is_err() {
                return Ok(Response::Done);
            }
            stream_log(backend, log, items).await?;
            Ok(Response::Done)
        }
        Request::Logs { target, is_following: false, tail } => {
            let log = ask_api(node, ReadLog { target, tail }, QUERY_DEADLINE).await?;
            stream_log(backend, log, items).await?;
            Ok(Response::Done)
        }
        Request::ShutDown { longest } => {
            // The actors bound it.
            let ended = ask_api(node, ShutDownNode { longest }, NO_DEADLINE).await?;
            Ok(Response::ShutDown { ended })
        }
        Request::Events { from, namespace } => stream_events(backend, from, namespace, items).await,
    }
}

/// Looks at files, which may take a while: not on a thread that serves others.
async fn looked(
    backend: &Backend,
    look: impl FnOnce(&FlistPlaces) -> Result<Response, ApiError> + Send + 'static,
) -> Answer {
    let places = backend.flists.clone();
    let looked = tokio::task::spawn_blocking(move || look(&places)).await;
    looked
        .map_err(|_panicked| ApiError::new(ErrorKind::Internal, "look at the flists of this node: the task was lost"))?
}

fn version(backend: &Backend) -> VersionInfo {
    VersionInfo {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        protocol: contd_protocol::api::VERSIONS.max,
        pid: std::process::id().cast_signed(),
        started_at: backend.started_at,
        runtime: backend.runtime.clone(),
    }
}

async fn run_container(
    backend: &Backend,
    request: RunRequest,
    caller: Option<Caller>,
    mut items: ItemSender,
) -> Answer {
    let node = &backend.supervisor;
    let RunRequest { namespace, spec, idempotency_key, is_attached } = request;
    check_key(idempotency_key.as_deref(), &spec)?;
    // With a key, others may have joined it.
    let is_callers_own = idempotency_key.is_none();
    let (progress, heard) = mpsc::channel(PROGRESS_QUEUED);
    // Held while the caller is attached, so that an auto-removed container is not gone before its output was sent.
    let (hold, held) = oneshot::channel::<()>();
    let message = RunContainer {
        namespace: namespace.clone(),
        spec,
        caller,
        idempotency_key,
        progress: Some(progress),
        hold: is_attached.then_some(held),
    };
    let id = with_progress(ask_api(node, message, RUN_DEADLINE), heard, &mut items).await?;
    if !is_attached {
        return Ok(Response::Created { id });
    }
    let target = Target { namespace: namespace.clone(), container: ContainerRef::from(&id) };
    if items.send(Item::Started { id: id.clone() }).await.is_err() {
        return if is_callers_own { give_up(node, target).await } else { Ok(Response::Created { id }) };
    }
    let attached = attach(backend, &id, target, items).await;
    drop(hold);
    if matches!(attached, Ok(Response::Exited { .. })) {
        until_removed(backend, namespace, &id).await;
    }
    attached
}

/// Waits until a container that is removed by itself is gone, so that who is told its end finds all of it free: the name, its
/// own directory. Another container is not waited for, nor one whose removal meets resistance: its name is free then.
async fn until_removed(backend: &Backend, namespace: NamespaceId, id: &ContainerId) {
    let target = Target { namespace, container: ContainerRef::from(id) };
    tokio::select! {
        // Whether or not the removal succeeds, the end is known, and that is the answer.
        _ = ask_api(&backend.supervisor, AwaitRemoval { target }, CHANGE_DEADLINE) => {}
        _ = backend.left() => {}
    }
}

async fn create_container(
    node: &Addr<Supervisor>,
    request: RunRequest,
    caller: Option<Caller>,
    mut items: ItemSender,
) -> Answer {
    let RunRequest { namespace, spec, idempotency_key, .. } = request;
    check_key(idempotency_key.as_deref(), &spec)?;
    let (progress, heard) = mpsc::channel(PROGRESS_QUEUED);
    let message = CreateContainer { namespace, spec, caller, idempotency_key, progress: Some(progress) };
    let id = with_progress(ask_api(node, message, RUN_DEADLINE), heard, &mut items).await?;
    Ok(Response::Created { id })
}

fn check_key(key: Option<&str>, spec: &ContainerSpec) -> Result<(), ApiError> {
    if key.is_some_and(|key| key.is_empty() || key.len() > MAX_IDEMPOTENCY_KEY_BYTES) {
        let message = format!("run container {}: its idempotency key is empty or too long", spec.name);
        let hint = format!("use 1 to {MAX_IDEMPOTENCY_KEY_BYTES} bytes");
        return Err(ApiError::new(ErrorKind::InvalidArgument, message).with_hint(hint));
    }
    Ok(())
}

/// Waits for a container to be made, and passes its progress on.
async fn with_progress(
    made: impl Future<Output = Result<ContainerId, ApiError>>,
    mut heard: mpsc::Receiver<FetchProgress>,
    items: &mut ItemSender,
) -> Result<ContainerId, ApiError> {
    tokio::pin!(made);
    loop {
        tokio::select! {
            result = &mut made => return result,
            Some(piece) = heard.recv() => {
                let (what, done_bytes, total_bytes) = (piece.what, piece.done_bytes, piece.total_bytes);
                items.send_or_drop(Item::Progress { what, done_bytes, total_bytes }).await;
            }
        }
    }
}

/// Undoes a run whose caller cancelled it before it was told that the container runs: it knows of none, and nobody would end
/// it.
async fn give_up(node: &Addr<Supervisor>, target: Target) -> Answer {
    let message = format!("run container {}: given up by its caller", target.container);
    ask_api(node, DeleteContainer { target, force: true, timeout: Some(Duration::ZERO) }, NO_DEADLINE).await?;
    Err(ApiError::new(ErrorKind::Conflict, message))
}

/// Streams the output of a container that has just been started, then tells its end.
async fn attach(backend: &Backend, id: &ContainerId, target: Target, items: ItemSender) -> Answer {
    let node = &backend.supervisor;
    let log = ask_api(node, FollowLog { target: target.clone(), tail: None }, QUERY_DEADLINE).await?;
    let mut items = stream_log(backend, log, items).await?;
    tokio::select! {
        ended = ask_api(node, WaitContainer { target }, NO_DEADLINE) => {
            let (id, exit) = ended?;
            Ok(Response::Exited { id, exit })
        }
        () = items.until_cancelled() => Ok(Response::Created { id: id.clone() }),
        left = backend.left() => Err(left),
    }
}

async fn wait(backend: &Backend, target: Target, mut items: ItemSender) -> Answer {
    let namespace = target.namespace.clone();
    tokio::select! {
        // Known items are sent, also by a daemon that leaves.
        biased;
        ended = ask_api(&backend.supervisor, WaitContainer { target }, NO_DEADLINE) => {
            let (id, exit) = ended?;
            until_removed(backend, namespace, &id).await;
            Ok(Response::Exited { id, exit })
        }
        () = items.until_cancelled() => Ok(Response::Done),
        left = backend.left() => Err(left),
    }
}

/// Executes a process with the caller's descriptors: no process stands between the two from then on.
async fn open_input(backend: &Backend, target: Target) -> Result<Answered, ApiError> {
    let attachment = ask_api(&backend.supervisor, AttachContainer { target }, CHANGE_DEADLINE).await?;
    let Attachment { container: id, has_terminal, input } = attachment;
    let response = Response::Attached { id, has_terminal, has_input: input.is_some() };
    Ok(Answered { response, fds: input.into_iter().collect() })
}

async fn execute(backend: &Backend, request: ExecRequest, fds: Vec<OwnedFd>) -> Result<Answered, ApiError> {
    let ExecRequest { target, spec, .. } = request;
    // The session has counted them.
    let message = ExecContainer { target, exec: spec, stdio: fds.try_into().ok() };
    let executed = ask_api(&backend.supervisor, message, CHANGE_DEADLINE).await?;
    let ExecutedProcess { container: id, exec, pid, pidfd, terminal } = executed;
    let response = Response::Executes { id, exec, pid, has_terminal: terminal.is_some() };
    Ok(Answered { response, fds: std::iter::once(pidfd).chain(terminal).collect() })
}

async fn wait_exec(backend: &Backend, target: Target, exec: ExecId, mut items: ItemSender) -> Answer {
    let info = ask_api(&backend.supervisor, InspectContainer { target: target.clone() }, QUERY_DEADLINE).await?;
    tokio::select! {
        biased;
        ended = ask_api(&backend.supervisor, WaitExec { target, exec }, NO_DEADLINE) => {
            Ok(Response::Exited { id: info.id, exit: ended? })
        }
        () = items.until_cancelled() => Ok(Response::Done),
        left = backend.left() => Err(left),
    }
}

/// Passes a log on as fast as the caller takes it; gives the way to the caller back.
async fn stream_log(
    backend: &Backend,
    mut log: LogStreamReceiver,
    mut items: ItemSender,
) -> Result<ItemSender, ApiError> {
    loop {
        let piece = tokio::select! {
            // The end of the stream would be taken for that of the container.
            left = backend.left() => return Err(left),
            piece = log.recv() => piece,
            () = items.until_cancelled() => None,
        };
        let Some(piece) = piece else { return Ok(items) };
        if items.send(Item::Log(piece?)).await.is_err() {
            return Ok(items);
        }
    }
}

async fn stream_events(
    backend: &Backend,
    from: Option<u64>,
    namespace: Option<NamespaceId>,
    mut items: ItemSender,
) -> Answer {
    let mut events = ask_api(&backend.supervisor, SubscribeEvents { from, namespace }, QUERY_DEADLINE).await?;
    loop {
        let event = tokio::select! {
            left = backend.left() => return Err(left),
            event = events.recv() => event,
            () = items.until_cancelled() => None,
        };
        let item = match event {
            None => return Ok(Response::Done),
            Some(EventItem::Event { seq, event }) => Item::Event { seq, event },
            Some(EventItem::Gap { from, to }) => Item::EventGap { from, to },
        };
        if items.send(item).await.is_err() {
            return Ok(Response::Done);
        }
    }
}
