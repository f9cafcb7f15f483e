//! `contd exec`: executes one more process in a running container.
//!
//! The process gets this command's own descriptors, or a terminal whose master comes back here: no process of ours stands between
//! the two, so neither the death of the daemon nor that of the shim ends a session.

use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use contd_client::{Client, ClientError, Deadline, Executed, Follower};
use contd_protocol::api::{ExecRequest, Target};
use contd_types::{ContainerRef, ExecSpec, Exit, Signal, UserSpec};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::cli::completion::containers;
use crate::cli::environment;
use crate::cli::error::CliError;
use crate::cli::host::Session;
use crate::cli::parse;
use crate::cli::terminal::{self, DetachKeys, Raw};
use crate::cli::typing::{self, Parted, Typing};

/// How long the last output of a terminal is waited for: another process may have it open still.
const LAST_WORDS: Duration = Duration::from_millis(200);
/// Bytes that are passed on at once.
const PIECE_BYTES: usize = 16 * 1024;

/// The flags of `contd exec`.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct ExecArgs {
    /// Leave the process to itself, with no input and no output, and print its id
    #[arg(short, long, conflicts_with_all = ["interactive", "tty"])]
    detach: bool,
    /// Pass standard input on
    #[arg(short, long)]
    interactive: bool,
    /// Give the process a terminal of its own
    #[arg(short, long)]
    tty: bool,
    /// Set a variable, or pass it on from this command's environment
    #[arg(short, long = "env", value_name = "KEY[=VALUE]")]
    env: Vec<String>,
    /// Set the variables of a file: KEY=VALUE or KEY on each line
    #[arg(long, value_name = "FILE")]
    env_file: Vec<PathBuf>,
    /// The user, as the container's own files name it [default: the container's]
    #[arg(short, long, value_name = "USER[:GROUP]", value_parser = parse::user)]
    user: Option<UserSpec>,
    /// The working directory in the container [default: the container's]
    #[arg(short, long, value_name = "DIR")]
    workdir: Option<String>,
    /// The keys that end this command and leave the process of a terminal running; "" for none
    #[arg(long, value_name = "KEYS", default_value = "ctrl-p,ctrl-q", value_parser = DetachKeys::parse)]
    detach_keys: DetachKeys,
    /// Not possible: a process has no more rights than its container
    #[arg(long, hide = true)]
    privileged: bool,
    /// The container: its name, id, or the beginning of its id
    #[arg(value_parser = parse::container, add = clap_complete::ArgValueCandidates::new(containers))]
    container: ContainerRef,
    /// The command and its arguments, flags too
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true, value_name = "COMMAND")]
    command: Vec<String>,
}

/// Executes the process, and exits with its code.
pub(crate) async fn run(session: &Session<'_>, args: ExecArgs) -> Result<u8, CliError> {
    if args.privileged {
        return Err(CliError::PrivilegedExec);
    }
    if args.tty && args.interactive && terminal::size_of(io::stdin()).is_none() {
        return Err(CliError::NoTerminal);
    }
    let request = request(session, &args)?;
    let target = request.target.clone();
    let client = session.connect().await?;
    if args.detach {
        let executed = client.exec(request, None, Deadline::Usual).await?;
        session.host.output.line(&executed.exec.to_string())?;
        return Ok(0);
    }
    let mut signals = (session.host.catch_signals)().map_err(|source| CliError::Runtime { source })?;
    let stdio = if args.tty { None } else { Some(own_descriptors(args.interactive)?) };
    let mut executed = client.exec(request, stdio, Deadline::Usual).await?;
    let mut window = match executed.terminal.take() {
        Some(master) => Some(Window::open(&master, args.interactive, args.detach_keys)?),
        None => None,
    };
    let mut exit = std::pin::pin!(exit_of(session, target.clone(), &executed));
    let code = loop {
        tokio::select! {
            biased;
            exit = &mut exit => break exit?.shell_code(),
            () = detached(&mut window) => return Ok(0),
            Some(signal) = signals.recv() => pass_on(&client, &target, &executed, signal).await?,
        }
    };
    if let Some(window) = window {
        window.finish().await;
    }
    Ok(code)
}

/// Waits until the user parts from the process.
async fn detached(window: &mut Option<Window>) {
    if let Some(window) = window {
        while window.typing.parted().await == Parted::Ended {}
        return;
    }
    std::future::pending::<()>().await;
}

