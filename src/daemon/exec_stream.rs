//! Executed processes whose input and output travel in frames, for callers that cannot take descriptors.
//!
//! ```text
//!  ExecInput, ResizeExec ─► Input ─► pipe, or terminal ─► process ─► pipes, or terminal ─► Output ─► Item::Log, by credit
//! ```
//!
//! The ends that are not the process's are held here: such a session ends with its connection and with the daemon, one of
//! descriptors with neither.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use contd_actors::ask_api;
use contd_actors::messages::{ExecContainer, ExecutedProcess, InspectContainer, WaitExec};
use contd_protocol::api::{ExecRequest, Item, LogItem, LogStream, MAX_LOG_ITEM_BYTES, Response, Target};
use contd_types::{
    ApiError, Clock as _, ContainerId, ContainerRef, ErrorKind, ExecId, Exit, Shortage, SystemClock, WindowSize,
};
use tokio::io::AsyncWriteExt as _;
use tokio::net::unix::pipe::{Receiver, Sender};
use tokio::time::Instant;

use crate::daemon::calls::{Backend, CHANGE_DEADLINE, NO_DEADLINE, QUERY_DEADLINE};
use crate::daemon::connection::ItemSender;

/// The key that ends the input of a terminal, unless its process has chosen another.
const CTRL_D: u8 = 4;
/// The room of a pipe: there is no more in it when its process has ended.
const PIPE_BYTES: usize = 64 * 1024;
/// How long a shim that is being replaced may take to tell an end that has come.
const TOLD_WITHIN: Duration = Duration::from_secs(10);
/// Between two questions.
const ASK_AGAIN: Duration = Duration::from_millis(50);

/// The inputs of all sessions under way.
#[derive(Debug, Default)]
pub(crate) struct Inputs(Mutex<HashMap<ExecId, Arc<Input>>>);

/// The input of one process.
#[derive(Debug)]
struct Input {
    container: ContainerId,
    /// `None` once it is closed.
    pipe: tokio::sync::Mutex<Option<Sender>>,
    /// The master of its terminal, if it has one.
    terminal: Option<OwnedFd>,
}

/// Forgets the input of a session with it.
struct Listed<'a> {
    inputs: &'a Inputs,
    exec: ExecId,
}

impl Inputs {
    fn list(&self, exec: ExecId, input: Input) -> Listed<'_> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(exec, Arc::new(input));
        Listed { inputs: self, exec }
    }

    fn find(&self, exec: ExecId, container: &ContainerId) -> Option<Arc<Input>> {
        let inputs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        inputs.get(&exec).filter(|input| input.container == *container).cloned()
    }
}

impl Drop for Listed<'_> {
    fn drop(&mut self) {
        self.inputs.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.exec);
    }
}

/// The output of one process: of its terminal, or its two pipes.
#[derive(Debug)]
struct Output {
    stdout: Option<Receiver>,
    stderr: Option<Receiver>,
}

impl Output {
    /// Waits for the next piece; for ever once all is closed.
    async fn next(&mut self) -> (LogStream, Vec<u8>) {
        tokio::select! {
            piece = next_of(&mut self.stdout) => (LogStream::Stdout, piece),
            piece = next_of(&mut self.stderr) => (LogStream::Stderr, piece),
        }
    }

    /// Takes what is there of one stream.
    fn rest(&self, stream: LogStream) -> Vec<u8> {
        let from = match stream {
            LogStream::Stdout => &self.stdout,
            LogStream::Stderr => &self.stderr,
        };
        let mut piece = vec![0; MAX_LOG_ITEM_BYTES];
        let count = from.as_ref().and_then(|from| from.try_read(&mut piece).ok()).unwrap_or(0);
        piece.truncate(count);
        piece
    }
}

