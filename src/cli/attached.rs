//! A run in the foreground: shows the container's output, passes signals on to it, and exits with its exit code.
//!
//! Until the container runs, a signal cancels the run; the daemon undoes the steps done so far. From then on SIGHUP,
//! SIGINT, SIGQUIT and SIGTERM are passed on; a second SIGINT becomes a SIGKILL. If our output is closed, this command
//! ends and the container keeps running. A daemon that is replaced or restarted meanwhile ends nothing.

use contd_client::{Deadline, FollowedRun, Follower, RunItem};
use contd_protocol::api::{LogItem, RunRequest, Target};
use contd_types::{ContainerId, ContainerInfo, ContainerName, ContainerRef, NamespaceId, Signal};
use tokio::sync::mpsc;

use crate::cli::error::CliError;
use crate::cli::host::Session;
use crate::cli::output::{Output, Pump};
use crate::cli::progress::ProgressView;
use crate::cli::run::IdFiles;
use crate::cli::terminal::DetachKeys;
use crate::cli::typing;

/// The number of SIGINT; the type has no constant for it.
const SIGINT: i32 = 2;

/// The state of an attached run.
struct Attached<'a> {
    follower: &'a Follower,
    output: &'a Output,
    namespace: NamespaceId,
    id_files: IdFiles,
    view: ProgressView,
    container: Option<ContainerId>,
    name: ContainerName,
    given_up_by: Option<Signal>,
    interrupts: u32,
    /// Whether the log could not store all of the container's output.
    has_lost_output: bool,
    /// The input that the container wants.
    wants: Wants,
    /// Once it has started.
    typing: Option<typing::Session>,
}

/// The ties to a container beside its output.
#[derive(Debug, Clone)]
pub(crate) struct Wants {
    pub(crate) input: bool,
    pub(crate) terminal: bool,
    pub(crate) keys: DetachKeys,
    /// Whether signals of this command are passed on.
    pub(crate) signals: bool,
}

/// Runs until the container has ended.
pub(crate) async fn run(
    session: &Session<'_>,
    follower: &Follower,
    request: RunRequest,
    id_files: IdFiles,
    wants: Wants,
) -> Result<u8, CliError> {
    let signals = (session.host.catch_signals)().map_err(|source| CliError::Runtime { source })?;
    let attached = Attached {
        id_files,
        ..Attached::new(session, follower, request.namespace.clone(), request.spec.name.clone(), wants)
    };
    let stream = follower.run_attached(request, Deadline::Usual).await?;
    attached.until_its_end(stream, signals).await
}

/// Shows what a container says that runs already, until it ends.
pub(crate) async fn join(
    session: &Session<'_>,
    follower: &Follower,
    info: &ContainerInfo,
    stream: FollowedRun,
    wants: Wants,
) -> Result<u8, CliError> {
    let signals = (session.host.catch_signals)().map_err(|source| CliError::Runtime { source })?;
    let mut attached = Attached::new(session, follower, info.namespace.clone(), info.spec.name.clone(), wants);
    attached.on_started(info.id.clone()).await?;
    attached.until_its_end(stream, signals).await
}

impl<'a> Attached<'a> {
    fn new(
        session: &'a Session<'_>,
        follower: &'a Follower,
        namespace: NamespaceId,
        name: ContainerName,
        wants: Wants,
    ) -> Self {
        let output = &session.host.output;
        Self {
            follower,
            output,
            namespace,
            id_files: IdFiles::default(),
            view: ProgressView::new(output),
            container: None,
            name,
            given_up_by: None,
            interrupts: 0,
            has_lost_output: false,
            wants,
            typing: None,
        }
    }

    async fn until_its_end(
        mut self,
        mut stream: FollowedRun,
        mut signals: mpsc::Receiver<Signal>,
    ) -> Result<u8, CliError> {
        let pump = Pump::start(self.output);
        let result = self.follow(&mut stream, &pump, &mut signals).await;
        self.view.clear();
        // The user's terminal is as it was from here on.
        self.typing = None;
        // Show all output of the container before any error; a closed output is never more important than that error.
        let written = tokio::select! {
            written = pump.finish() => written,
            // Our output is blocked, and the user sends a second signal.
            Some(signal) = signals.recv() => Err(CliError::Interrupted { signal }),
        };
        match (result, self.given_up_by, &self.container) {
            (Err(_), Some(signal), None) => Err(CliError::Interrupted { signal }),
            (Ok(code), ..) if self.has_lost_output && written.is_ok() => self.tell_loss(code),
            (Ok(code), ..) => written.map(|()| code),
            (Err(error), ..) => Err(error),
        }
    }

