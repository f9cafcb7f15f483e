//! Verbs that look and change nothing: the log of a container, and what a run would be.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use contd_logs::LogFiles;
use contd_meters::{Metered, Reading};
use contd_protocol::api::{Plan, Target};
use contd_types::{
    ApiError, ContainerId, ContainerInfo, ContainerStats, ContainerSummary, ErrorKind, ProcessInfo, State,
};
use tokio::sync::watch;

use super::verbs::SERVICE_TIMEOUT;
use crate::error::{NamespaceError, StepError};
use crate::locks::Wanted;
use crate::messages::node::{FindRemovedLog, PrepareRoot, PreviewBundle, StreamLog};
use crate::messages::{DryRunContainer, ListContainers, ListStats, LogStreamReceiver, StatsPage};
use crate::pool::WhenBlocked;
use crate::random::new_id;
use crate::services::Services;
use crate::shared::Shared;
use crate::task::{Subject, undo};

/// As for a real bundle.
const PREVIEW_TIMEOUT: Duration = Duration::from_secs(30);

/// Streams the log of a container, or of one that was removed.
pub(super) async fn stream_log(
    shared: Arc<Shared>,
    services: Arc<Services>,
    target: Target,
    tail: Option<u64>,
    is_following: bool,
) -> Result<LogStreamReceiver, ApiError> {
    let found = log_of(&shared, &target);
    let is_in_place =
        |(container, _): &(watch::Receiver<Arc<ContainerInfo>>, LogFiles)| container.borrow().state != State::Deleting;
    let kept = match found.as_ref().is_ok_and(is_in_place) {
        true => None,
        // It may have been put to those of removed containers.
        false => {
            let id = shared.view.resolve(&target).ok();
            let container = id.map_or_else(|| target.container.to_string(), |id| id.to_string());
            let find = FindRemovedLog { namespace: target.namespace.clone(), container };
            let kept = services.log.ask(find, SERVICE_TIMEOUT).await?;
            kept.map_err(|failure| ApiError::from_error(&failure))?
        }
    };
    let (container, files) = match kept {
        Some(files) => (None, files),
        None => found.map(|(container, files)| (Some(container), files))?,
    };
    let message = StreamLog { namespace: target.namespace, files, tail, container, is_following };
    let answer = services.log.ask(message, SERVICE_TIMEOUT).await?;
    answer.map_err(|failure| ApiError::from_error(&failure))
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

pub(super) fn not_found(target: &Target) -> ApiError {
    let Target { namespace, container } = target;
    ApiError::new(ErrorKind::NotFound, format!("find container {container} in namespace {namespace}: there is none"))
}

/// Reads what a running container uses.
pub(super) async fn stats_of(shared: Arc<Shared>, target: Target) -> Result<ContainerStats, ApiError> {
    let info = running(&shared, &target, "read the figures of")?;
    let summary = ContainerSummary::from(&*info);
    let found = read_meters(&shared, vec![summary]).await?.pop();
    found.ok_or_else(|| {
        let message = format!("read the figures of container {}: they cannot be read", info.id);
        ApiError::new(ErrorKind::Unavailable, message).with_hint(format!("it may just end: contd inspect {}", info.id))
    })
}

/// Reads what the running containers of a page use.
pub(super) async fn stats_page(shared: Arc<Shared>, query: ListStats) -> Result<StatsPage, ApiError> {
    let ListStats { namespace, after } = query;
    let page = shared.view.list(&ListContainers { namespace, after, limit: 0 });
    let next = if page.has_more { page.containers.last().map(|one| one.id.clone()) } else { None };
    Ok(StatsPage { stats: read_meters(&shared, page.containers).await?, next })
}

async fn read_meters(shared: &Arc<Shared>, containers: Vec<ContainerSummary>) -> Result<Vec<ContainerStats>, ApiError> {
    let metered = |one: &ContainerSummary| Some(Metered { id: one.id.clone(), pid: one.state.pid()? });
    let wanted: Vec<Metered> = containers.iter().filter_map(metered).collect();
    let meters = Arc::clone(&shared.meters);
    let read = shared.meter_pool.run("look at running containers", move || meters.read(&wanted)).await;
    let readings = read.map_err(|lost| ApiError::from_error(&lost))?;
    let mut names: HashMap<ContainerId, ContainerSummary> =
        containers.into_iter().map(|one| (one.id.clone(), one)).collect();
    let stats = readings.into_iter().filter_map(|Reading { of, monotonic_ns, usage, network }| {
        let ContainerSummary { name, namespace, .. } = names.remove(&of.id)?;
        Some(ContainerStats { id: of.id, name, namespace, pid: of.pid, monotonic_ns, usage, network })
    });
    Ok(stats.collect())
}

/// Lists the processes of a running container.
pub(super) async fn processes_of(shared: Arc<Shared>, target: Target) -> Result<Vec<ProcessInfo>, ApiError> {
    const WHAT: &str = "look at the processes of";
    let info = running(&shared, &target, WHAT)?;
    let of = Metered { id: info.id.clone(), pid: info.state.pid().ok_or_else(|| not_running(&info, WHAT))? };
    let meters = Arc::clone(&shared.meters);
    let listed = shared.meter_pool.run("look at processes", move || meters.processes(&of)).await;
    let listed = listed.map_err(|lost| ApiError::from_error(&lost))?;
    listed.map_err(|error| ApiError::from_error(&error))
}

/// Finds a container that runs.
fn running(shared: &Shared, target: &Target, what: &str) -> Result<Arc<ContainerInfo>, ApiError> {
    let id = shared.view.resolve(target)?;
    let info = shared.view.get(&id).ok_or_else(|| not_found(target))?;
    if info.state.pid().is_some() { Ok(info) } else { Err(not_running(&info, what)) }
}

fn not_running(info: &ContainerInfo, what: &str) -> ApiError {
    let message = format!("{what} container {}: it is {}", info.id, info.state.name());
    ApiError::new(ErrorKind::Conflict, message).with_hint(format!("start it first: contd start {}", info.id))
}

/// Prepares a root under an id of its own, shows what would be run on it, and releases it.
pub(super) async fn dry_run(
    shared: Arc<Shared>,
    services: Arc<Services>,
    message: DryRunContainer,
) -> Result<Plan, ApiError> {
    let DryRunContainer { namespace, spec, caller } = message;
    spec.validate()?;
    // As much work as a run.
    let place = shared.admission.try_run(&namespace, &shared.settings().limits);
    let _place = place.map_err(|none| NamespaceError::no_place(none, &namespace, &spec.name))?;
    let id = new_id().map_err(|source| NamespaceError::NoRandomness { name: spec.name.clone(), source })?;
    let log_path = shared.log_path(&namespace, &spec.name).to_string_lossy().into_owned();
    let subject = Subject::new(Arc::clone(&shared), services, namespace.clone(), id, Arc::new(spec), caller);
    let wanted = Wanted::default();
    let previewed = preview(&subject, &wanted).await;
    wanted.give_up();
    let released = undo::release_root(&subject, WhenBlocked::Queue).await;
    let config_json = previewed.map_err(|failure| ApiError::from_error(&failure))?;
    released.map_err(|leftover| ApiError::from_error(&leftover.source))?;
    Ok(Plan { config_json, log_path })
}

async fn preview(subject: &Subject, wanted: &Wanted) -> Result<String, StepError> {
    let (services, defaults) = (&subject.services, subject.shared.settings().defaults);
    let request = subject.root_request(&defaults, true, subject.judge()?);
    let span = subject.span().clone();
    let prepare =
        PrepareRoot { locks: Arc::clone(&subject.locks), wanted: wanted.clone(), request, progress: None, span };
    let prepared =
        services.flist.ask(prepare, subject.shared.config.rootfs_timeout).await.map_err(StepError::Call)??;
    let message = PreviewBundle { wanted: wanted.clone(), bundle: subject.bundle_spec(&defaults, prepared) };
    services.bundle.ask(message, PREVIEW_TIMEOUT).await.map_err(StepError::Call)?
}
