//! [`Shim`] over a connection that is made again when it broke and the shim still lives.

use std::future::Future;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use contd_failpoint::Failpoint;
use contd_lease::LeaseState;
use contd_protocol::shim::{ExecProcess, Request, Response, ShimSocket, TaskInput, TaskState, files};
use contd_session_tokio::{Answer, CallError, Connection, Ending, Underway};
use contd_types::{ExecId, ExecInfo, Exit, Pid, RequestId, Signal, WindowSize, one_line};
use futures_util::future::{BoxFuture, FutureExt};
use tokio::sync::Mutex;
use tokio::time::Instant;
use tracing::Instrument;

use super::keep::{self, Keep};
use super::{Place, blocking, clean_up};
use crate::{Executed, Shim, ShimError, deadline, greet};

/// How often one wait connects anew; a shim that drops us more often is not worth asking, and the caller attaches again.
const MAX_WAIT_RECONNECTS: u32 = 3;

/// Between two tries to reach one that is handing over.
const LISTENS_AGAIN: Duration = Duration::from_millis(2);

/// One shim process.
#[derive(Debug, Clone)]
pub(super) struct ProcessShim {
    place: Place,
    keep: Arc<Keep>,
    /// Held only while a broken connection is made anew, which [`deadline::CONNECT`] bounds.
    connection: Arc<Mutex<Arc<Connection<ShimSocket>>>>,
    /// The operation that the calls belong to.
    operation: Option<RequestId>,
    /// The input of its container, when that was just made.
    input: TaskInput,
}

impl ProcessShim {
    /// Connects; only legal when a process holds the lease.
    pub(super) async fn connect(place: &Place, keep: Arc<Keep>, verb: &'static str) -> Result<Self, ShimError> {
        let connection = greet::connect(&place.id, &place.socket, verb).await?;
        let connection = Arc::new(Mutex::new(Arc::new(connection)));
        Ok(Self { place: place.clone(), keep, connection, operation: None, input: TaskInput::default() })
    }

    /// The same, of a container with this input, which is yet to be made.
    pub(super) fn of(self, input: TaskInput) -> Self {
        Self { input, ..self }
    }

    /// Holds what must outlive the shim of a container that lives, and gives a successor the terminal that its predecessor died with.
    pub(super) async fn hold(&self, state: &TaskState) {
        match state {
            TaskState::Created { .. } | TaskState::Running { .. } | TaskState::Paused { .. } => {
                if let Err(error) = self.hold_now().await {
                    // It runs all the same; only the death of its shim would cost something now.
                    tracing::warn!(error = one_line(&error), "no second holder of its terminal");
                }
            }
            TaskState::Exited { .. } => self.keep.let_go(&self.place.id),
            TaskState::Empty | TaskState::Creating => {}
        }
    }

    async fn hold_now(&self) -> Result<(), ShimError> {
        let keep = Arc::clone(&self.keep);
        let held = blocking(&self.place, "hold the descriptors of", move |place| Ok(keep.hold(place)));
        if held.await? { self.share_terminal().await } else { Ok(()) }
    }

    /// Sees to it that both have the terminal, the shim and we.
    async fn share_terminal(&self) -> Result<(), ShimError> {
        const VERB: &str = "share the terminal of";
        let asked = self.ask_with(VERB, Request::Terminal, Vec::new());
        let Answer { response, fds } = self.within(VERB, deadline::STATE, asked).await?;
        let Response::Terminal { .. } = response else { return Err(self.unexpected(VERB, &response)) };
        match (fds.into_iter().next(), self.keep.terminal(&self.place.id)) {
            (Some(terminal), None) => self.keep.hold_terminal(&self.place, terminal),
            (None, Some(terminal)) => {
                let given = self.ask_with(VERB, Request::GiveTerminal, vec![terminal]);
                self.within(VERB, deadline::STATE, given).await?;
            }
            (Some(_), Some(_)) => {}
            (None, None) => tracing::warn!("terminal lost: the shim died with the only descriptor of it"),
        }
        Ok(())
    }

    async fn connection(&self, verb: &'static str) -> Result<Arc<Connection<ShimSocket>>, ShimError> {
        let mut current = self.connection.lock().await;
        if current.has_ended() {
            tracing::info!("shim reconnected");
            *current = Arc::new(self.greet_again(verb).await?);
        }
        Ok(Arc::clone(&current))
    }