    async fn follow(
        &mut self,
        stream: &mut FollowedRun,
        pump: &Pump,
        signals: &mut mpsc::Receiver<Signal>,
    ) -> Result<u8, CliError> {
        loop {
            let item = tokio::select! {
                biased;
                Some(signal) = signals.recv() => {
                    self.on_signal(signal, stream).await?;
                    continue;
                }
                detached = detached(&mut self.typing) => return detached.map(|()| 0),
                item = stream.next() => item,
            };
            match item {
                Some(Ok(RunItem::Progress(progress))) => self.view.show(&progress),
                Some(Ok(RunItem::Started { id })) => self.on_started(id).await?,
                Some(Ok(RunItem::Log(log))) => {
                    if !self.write(log, pump, stream, signals).await? {
                        return Ok(0); // The pump's own error is the result.
                    }
                }
                Some(Ok(RunItem::Exited { exit, .. })) => {
                    self.has_lost_output = exit.has_lost_output();
                    return Ok(exit.shell_code());
                }
                Some(Err(error)) => return Err(error.into()),
                // The stream ends with an exit or an error, and both are handled above.
                None => return Ok(0),
            }
        }
    }

    /// Reports that the shown output is incomplete. The container's own failure decides the exit code.
    fn tell_loss(&self, code: u8) -> Result<u8, CliError> {
        let lost = CliError::OutputLost { name: self.name.clone() };
        if code == 0 {
            return Err(lost);
        }
        lost.report(self.output);
        Ok(code)
    }

    async fn on_started(&mut self, id: ContainerId) -> Result<(), CliError> {
        self.view.clear();
        self.container = Some(id.clone());
        if let Some(target) = self.target() {
            let client = self.follower.client().await;
            // On the heap, as below.
            Box::pin(self.id_files.write(&client, target, &id)).await?;
        }
        self.begin_typing().await?;
        // The signal came before the start was reported, but too late to cancel it: pass it on now.
        if let Some(signal) = self.given_up_by {
            self.pass_on(signal).await;
        }
        Ok(())
    }

    async fn begin_typing(&mut self) -> Result<(), CliError> {
        let Some(target) = self.target().filter(|_| self.wants.input || self.wants.terminal) else { return Ok(()) };
        let Wants { input, keys, .. } = self.wants.clone();
        match typing::Session::begin(self.follower, target, input, keys).await {
            Ok(typing) => self.typing = Some(typing),
            // It has ended meanwhile.
            Err(CliError::Client(error)) if typing::is_over(&error) => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn target(&self) -> Option<Target> {
        let container = ContainerRef::from(self.container.as_ref()?);
        Some(Target { namespace: self.namespace.clone(), container })
    }

    /// Queues a piece of output; handles signals while our output is slow. False when our output is closed.
    async fn write(
        &mut self,
        log: LogItem,
        pump: &Pump,
        stream: &mut FollowedRun,
        signals: &mut mpsc::Receiver<Signal>,
    ) -> Result<bool, CliError> {
        loop {
            tokio::select! {
                biased;
                Some(signal) = signals.recv() => self.on_signal(signal, stream).await?,
                room = pump.room() => {
                    let Some(room) = room else { return Ok(false) };
                    room.send((log.stream, log.content));
                    return Ok(true);
                }
            }
        }
    }

    async fn on_signal(&mut self, signal: Signal, stream: &mut FollowedRun) -> Result<(), CliError> {
        if self.container.is_some() {
            if !self.wants.signals {
                return Err(CliError::Interrupted { signal });
            }
            self.interrupts = self.interrupts.saturating_add(u32::from(signal.number() == SIGINT));
            let is_insisting = signal.number() == SIGINT && self.interrupts > 1;
            self.pass_on(if is_insisting { Signal::KILL } else { signal }).await;
            return Ok(());
        }
        if self.given_up_by.is_some() {
            return Err(CliError::Interrupted { signal });
        }
        self.given_up_by = Some(signal);
        self.interrupts = u32::from(signal.number() == SIGINT);
        stream.cancel();
        Ok(())
    }

    async fn pass_on(&self, signal: Signal) {
        let Some(target) = self.target() else { return };
        // On the heap: this call lies inside all other futures of an attached run, and threads of tests have small stacks.
        let client = self.follower.client().await;
        match Box::pin(client.kill(target, signal, Deadline::Usual)).await {
            Ok(()) => {}
            // The container has ended meanwhile; its exit follows in the stream.
            Err(error) if typing::is_over(&error) => {}
            Err(error) => CliError::from(error).report(self.output),
        }
    }
}

/// Waits until the user parts from the container.
async fn detached(typing: &mut Option<typing::Session>) -> Result<(), CliError> {
    match typing {
        Some(typing) => typing.detached().await,
        None => std::future::pending().await,
    }
}
