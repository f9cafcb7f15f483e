//! The client: one method per request of the protocol.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use contd_protocol::api::{
    ApiSocket, CacheInfo, ExecRequest, FlistServerInfo, Item, MAX_LIST_PAGE, NamespaceSummary, Plan, Request, Response,
    RunRequest, TEXT_VERSION, Target, Text, VersionInfo,
};
use contd_protocol::session::Welcome;
use contd_session_tokio::{Answer, Connection};
use contd_types::{
    Changes, ContainerId, ContainerInfo, ContainerStats, ContainerSummary, ExecId, ExecInfo, Exit, NamespaceId,
    ProcessInfo, Signal, WindowSize,
};

use tokio::sync::Mutex;

use crate::call::{Underway, wrong};
use crate::deadline::{CACHE_WALK, CHANGE, CONNECT, Deadline, QUERY, RUN, STOP, STOP_MARGIN, within};
use crate::error::{ClientError, ProtocolError};
use crate::exec::Executed;
use crate::stream::{EventStream, ExecStream, LogStream, Progress, RunStream};

/// A connection to the daemon. Clones share it; calls of all of them overlap, 256 at a time, and more wait their turn.
///
/// A daemon closes a connection that has been idle for long: the next call then goes by a new one, unnoticed.
///
/// Needs a tokio runtime with I/O and time. The connection closes with the last clone and the last stream.
#[derive(Debug, Clone)]
pub struct Client {
    wire: Arc<Wire>,
}

/// The state that the clones of a client share.
#[derive(Debug)]
struct Wire {
    path: PathBuf,
    current: Mutex<Arc<Connection<ApiSocket>>>,
    /// The answer to the first hello.
    welcome: Welcome,
}

/// The input of a container.
#[derive(Debug)]
pub struct Attached {
    /// Its id.
    pub container: ContainerId,
    /// Whether it has a terminal.
    pub has_terminal: bool,
    /// A writing end of its standard input, which does not block; `None` when that is not open, or nobody reads it.
    pub input: Option<OwnedFd>,
}

/// The containers to list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListFilter {
    /// Of all namespaces.
    All,
    /// Of one.
    Namespace(NamespaceId),
}

/// The part of a container's output to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LogsOptions {
    /// Goes on with what is written later.
    pub is_following: bool,
    /// Begins so many lines before the end; `None` at the beginning.
    pub tail: Option<u64>,
}

impl Client {
    /// Connects to a daemon's socket and agrees on a version. Usual deadline: 5 s.
    ///
    /// # Errors
    /// [`ClientError::Connect`], [`ClientError::Refused`], [`ClientError::Protocol`], [`ClientError::Lost`],
    /// [`ClientError::TimedOut`].
    pub async fn connect(path: &Path, deadline: Deadline) -> Result<Self, ClientError> {
        let connection = crate::connect::connect(path, deadline.resolve(Some(CONNECT))).await?;
        let welcome = connection.welcome().clone();
        let wire = Wire { path: path.to_owned(), current: Mutex::new(connection), welcome };
        Ok(Self { wire: Arc::new(wire) })
    }

    /// Returns the daemon's name and version, as its first hello said.
    pub fn agent(&self) -> &str {
        &self.wire.welcome.agent
    }

    /// Returns the version of the protocol that both sides speak.
    pub fn protocol_version(&self) -> u16 {
        self.wire.welcome.version
    }

    /// Returns the connection, or another one when the daemon has closed it while it was idle.
    async fn connection(&self) -> Result<Arc<Connection<ApiSocket>>, ClientError> {
        let mut current = self.wire.current.lock().await;
        if current.is_closed_idle() {
            *current = crate::connect::connect(&self.wire.path, Some(CONNECT)).await?;
        }
        Ok(Arc::clone(&current))
    }

    /// Tells whether it was closed while it was idle.
    #[cfg(test)]
    pub(crate) async fn is_closed_idle(&self) -> bool {
        self.wire.current.lock().await.is_closed_idle()
    }