    /// A shim that is handing over lives, and does not listen for a moment.
    async fn greet_again(&self, verb: &'static str) -> Result<Connection<ShimSocket>, ShimError> {
        let until = Instant::now() + deadline::CONNECT;
        loop {
            if !matches!(self.probe(verb).await?, LeaseState::Held(_)) {
                return Err(self.lost(verb));
            }
            match greet::connect(&self.place.id, &self.place.socket, verb).await {
                Err(ShimError::Connect { .. }) if Instant::now() < until => {
                    tokio::time::sleep(LISTENS_AGAIN).await;
                }
                result => return result,
            }
        }
    }

    async fn probe(&self, verb: &'static str) -> Result<LeaseState, ShimError> {
        blocking(&self.place, verb, |place| place.lease.probe().map_err(|source| place.lease_failed(source))).await
    }

    fn lost(&self, verb: &'static str) -> ShimError {
        ShimError::Lost { id: self.place.id.clone(), verb }
    }

    fn unexpected(&self, verb: &'static str, answer: &Response) -> ShimError {
        ShimError::Protocol { id: self.place.id.clone(), what: format!("it answered {verb} with {answer:?}") }
    }

    async fn ask(&self, verb: &'static str, request: Request) -> Result<Response, ShimError> {
        Ok(self.ask_with(verb, request, Vec::new()).await?.response)
    }

    /// The same, with descriptors both ways.
    async fn ask_with(
        &self,
        verb: &'static str,
        request: Request,
        fds: Vec<OwnedFd>,
    ) -> Result<Answer<ShimSocket>, ShimError> {
        let id = &self.place.id;
        let ended = |ending| match ending {
            Ending::Lost(_) => self.lost(verb),
            Ending::Broken(violation) => ShimError::Protocol { id: id.clone(), what: one_line(&*violation) },
        };
        let connection = self.connection(verb).await?;
        if connection.welcome().version < request.least_version() {
            return Err(ShimError::TooOld { id: id.clone(), verb });
        }
        let begun = Underway::begin_for(&connection, request, fds, false, self.operation).await;
        let mut call = begun.map_err(|error| match error {
            CallError::Ended(ending) => ended(ending),
            CallError::Unsendable(source) => ShimError::Protocol { id: id.clone(), what: one_line(&source) },
        })?;
        let answer = call.answer().await.map_err(ended)?;
        answer.map_err(|source| ShimError::Refused { id: id.clone(), verb, source })
    }

    async fn within<T>(
        &self,
        verb: &'static str,
        waited: Duration,
        work: impl Future<Output = Result<T, ShimError>>,
    ) -> Result<T, ShimError> {
        match tokio::time::timeout(waited, work).await {
            Ok(result) => result,
            Err(_elapsed) => Err(ShimError::Silent { id: self.place.id.clone(), verb, waited }),
        }
    }

    async fn ask_within(&self, verb: &'static str, waited: Duration, request: Request) -> Result<Response, ShimError> {
        self.within(verb, waited, self.ask(verb, request)).await
    }

    async fn ask_for_pid(&self, verb: &'static str, waited: Duration, request: Request) -> Result<Pid, ShimError> {
        match self.ask_within(verb, waited, request).await? {
            Response::Pid(pid) => Ok(pid),
            other => Err(self.unexpected(verb, &other)),
        }
    }

    async fn ask_to(&self, verb: &'static str, waited: Duration, request: Request) -> Result<(), ShimError> {
        match self.ask_within(verb, waited, request).await? {
            Response::Done => Ok(()),
            other => Err(self.unexpected(verb, &other)),
        }
    }

    /// Where the container is; with the caller's verb, for attach.
    pub(super) async fn state_for(&self, verb: &'static str) -> Result<TaskState, ShimError> {
        match self.ask_within(verb, deadline::STATE, Request::State).await? {
            Response::State(state) => Ok(state),
            other => Err(self.unexpected(verb, &other)),
        }
    }

    /// Waits for an end as long as it takes, also over an upgrade of the shim.
    async fn ask_for_exit(&self, verb: &'static str, request: Request) -> Result<Exit, ShimError> {
        let mut reconnects = 0;
        loop {
            match self.ask(verb, request.clone()).await {
                Ok(Response::Exited(exit)) => return Ok(exit),
                Ok(other) => return Err(self.unexpected(verb, &other)),
                Err(ShimError::Lost { .. }) if reconnects < MAX_WAIT_RECONNECTS => reconnects += 1,
                Err(error) => return Err(error),
            }
        }
    }