/// Waits for the next piece; for ever once it is closed.
async fn next_of(from: &mut Option<Receiver>) -> Vec<u8> {
    while let Some(pipe) = from {
        let mut piece = vec![0; MAX_LOG_ITEM_BYTES];
        let read = match pipe.readable().await {
            Ok(()) => pipe.try_read(&mut piece),
            Err(error) => Err(error),
        };
        match read {
            Ok(count @ 1..) => {
                piece.truncate(count);
                return piece;
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            // The last holder of a terminal's other end has gone, which is EIO.
            Ok(0) | Err(_) => *from = None,
        }
    }
    std::future::pending().await
}

/// Executes a process, and passes its output on until it has ended.
pub(crate) async fn serve(
    backend: &Backend,
    request: ExecRequest,
    mut items: ItemSender,
) -> Result<Response, ApiError> {
    let ExecRequest { target, spec, .. } = request;
    let namespace = target.namespace.clone();
    let pipes = if spec.terminal.is_none() { Some(Pipes::make().map_err(|error| failed(&error))?) } else { None };
    let (stdio, ours) = pipes.map(|pipes| (pipes.theirs, pipes.ours)).unzip();
    let message = ExecContainer { target, exec: spec, stdio };
    let executed = ask_api(&backend.supervisor, message, CHANGE_DEADLINE).await?;
    let ExecutedProcess { container, exec, pid, pidfd, terminal } = executed;
    let (input, mut output) = tie(container.clone(), ours, terminal).map_err(|error| failed(&error))?;
    let _listed = backend.inputs.list(exec, input);
    let id = container.clone();
    if items.send(Item::Executes { id: id.clone(), exec, pid }).await.is_err() {
        return Ok(Response::Done);
    }
    let target = Target { namespace, container: ContainerRef::from(&container) };
    let mut exit = std::pin::pin!(ended(backend, target, exec, pidfd));
    let exit = loop {
        let (stream, content) = tokio::select! {
            biased;
            exit = &mut exit => break exit?,
            piece = output.next() => piece,
            () = items.until_cancelled() => return Ok(Response::Done),
            left = backend.left() => return Err(left),
        };
        if items.send(log(stream, content)).await.is_err() {
            return Ok(Response::Done);
        }
    };
    for stream in [LogStream::Stdout, LogStream::Stderr] {
        // Others may have it open still, and go on writing.
        let mut left = PIPE_BYTES;
        while left > 0 {
            let content = output.rest(stream);
            if content.is_empty() {
                break;
            }
            left = left.saturating_sub(content.len());
            if items.send(log(stream, content)).await.is_err() {
                return Ok(Response::Done);
            }
        }
    }
    Ok(Response::Exited { id, exit })
}

/// Writes to the input of a process, and closes it behind the last piece.
pub(crate) async fn write(
    backend: &Backend,
    target: Target,
    exec: ExecId,
    mut content: Vec<u8>,
    is_last: bool,
) -> Result<Response, ApiError> {
    const WHAT: &str = "write to the input of a process in container";
    if content.len() > MAX_LOG_ITEM_BYTES {
        let message = format!("{WHAT} {}: a piece of {} bytes", target.container, content.len());
        let hint = format!("send at most {MAX_LOG_ITEM_BYTES} bytes at once");
        return Err(ApiError::new(ErrorKind::InvalidArgument, message).with_hint(hint));
    }
    let input = find(backend, &target, exec, WHAT).await?;
    if is_last && input.terminal.is_some() {
        content.push(CTRL_D);
    }
    let mut pipe = input.pipe.lock().await;
    let Some(open) = pipe.as_mut() else {
        let message = format!("{WHAT} {}: it is closed", target.container);
        return Err(ApiError::new(ErrorKind::Conflict, message).with_hint("the last piece was sent already"));
    };
    let written = tokio::select! {
        written = open.write_all(&content) => written,
        left = backend.left() => return Err(left),
    };
    if is_last && input.terminal.is_none() {
        *pipe = None;
    }
    written.map(|()| Response::Done).map_err(|error| {
        let message = format!("{WHAT} {}", target.container);
        let error = ApiError { causes: vec![error.to_string()], ..ApiError::new(ErrorKind::Conflict, message) };
        error.with_hint("the process has closed its input, or has ended")
    })
}

/// Changes the size of a process's terminal.
pub(crate) async fn resize(
    backend: &Backend,
    target: Target,
    exec: ExecId,
    size: WindowSize,
) -> Result<Response, ApiError> {
    const WHAT: &str = "resize the terminal of a process in container";
    let input = find(backend, &target, exec, WHAT).await?;
    let Some(master) = &input.terminal else {
        let message = format!("{WHAT} {}: it has none", target.container);
        return Err(ApiError::new(ErrorKind::InvalidArgument, message).with_hint("execute it with a terminal"));
    };
    let resized = contd_descriptors::terminal::resize(master, size.rows, size.columns);
    resized.map(|()| Response::Done).map_err(|error| failed(&error))
}

async fn find(backend: &Backend, target: &Target, exec: ExecId, what: &str) -> Result<Arc<Input>, ApiError> {
    let info = ask_api(&backend.supervisor, InspectContainer { target: target.clone() }, QUERY_DEADLINE).await?;
    backend.inputs.find(exec, &info.id).ok_or_else(|| {
        let message = format!("{what} {}: no session of frames has a process {exec}", target.container);
        ApiError::new(ErrorKind::NotFound, message).with_hint("it has ended, or its caller has its descriptors")
    })
}

/// Waits for the end of a process: from the kernel where it tells, otherwise from the shim.
async fn ended(backend: &Backend, target: Target, exec: ExecId, pidfd: OwnedFd) -> Result<Exit, ApiError> {
    if let Some(exit) = contd_client::ended(pidfd.as_fd()).await.map_err(|error| failed(&error))? {
        return Ok(exit);
    }
    let late = Instant::now() + TOLD_WITHIN;
    loop {
        match ask_api(&backend.supervisor, WaitExec { target: target.clone(), exec }, NO_DEADLINE).await {
            Err(error) if error.kind == ErrorKind::Unavailable && Instant::now() < late => {
                tokio::time::sleep(ASK_AGAIN).await;
            }
            exit => return exit,
        }
    }
}

fn log(stream: LogStream, content: Vec<u8>) -> Item {
    Item::Log(LogItem { at: SystemClock.now(), stream, content })
}

fn failed(error: &io::Error) -> ApiError {
    let kind = Shortage::of_spawn(error).map_or(ErrorKind::Internal, |_| ErrorKind::OutOfResources);
    let message = "pass the input and output of a process on".to_owned();
    ApiError { causes: vec![error.to_string()], ..ApiError::new(kind, message) }
}

/// Our ends of three pipes.
struct Ours {
    stdin: OwnedFd,
    stdout: OwnedFd,
    stderr: OwnedFd,
}

struct Pipes {
    theirs: [OwnedFd; 3],
    ours: Ours,
}

impl Pipes {
    fn make() -> io::Result<Self> {
        let ((read, stdin), (stdout, out), (stderr, err)) = (io::pipe()?, io::pipe()?, io::pipe()?);
        let ours = Ours { stdin: stdin.into(), stdout: stdout.into(), stderr: stderr.into() };
        Ok(Self { theirs: [read.into(), out.into(), err.into()], ours })
    }
}

/// Makes what the other ends are read and written by.
fn tie(container: ContainerId, ours: Option<Ours>, terminal: Option<OwnedFd>) -> io::Result<(Input, Output)> {
    let (to, stdout, stderr) = match (ours, &terminal) {
        (Some(ours), _) => (ours.stdin, ours.stdout, Some(ours.stderr)),
        (None, Some(master)) => (master.try_clone()?, master.try_clone()?, None),
        (None, None) => return Err(io::Error::other("the process has neither pipes nor a terminal")),
    };
    for fd in [&to, &stdout].into_iter().chain(&stderr) {
        rustix::io::ioctl_fionbio(fd, true)?;
    }
    // Of a terminal no more is asked than of a pipe.
    let stderr = stderr.map(Receiver::from_owned_fd_unchecked).transpose()?;
    let output = Output { stdout: Some(Receiver::from_owned_fd_unchecked(stdout)?), stderr };
    let pipe = tokio::sync::Mutex::new(Some(Sender::from_owned_fd_unchecked(to)?));
    Ok((Input { container, pipe, terminal }, output))
}