fn request(session: &Session<'_>, args: &ExecArgs) -> Result<ExecRequest, CliError> {
    let mut env = environment::collect(&args.env_file, &args.env, &session.host.env)?;
    if args.tty && !env.iter().any(|entry| entry.starts_with("TERM=")) {
        let term = (session.host.env)("TERM").unwrap_or_else(|| "xterm".to_owned());
        env.push(format!("TERM={term}"));
    }
    let spec = ExecSpec {
        args: args.command.clone(),
        env,
        cwd: args.workdir.clone(),
        user: args.user.clone(),
        terminal: args.tty.then(|| typing::window_size().unwrap_or_default()),
    };
    let has_descriptors = !args.tty && !args.detach;
    Ok(ExecRequest { target: session.target(args.container.clone()), spec, has_descriptors })
}

/// Duplicates this command's descriptors 0, 1 and 2; without input the first is `/dev/null`.
fn own_descriptors(has_input: bool) -> Result<[OwnedFd; 3], CliError> {
    let duplicate = |fd: BorrowedFd<'_>| fd.try_clone_to_owned();
    let open = || {
        let stdin = if has_input { duplicate(io::stdin().as_fd())? } else { std::fs::File::open("/dev/null")?.into() };
        Ok([stdin, duplicate(io::stdout().as_fd())?, duplicate(io::stderr().as_fd())?])
    };
    open().map_err(|source: io::Error| CliError::Runtime { source })
}

/// Waits for the end of the process: from the kernel where it tells, otherwise from whichever daemon there is.
async fn exit_of(session: &Session<'_>, target: Target, executed: &Executed) -> Result<Exit, CliError> {
    if let Some(exit) = executed.ended().await.map_err(|source| CliError::Runtime { source })? {
        return Ok(exit);
    }
    // By id: the name may be another container's by now.
    let target = Target { container: ContainerRef::from(&executed.container), ..target };
    let follower: Follower = session.follow().await?;
    Ok(follower.wait_exec(target, executed.exec).await?)
}

/// Passes a signal on to the process; one that has ended needs none.
async fn pass_on(client: &Client, target: &Target, executed: &Executed, signal: Signal) -> Result<(), CliError> {
    let send = contd_descriptors::pidfd::send_signal(executed.pidfd(), signal.number());
    match send.map_err(|error| error.kind()) {
        Ok(()) | Err(io::ErrorKind::NotFound) => return Ok(()),
        // The process is another user's: the daemon may.
        Err(_) => {}
    }
    match client.kill_exec(target.clone(), executed.exec, signal, Deadline::Usual).await {
        Ok(()) => Ok(()),
        Err(ClientError::Api(error)) if error.kind == contd_types::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// The user's terminal, tied to that of the process.
struct Window {
    /// As it was when this is dropped.
    _raw: Option<Raw<'static>>,
    resizing: JoinHandle<()>,
    shown: oneshot::Receiver<()>,
    typing: Typing,
}

impl Window {
    /// Ties both, in threads of their own: what is read and written there waits.
    fn open(master: &OwnedFd, has_input: bool, keys: DetachKeys) -> Result<Self, CliError> {
        let failed = |source| CliError::Runtime { source };
        let raw = if has_input { Some(Raw::make(typing::stdin()).map_err(failed)?) } else { None };
        let clone = || master.try_clone().map(std::fs::File::from).map_err(failed);
        let (typed, mut said, resized) = (clone()?, clone()?, Arc::new(clone()?));
        let typing = if has_input { Typing::begin(typed, keys) } else { Typing::none() };
        let (is_shown, shown) = oneshot::channel();
        std::thread::spawn(move || {
            show(&mut said);
            let _gone = is_shown.send(());
        });
        let resizing = typing::on_resize(move |size| {
            let resized = Arc::clone(&resized);
            async move {
                // The process has ended meanwhile.
                let _gone = terminal::resize(&*resized, size);
            }
        })?;
        Ok(Self { _raw: raw, resizing, shown, typing })
    }

    /// Shows the last output.
    async fn finish(self) {
        self.resizing.abort();
        let _another_holds_it = tokio::time::timeout(LAST_WORDS, self.shown).await;
    }
}

/// Shows what the process says, until its terminal is closed.
fn show(said: &mut std::fs::File) {
    let mut piece = [0; PIECE_BYTES];
    while let Ok(count @ 1..) = said.read(&mut piece) {
        let mut out = io::stdout().lock();
        if out.write_all(piece.get(..count).unwrap_or_default()).and_then(|()| out.flush()).is_err() {
            return;
        }
    }
}