    async fn wait_long(&self) -> Result<Exit, ShimError> {
        let exit = self.ask_for_exit("wait", Request::Wait).await?;
        // It is written down.
        self.keep.let_go(&self.place.id);
        self.tell_the_log();
        Ok(exit)
    }

    async fn exec_now(
        &self,
        exec: ExecId,
        process: ExecProcess,
        stdio: Option<[OwnedFd; 3]>,
    ) -> Result<Executed, ShimError> {
        const VERB: &str = "execute a process in";
        let request = Request::Exec { exec, process: Box::new(process) };
        let fds = stdio.map(Vec::from).unwrap_or_default();
        let Answer { response, fds } = self.within(VERB, deadline::EXEC, self.ask_with(VERB, request, fds)).await?;
        let Response::Executes { pid, .. } = response else { return Err(self.unexpected(VERB, &response)) };
        let mut fds = fds.into_iter();
        // As many as the answer says, counted by the session.
        let pidfd = fds.next().ok_or_else(|| self.unexpected(VERB, &response))?;
        Ok(Executed { pid, pidfd, terminal: fds.next() })
    }

    /// Carries the shim's log over, and nobody waits for it.
    pub(super) fn tell_the_log(&self) {
        let place = self.place.clone();
        let told = async move {
            // Without a thread the lines come with the next reading.
            let _later = blocking(&place, "read the log of", |place| {
                place.tell_the_log();
                Ok(())
            })
            .await;
        };
        drop(tokio::spawn(told.in_current_span()));
    }

    async fn hand_over_to(&self, binary: PathBuf) -> Result<(), ShimError> {
        const VERB: &str = "hand over";
        contd_failpoint::hit(Failpoint::UpgradeAsked);
        match self.ask_within(VERB, deadline::STATE, Request::HandOver { binary }).await {
            // The program that has taken over knows nothing of the call.
            Err(ShimError::Lost { .. }) => {}
            Ok(other) => return Err(self.unexpected(VERB, &other)),
            Err(error) => return Err(error),
        }
        let state = self.state_for(VERB).await;
        contd_failpoint::hit(Failpoint::UpgradeDone);
        self.hold(&state?).await;
        Ok(())
    }

    /// Asks it to end, waits until it has, and removes its lease.
    async fn shut_down(&self) -> Result<(), ShimError> {
        const VERB: &str = "shut down the shim of";
        let pidfd = match self.probe(VERB).await? {
            LeaseState::Absent => return Ok(()),
            LeaseState::Held(lease) => lease
                .pidfd()
                .map_err(|error| self.place.clean_up_failed(self.place.lease.path(), std::io::Error::other(error)))?,
            LeaseState::Reserved | LeaseState::Dead(_) | LeaseState::OtherBoot(_) => {
                return self.after_its_death(VERB).await;
            }
        };
        match self.ask_to(VERB, deadline::SHUTDOWN, Request::Shutdown).await {
            Ok(()) => {}
            // It may have ended faster than its answer came; the lease tells.
            Err(ShimError::Lost { .. }) => {
                return match self.probe(VERB).await? {
                    LeaseState::Absent => Ok(()),
                    LeaseState::Held(_) => Err(self.lost(VERB)),
                    _ => self.after_its_death(VERB).await,
                };
            }
            Err(error) => return Err(error),
        }
        blocking(&self.place, VERB, move |place| {
            let failed = |source| place.clean_up_failed(place.lease.path(), source);
            if let Some(pidfd) = pidfd {
                let waited = deadline::SHUTDOWN;
                if !contd_lease::wait_dead(&pidfd, waited).map_err(|error| failed(std::io::Error::other(error)))? {
                    return Err(ShimError::Silent { id: place.id.clone(), verb: VERB, waited });
                }
            }
            place.retire()
        })
        .await
    }

    /// It died without being asked: fine when its container is over, and then all it left is removed.
    async fn after_its_death(&self, verb: &'static str) -> Result<(), ShimError> {
        let is_orphaned = blocking(&self.place, verb, |place| {
            place
                .living_init()
                .map(|init| init.is_some())
                .map_err(|error| place.clean_up_failed(place.lease.path(), error))
        })
        .await?;
        if is_orphaned { Err(self.lost(verb)) } else { clean_up::clean_up(&self.place).await }
    }
}

impl Shim for ProcessShim {
    fn for_operation(&self, operation: RequestId) -> Arc<dyn Shim> {
        Arc::new(Self { operation: Some(operation), ..self.clone() })
    }