    /// Tells whether both share one connection.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.wire, &other.wire)
    }

    /// Asks who answers. Usual deadline: 10 s.
    ///
    /// # Errors
    /// Any [`ClientError`] but those of connecting; so for every method below.
    pub async fn version(&self, deadline: Deadline) -> Result<VersionInfo, ClientError> {
        let take = |response| match response {
            Response::Version(info) => Ok(info),
            other => Err(other),
        };
        self.ask("ask for the version", Request::Version, deadline.resolve(Some(QUERY)), take).await
    }

    /// Makes and starts a container; returns once it runs. Usual deadline: 15 min, for the fetching of the flist.
    ///
    /// # Errors
    /// See [`Self::version`].
    pub async fn run(
        &self,
        mut request: RunRequest,
        deadline: Deadline,
        on_progress: impl FnMut(Progress),
    ) -> Result<ContainerId, ClientError> {
        request.is_attached = false;
        self.make("run the container", Request::Run(Box::new(request)), deadline, on_progress).await
    }

    async fn make(
        &self,
        what: &'static str,
        request: Request,
        deadline: Deadline,
        mut on_progress: impl FnMut(Progress),
    ) -> Result<ContainerId, ClientError> {
        within(what, deadline.resolve(Some(RUN)), async {
            let mut call = Underway::begin(&self.connection().await?, what, request, true).await?;
            while let Some(item) = call.next_item().await {
                match item {
                    Item::Progress { what, done_bytes, total_bytes } => {
                        on_progress(Progress { what, done_bytes, total_bytes });
                    }
                    // The reply says the same.
                    Item::Started { .. } => {}
                    other => return Err(call.wrong_item(&other)),
                }
            }
            match call.reply().await? {
                Response::Created { id } => Ok(id),
                other => Err(call.wrong_response(&other)),
            }
        })
        .await
    }

    /// Makes a container and does not start it. Usual deadline: as for [`Self::run`].
    ///
    /// # Errors
    /// See [`Self::version`].
    pub async fn create(
        &self,
        mut request: RunRequest,
        deadline: Deadline,
        on_progress: impl FnMut(Progress),
    ) -> Result<ContainerId, ClientError> {
        request.is_attached = false;
        self.make("create the container", Request::Create(Box::new(request)), deadline, on_progress).await
    }

    /// Changes settings of a container; limits are in force at once if it runs. Usual deadline: 1 min.
    ///
    /// # Errors
    /// See [`Self::version`].
    pub async fn update(&self, target: Target, changes: Changes, deadline: Deadline) -> Result<(), ClientError> {
        const WHAT: &str = "update the container";
        let request = match changes.has_limits() {
            // Daemons of before know this one.
            false => Request::Update { target, restart: changes.restart },
            true => {
                let changes = Text::new(&changes).map_err(|source| ClientError::Unsendable { what: WHAT, source })?;
                Request::Change { target, changes }
            }
        };
        self.ask(WHAT, request, deadline.resolve(Some(CHANGE)), done).await
    }

    /// Has the shim of a running container replaced. Usual deadline: 1 min.
    ///
    /// # Errors
    /// See [`Self::version`].
    pub async fn upgrade_shim(&self, target: Target, deadline: Deadline) -> Result<(), ClientError> {
        let request = Request::UpgradeShim { target };
        self.ask("upgrade the shim of the container", request, deadline.resolve(Some(CHANGE)), done).await
    }

    /// Makes and starts a container and streams its output up to its exit. The deadline ends with the start of the
    /// container; usually 15 min.
    ///
    /// # Errors
    /// See [`Self::version`].
    pub async fn run_attached(&self, mut request: RunRequest, deadline: Deadline) -> Result<RunStream, ClientError> {
        request.is_attached = true;
        let limit = deadline.resolve(Some(RUN));
        let call = self.stream("run the container", Request::Run(Box::new(request)), limit).await?;
        Ok(RunStream::new(call, limit))
    }

    /// Starts a stopped or failed container again. Usual deadline: 15 min, as for [`Self::run`].
    ///
    /// # Errors
    /// See [`Self::version`].
    pub async fn start(&self, target: Target, deadline: Deadline) -> Result<(), ClientError> {
        self.ask("start the container", Request::Start { target }, deadline.resolve(Some(RUN)), done).await
    }

    /// Ends a container. Usual deadline: its time-out and 30 s more; 10 min when only the container knows it.
    ///
    /// # Errors
    /// See [`Self::version`].
    pub async fn stop(
        &self,
        target: Target,
        timeout: Option<Duration>,
        deadline: Deadline,
    ) -> Result<Exit, ClientError> {
        let limit = deadline.resolve(Some(stop_deadline(timeout)));
        self.ask("stop the container", Request::Stop { target, timeout }, limit, exited).await
    }

    /// Ends all containers because the node goes down; root only. Usual deadline: `longest` and 1 min more.
    ///
    /// # Errors
    /// See [`Self::version`].
    pub async fn shut_down(&self, longest: Duration, deadline: Deadline) -> Result<u32, ClientError> {
        let take = |response| match response {
            Response::ShutDown { ended } => Ok(ended),
            other => Err(other),
        };
        let limit = deadline.resolve(Some(longest.saturating_add(CHANGE)));
        self.ask("shut the node down", Request::ShutDown { longest }, limit, take).await
    }

    /// Sends a signal to a container's init. Usual deadline: 1 min.
    ///
    /// # Errors
    /// See [`Self::version`].
    pub async fn kill(&self, target: Target, signal: Signal, deadline: Deadline) -> Result<(), ClientError> {
        self.ask("signal the container", Request::Kill { target, signal }, deadline.resolve(Some(CHANGE)), done).await
    }

    /// Removes a container. Usual deadline: 1 min; with `force` that of [`Self::stop`].
    ///
    /// # Errors
    /// See [`Self::version`].
    pub async fn delete(
        &self,
        target: Target,
        force: bool,
        timeout: Option<Duration>,
        deadline: Deadline,
    ) -> Result<(), ClientError> {
        let usual = if force { stop_deadline(timeout) } else { CHANGE };
        let request = Request::Delete { target, force, timeout };
        self.ask("remove the container", request, deadline.resolve(Some(usual)), done).await
    }

    /// Asks for all about a container. Usual deadline: 10 s.
    ///
    /// # Errors
    /// See [`Self::version`].
    pub async fn inspect(&self, target: Target, deadline: Deadline) -> Result<ContainerInfo, ClientError> {
        let take = |response| match response {
            Response::Info(info) => Ok(*info),
            other => Err(other),
        };
        self.ask("inspect the container", Request::Inspect { target }, deadline.resolve(Some(QUERY)), take).await
    }

    /// Lists containers by id, page by page until the last. Usual deadline: 10 s per page.
    ///
    /// # Errors
    /// See [`Self::version`].
    pub async fn list(&self, filter: ListFilter, deadline: Deadline) -> Result<Vec<ContainerSummary>, ClientError> {
        const WHAT: &str = "list the containers";
        let namespace = match filter {
            ListFilter::All => None,
            ListFilter::Namespace(namespace) => Some(namespace),
        };
        let take = |response| match response {
            Response::Page { containers, has_more } => Ok((containers, has_more)),
            other => Err(other),
        };
        let mut all: Vec<ContainerSummary> = Vec::new();
        loop {
            let after = all.last().map(|last| last.id.clone());
            let request = Request::List { namespace: namespace.clone(), after: after.clone(), limit: MAX_LIST_PAGE };
            let (page, has_more) = self.ask(WHAT, request, deadline.resolve(Some(QUERY)), take).await?;
            // Ids go up, or the list would never end.
            let ids = after.iter().chain(page.iter().map(|entry| &entry.id));
            if !ids.is_sorted_by(|a, b| a < b) || (has_more && page.is_empty()) {
                return Err(wrong(WHAT, ProtocolError::PageOrder));
            }
            all.extend(page);
            if !has_more {
                return Ok(all);
            }
        }
    }

    /// Lists the namespaces that have containers. Usual deadline: 10 s.
    ///
    /// # Errors
    /// See [`Self::version`].
    pub async fn list_namespaces(&self, deadline: Deadline) -> Result<Vec<NamespaceSummary>, ClientError> {
        let take = |response| match response {
            Response::Namespaces(namespaces) => Ok(namespaces),
            other => Err(other),
        };
        self.ask("list the namespaces", Request::ListNamespaces, deadline.resolve(Some(QUERY)), take).await
    }

    /// Lists the servers of mounted flists. Usual deadline: 10 s.
    ///
    /// # Errors
    /// See [`Self::version`].
    pub async fn flist_servers(&self, deadline: Deadline) -> Result<Vec<FlistServerInfo>, ClientError> {
        let take = |response| match response {
            Response::FlistServers(servers) => Ok(servers),
            other => Err(other),
        };
        self.ask("list the flist servers", Request::FlistServers, deadline.resolve(Some(QUERY)), take).await
    }

    /// Asks what the cache holds. Usual deadline: a minute, since all of it is looked at.
    ///
    /// # Errors
    /// See [`Self::version`].
    pub async fn cache_usage(&self, deadline: Deadline) -> Result<CacheInfo, ClientError> {
        let take = |response| match response {
            Response::Cache(info) => Ok(*info),
            other => Err(other),
        };
        self.ask("look at the cache", Request::CacheUsage, deadline.resolve(Some(CACHE_WALK)), take).await
    }

    /// Waits until a container has ended. Usually without a deadline.
    ///
    /// # Errors
    /// See [`Self::version`].
    pub async fn wait(&self, target: Target, deadline: Deadline) -> Result<Exit, ClientError> {
        self.ask("wait for the container", Request::Wait { target }, deadline.resolve(None), exited).await
    }

    /// Opens the standard input of a container that runs. What it says is in its log: [`Self::logs`]. Usual deadline: 1 min.
    ///
    /// # Errors
    /// See [`Self::version`].
    pub async fn attach(&self, target: Target, deadline: Deadline) -> Result<Attached, ClientError> {
        const WHAT: &str = "attach to the container";
        within(WHAT, deadline.resolve(Some(CHANGE)), async {
            let request = Request::Attach { target };
            let mut call = Underway::begin(&self.connection().await?, WHAT, request, false).await?;
            let Answer { response, fds } = call.answer().await?;
            match response {
                Response::Attached { id, has_terminal, .. } => {
                    Ok(Attached { container: id, has_terminal, input: fds.into_iter().next() })
                }
                other => Err(call.wrong_response(&other)),
            }
        })
        .await
    }

    /// Closes the standard input of a container: its process reads the end once all who are attached have let go. Usual deadline: 1 min.
    ///
    /// # Errors
    /// See [`Self::version`].
    pub async fn close_input(&self, target: Target, deadline: Deadline) -> Result<(), ClientError> {
        let request = Request::CloseInput { target };
        self.ask("close the input of the container", request, deadline.resolve(Some(CHANGE)), done).await
    }

    /// Changes the size of a container's terminal. Usual deadline: 1 min.
    ///
    /// # Errors
    /// See [`Self::version`].
    pub async fn resize(&self, target: Target, size: WindowSize, deadline: Deadline) -> Result<(), ClientError> {
        let request = Request::Resize { target, size };
        self.ask("resize the terminal of the container", request, deadline.resolve(Some(CHANGE)), done).await
    }

    /// Executes one more process in a container that runs. `stdio` are its descriptors 0, 1 and 2, as the request says; no process
    /// stands between the two then. Usual deadline: 60 s.
    ///
    /// # Errors
    /// See [`Self::version`]. After [`ClientError::Lost`] or [`ClientError::TimedOut`] it is not known whether it runs.
    pub async fn exec(
        &self,
        mut request: ExecRequest,
        stdio: Option<[OwnedFd; 3]>,
        deadline: Deadline,
    ) -> Result<Executed, ClientError> {
        const WHAT: &str = "execute a process in the container";
        request.has_descriptors = stdio.is_some();
        let fds = stdio.map(Vec::from).unwrap_or_default();
        within(WHAT, deadline.resolve(Some(CHANGE)), async {
            let connection = self.connection().await?;
            let request = Request::Exec(Box::new(request));
            let mut call = Underway::begin_with(&connection, WHAT, request, fds, false).await?;
            let Answer { response, fds } = call.answer().await?;
            let mut fds = fds.into_iter();
            match (response, fds.next()) {
                (Response::Executes { id, exec, pid, .. }, Some(pidfd)) => {
                    Ok(Executed { container: id, exec, pid, terminal: fds.next(), pidfd })
                }
                (other, _) => Err(call.wrong_response(&other)),
            }
        })
        .await
    }

    /// Executes a process whose input and output travel in frames. [`Self::exec`] needs no daemon to go on; this is for callers whose
    /// descriptors the process cannot have. The deadline is that of the whole stream; usually there is none.
    ///
    /// # Errors
    /// See [`Self::version`].
    pub async fn exec_stream(&self, mut request: ExecRequest, deadline: Deadline) -> Result<ExecStream, ClientError> {
        request.has_descriptors = false;
        let limit = deadline.resolve(None);
        let request = Request::ExecStream(Box::new(request));
        Ok(ExecStream::new(self.stream("execute a process in the container", request, limit).await?, limit))
    }

    /// Writes to the input of a process of [`Self::exec_stream`], at most [`contd_protocol::api::MAX_LOG_ITEM_BYTES`] at once; `is_last` closes it.
    /// Returns when the process's pipe has all of it. Usually no deadline: a process may read when it likes.
    ///
    /// # Errors
    /// See [`Self::version`].
    pub async fn write_exec(
        &self,
        target: Target,
        exec: ExecId,
        content: Vec<u8>,
        is_last: bool,
        deadline: Deadline,
    ) -> Result<(), ClientError> {
        let request = Request::ExecInput { target, exec, content, is_last };
        self.ask("write to the process", request, deadline.resolve(None), done).await
    }

    /// Changes the size of the terminal of a process of [`Self::exec_stream`]. Usual deadline: 10 s.
    ///
    /// # Errors
    /// See [`Self::version`].
    pub async fn resize_exec(
        &self,
        target: Target,
        exec: ExecId,
        size: WindowSize,
        deadline: Deadline,
    ) -> Result<(), ClientError> {
        let request = Request::ResizeExec { target, exec, size };
        self.ask("resize the terminal of the process", request, deadline.resolve(Some(QUERY)), done).await
    }

    /// Reads what a running container uses. Usual deadline: 10 s.
    ///
    /// # Errors
    /// See [`Self::version`].
    pub async fn stats(&self, target: Target, deadline: Deadline) -> Result<ContainerStats, ClientError> {
        let take = |response| match response {
            Response::Stats { stats, next } => match <[ContainerStats; 1]>::try_from(stats) {
                Ok([one]) => Ok(one),
                Err(stats) => Err(Response::Stats { stats, next }),
            },
            other => Err(other),
        };
        let request = Request::Stats { target };
        self.ask("read the figures of the container", request, deadline.resolve(Some(QUERY)), take).await
    }

    /// Reads what all running containers use, of one namespace or of all. Usual deadline: 10 s.
    ///
    /// # Errors
    /// See [`Self::version`].
    pub async fn all_stats(&self, filter: ListFilter, deadline: Deadline) -> Result<Vec<ContainerStats>, ClientError> {
        const WHAT: &str = "read the figures of the containers";
        let namespace = match filter {
            ListFilter::All => None,
            ListFilter::Namespace(namespace) => Some(namespace),
        };
        within(WHAT, deadline.resolve(Some(QUERY)), async {
            let (mut all, mut after) = (Vec::new(), None::<ContainerId>);
            loop {
                let request = Request::ListStats { namespace: namespace.clone(), after: after.clone() };
                let take = |response| match response {
                    Response::Stats { stats, next } => Ok((stats, next)),
                    other => Err(other),
                };
                let (stats, next) = self.ask(WHAT, request, None, take).await?;
                // Ids go up, or the list would never end.
                if next.is_some() && next <= after {
                    return Err(wrong(WHAT, ProtocolError::PageOrder));
                }
                all.extend(stats);
                if next.is_none() {
                    return Ok(all);
                }
                after = next;
            }
        })
        .await
    }

    /// Lists the processes of a running container. Usual deadline: 10 s.
    ///
    /// # Errors
    /// See [`Self::version`].
    pub async fn processes(&self, target: Target, deadline: Deadline) -> Result<Vec<ProcessInfo>, ClientError> {
        let take = |response| match response {
            Response::Processes(processes) => Ok(processes),
            other => Err(other),
        };
        let request = Request::Processes { target };
        self.ask("list the processes of the container", request, deadline.resolve(Some(QUERY)), take).await
    }

    /// Ends a container that runs and starts it again. The usual deadline is that of a stop, with `timeout`, and of a start.
    ///
    /// # Errors
    /// See [`Self::version`].
    pub async fn restart(
        &self,
        target: Target,
        timeout: Option<Duration>,
        deadline: Deadline,
    ) -> Result<(), ClientError> {
        let usual = timeout.map_or(STOP, |timeout| timeout.saturating_add(STOP_MARGIN)).saturating_add(CHANGE);
        let request = Request::Restart { target, timeout };
        self.ask("restart the container", request, deadline.resolve(Some(usual)), done).await
    }

    /// Has all processes of a container stand still. Usual deadline: 60 s.
    ///
    /// # Errors
    /// See [`Self::version`].
    pub async fn pause(&self, target: Target, deadline: Deadline) -> Result<(), ClientError> {
        self.ask("pause the container", Request::Pause { target }, deadline.resolve(Some(CHANGE)), done).await
    }

    /// Has them go on. Usual deadline: 60 s.
    ///
    /// # Errors
    /// See [`Self::version`].
    pub async fn unpause(&self, target: Target, deadline: Deadline) -> Result<(), ClientError> {
        self.ask("unpause the container", Request::Unpause { target }, deadline.resolve(Some(CHANGE)), done).await
    }

    /// Waits until an executed process has ended. Usually no deadline.
    ///
    /// # Errors
    /// See [`Self::version`].
    pub async fn wait_exec(&self, target: Target, exec: ExecId, deadline: Deadline) -> Result<Exit, ClientError> {
        let request = Request::WaitExec { target, exec };
        self.ask("wait for the process", request, deadline.resolve(None), exited).await
    }

    /// Sends a signal to an executed process alone. Usual deadline: 60 s.
    ///
    /// # Errors
    /// See [`Self::version`].
    pub async fn kill_exec(
        &self,
        target: Target,
        exec: ExecId,
        signal: Signal,
        deadline: Deadline,
    ) -> Result<(), ClientError> {
        let request = Request::KillExec { target, exec, signal };
        self.ask("signal the process", request, deadline.resolve(Some(CHANGE)), done).await
    }

    /// Lists the executed processes of a container that have not ended. Usual deadline: 10 s.
    ///
    /// # Errors
    /// See [`Self::version`].
    pub async fn execs(&self, target: Target, deadline: Deadline) -> Result<Vec<ExecInfo>, ClientError> {
        let take = |response| match response {
            Response::Execs(execs) => Ok(execs),
            other => Err(other),
        };
        self.ask("list the processes", Request::ListExecs { target }, deadline.resolve(Some(QUERY)), take).await
    }

    /// Reads a container's output. The deadline is that of the whole stream; usually there is none.
    ///
    /// With `is_following` it returns once the place in the log is found: what is said from then on comes, whatever the caller does next.
    ///
    /// # Errors
    /// See [`Self::version`].
    pub async fn logs(
        &self,
        target: Target,
        options: LogsOptions,
        deadline: Deadline,
    ) -> Result<LogStream, ClientError> {
        const WHAT: &str = "read the logs";
        let LogsOptions { is_following, tail } = options;
        let limit = deadline.resolve(None);
        let call = within(WHAT, limit, async {
            let connection = self.connection().await?;
            let has_word = is_following && connection.welcome().version >= TEXT_VERSION;
            let mut call =
                Underway::begin(&connection, WHAT, Request::Logs { target, is_following, tail }, true).await?;
            if has_word {
                match call.next_item().await {
                    // The reply tells why there is none.
                    Some(Item::Follows) | None => {}
                    Some(other) => return Err(call.wrong_item(&other)),
                }
            }
            Ok(call)
        })
        .await?;
        Ok(LogStream::new(call, limit))
    }

    /// Asks what [`Self::run`] would do. Usual deadline: 15 min, since the flist may have to be fetched.
    ///
    /// # Errors
    /// See [`Self::version`].
    pub async fn dry_run(&self, request: RunRequest, deadline: Deadline) -> Result<Plan, ClientError> {
        let limit = deadline.resolve(Some(RUN));
        within("plan the run", limit, async {
            let mut call =
                Underway::begin(&self.connection().await?, "plan the run", Request::DryRun(Box::new(request)), true)
                    .await?;
            // Progress may come before; nobody asked for it.
            match call.reply().await? {
                Response::Plan(plan) => Ok(*plan),
                other => Err(call.wrong_response(&other)),
            }
        })
        .await
    }

    /// Follows what happens, from a sequence number on or from now on, without end.
    ///
    /// # Errors
    /// See [`Self::version`].
    pub async fn events(
        &self,
        from: Option<u64>,
        namespace: Option<NamespaceId>,
        deadline: Deadline,
    ) -> Result<EventStream, ClientError> {
        let limit = deadline.resolve(None);
        let call = self.stream("follow the events", Request::Events { from, namespace }, limit).await?;
        Ok(EventStream::new(call, limit))
    }

    /// Sends a call without items and takes its answer apart; `take` gives back what does not belong to the call.
    async fn ask<T>(
        &self,
        what: &'static str,
        request: Request,
        limit: Option<Duration>,
        take: impl FnOnce(Response) -> Result<T, Response>,
    ) -> Result<T, ClientError> {
        within(what, limit, async {
            let mut call = Underway::begin(&self.connection().await?, what, request, false).await?;
            let response = call.reply().await?;
            take(response).map_err(|other| call.wrong_response(&other))
        })
        .await
    }

    async fn stream(
        &self,
        what: &'static str,
        request: Request,
        limit: Option<Duration>,
    ) -> Result<Underway, ClientError> {
        within(what, limit, async { Underway::begin(&self.connection().await?, what, request, true).await }).await
    }
}

fn stop_deadline(timeout: Option<Duration>) -> Duration {
    timeout.map_or(STOP, |timeout| timeout.saturating_add(STOP_MARGIN))
}

fn done(response: Response) -> Result<(), Response> {
    match response {
        Response::Done => Ok(()),
        other => Err(other),
    }
}

fn exited(response: Response) -> Result<Exit, Response> {
    match response {
        Response::Exited { exit, .. } => Ok(exit),
        other => Err(other),
    }
}
