//! A run in the foreground: shows the container's output, passes signals on to it, and exits with its exit code.
//!
//! Until the container runs, a signal cancels the run; the daemon undoes the steps done so far. From then on SIGHUP,
//! SIGINT, SIGQUIT and SIGTERM are passed on; a second SIGINT becomes a SIGKILL. If our output is closed, this command
//! ends and the container keeps running.

use contd_client::{Client, Deadline, RunItem, RunStream};
use contd_protocol::api::{LogItem, RunRequest, Target};
use contd_types::{ContainerId, ContainerName, ContainerRef, ErrorKind, Explain, NamespaceId, Signal};
use tokio::sync::mpsc;

use crate::cli::error::CliError;
use crate::cli::host::Session;
use crate::cli::output::{Output, Pump};
use crate::cli::progress::ProgressView;
use crate::cli::run::IdFile;

/// The number of SIGINT; the type has no constant for it.
const SIGINT: i32 = 2;

/// The state of an attached run.
struct Attached<'a> {
    client: &'a Client,
    output: &'a Output,
    namespace: NamespaceId,
    id_file: Option<IdFile>,
    view: ProgressView,
    container: Option<ContainerId>,
    name: ContainerName,
    given_up_by: Option<Signal>,
    interrupts: u32,
    /// Whether the log could not store all of the container's output.
    has_lost_output: bool,
}

/// Runs until the container has ended.
pub(crate) async fn run(
    session: &Session<'_>,
    client: &Client,
    request: RunRequest,
    id_file: Option<IdFile>,
) -> Result<u8, CliError> {
    let mut signals = (session.host.catch_signals)().map_err(|source| CliError::Runtime { source })?;
    let output = &session.host.output;
    let mut attached = Attached {
        client,
        output,
        namespace: request.namespace.clone(),
        id_file,
        view: ProgressView::new(output),
        container: None,
        name: request.spec.name.clone(),
        given_up_by: None,
        interrupts: 0,
        has_lost_output: false,
    };
    let mut stream = client.run_attached(request, Deadline::Usual).await?;
    let pump = Pump::start(output);
    let result = attached.follow(&mut stream, &pump, &mut signals).await;
    attached.view.clear();
    // Show all output of the container before any error; a closed output is never more important than that error.
    let written = tokio::select! {
        written = pump.finish() => written,
        // Our output is blocked, and the user sends a second signal.
        Some(signal) = signals.recv() => Err(CliError::Interrupted { signal }),
    };
    match (result, attached.given_up_by, &attached.container) {
        (Err(_), Some(signal), None) => Err(CliError::Interrupted { signal }),
        (Ok(code), ..) if attached.has_lost_output && written.is_ok() => attached.tell_loss(code),
        (Ok(code), ..) => written.map(|()| code),
        (Err(error), ..) => Err(error),
    }
}

impl Attached<'_> {
    async fn follow(
        &mut self,
        stream: &mut RunStream,
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
        if let Some(file) = &mut self.id_file {
            file.write(&id)?;
        }
        self.container = Some(id);
        // The signal came before the start was reported, but too late to cancel it: pass it on now.
        if let Some(signal) = self.given_up_by {
            self.pass_on(signal).await;
        }
        Ok(())
    }

    /// Queues a piece of output; handles signals while our output is slow. False when our output is closed.
    async fn write(
        &mut self,
        log: LogItem,
        pump: &Pump,
        stream: &mut RunStream,
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

    async fn on_signal(&mut self, signal: Signal, stream: &mut RunStream) -> Result<(), CliError> {
        if self.container.is_some() {
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
        let Some(id) = &self.container else { return };
        let target = Target { namespace: self.namespace.clone(), container: ContainerRef::from(id) };
        // On the heap: this call lies inside all other futures of an attached run, and threads of tests have small stacks.
        match Box::pin(self.client.kill(target, signal, Deadline::Usual)).await {
            Ok(()) => {}
            // The container has ended meanwhile; its exit follows in the stream.
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Conflict) => {}
            Err(error) => CliError::from(error).report(self.output),
        }
    }
}