    fn create(&self) -> BoxFuture<'_, Result<Pid, ShimError>> {
        async move {
            let pid = self.ask_for_pid("create", deadline::CREATE, Request::Create).await?;
            if self.input != TaskInput::default() {
                // Its life depends on them: it is not started before a second process has them.
                self.hold_now().await?;
                return Ok(pid);
            }
            // While the container is being started: holding is not what the caller waits for.
            let (keep, place) = (Arc::clone(&self.keep), self.place.clone());
            drop(tokio::task::spawn_blocking(move || keep.hold(&place)));
            Ok(pid)
        }
        .boxed()
    }

    fn start(&self) -> BoxFuture<'_, Result<Pid, ShimError>> {
        self.ask_for_pid("start", deadline::START, Request::Start).boxed()
    }

    fn state(&self) -> BoxFuture<'_, Result<TaskState, ShimError>> {
        self.state_for("ask for the state of").boxed()
    }

    fn kill(&self, signal: Signal, is_for_all: bool) -> BoxFuture<'_, Result<(), ShimError>> {
        self.ask_to("kill", deadline::KILL, Request::Kill { signal, is_for_all }).boxed()
    }

    fn set_paused(&self, is_paused: bool) -> BoxFuture<'_, Result<(), ShimError>> {
        let (verb, request) = if is_paused { ("pause", Request::Pause) } else { ("resume", Request::Resume) };
        self.ask_to(verb, deadline::PAUSE, request).boxed()
    }

    fn wait(&self) -> BoxFuture<'_, Result<Exit, ShimError>> {
        self.wait_long().boxed()
    }

    fn delete(&self, force: bool) -> BoxFuture<'_, Result<(), ShimError>> {
        self.ask_to("delete", deadline::DELETE, Request::Delete { force }).boxed()
    }

    fn hand_over(&self) -> BoxFuture<'_, Result<(), ShimError>> {
        self.hand_over_to(self.place.shim_binary.clone()).boxed()
    }

    fn exec(
        &self,
        exec: ExecId,
        process: ExecProcess,
        stdio: Option<[OwnedFd; 3]>,
    ) -> BoxFuture<'_, Result<Executed, ShimError>> {
        self.exec_now(exec, process, stdio).boxed()
    }

    fn wait_exec(&self, exec: ExecId) -> BoxFuture<'_, Result<Exit, ShimError>> {
        const VERB: &str = "wait for a process in";
        async move { self.ask_for_exit(VERB, Request::WaitExec { exec }).await }.boxed()
    }

    fn kill_exec(&self, exec: ExecId, signal: Signal) -> BoxFuture<'_, Result<(), ShimError>> {
        const VERB: &str = "signal a process in";
        async move { self.ask_to(VERB, deadline::KILL, Request::KillExec { exec, signal }).await }.boxed()
    }

    fn execs(&self) -> BoxFuture<'_, Result<Vec<ExecInfo>, ShimError>> {
        const VERB: &str = "list the processes in";
        async move {
            match self.ask_within(VERB, deadline::STATE, Request::Execs).await? {
                Response::Execs(execs) => Ok(execs),
                other => Err(self.unexpected(VERB, &other)),
            }
        }
        .boxed()
    }

    fn open_input(&self) -> BoxFuture<'_, Result<Option<OwnedFd>, ShimError>> {
        const VERB: &str = "open the input of";
        let open = |place: &Place| {
            keep::open_input(place).map_err(|source| {
                let path = place.file(files::STDIN);
                ShimError::OpenInput { id: place.id.clone(), path, source }
            })
        };
        blocking(&self.place, VERB, open).boxed()
    }

    fn close_input(&self) -> BoxFuture<'_, Result<(), ShimError>> {
        async move {
            self.ask_to("close the input of", deadline::STATE, Request::CloseInput).await?;
            self.keep.close_input(&self.place.id);
            Ok(())
        }
        .boxed()
    }

    fn resize(&self, size: WindowSize) -> BoxFuture<'_, Result<(), ShimError>> {
        self.ask_to("resize the terminal of", deadline::STATE, Request::Resize { size }).boxed()
    }

    fn rotate_log(&self) -> BoxFuture<'_, Result<(), ShimError>> {
        self.ask_to("rotate the log of", deadline::STATE, Request::RotateLog).boxed()
    }

    fn shutdown(&self) -> BoxFuture<'_, Result<(), ShimError>> {
        async move {
            self.shut_down().await?;
            self.keep.let_go(&self.place.id);
            Ok(())
        }
        .boxed()
    }
}
