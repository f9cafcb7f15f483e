//! From a program that was started to a process that belongs to nobody: fork, session, descriptors, signals.

use std::fs::OpenOptions;
use std::io::{self, PipeReader, Read, Write};
use std::process::{Child, Command, ExitCode};

use contd_protocol::shim::EXIT_RUN_OUT;
use nix::sys::signal::{SigSet, SigmaskHow, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::stat::{Mode, umask};

use crate::sys;

/// The child's word when it is ready to accept; any other says why it is not.
const READY: &[u8] = b"ready\n";

/// The most that is passed on of why it is not.
const MAX_WORDS_BYTES: u64 = 16 * 1024;

/// Signals that must not end a shim: of a terminal, of a session's end, of a stray `kill`.
const BLOCKED: [Signal; 8] = [
    Signal::SIGCHLD,
    Signal::SIGHUP,
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGTERM,
    Signal::SIGPIPE,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
];

/// Before the words of a child that cannot come up because something has run out.
const RUN_OUT: &[u8] = b"\x0e";

/// Which process goes on here.
pub(crate) enum Side {
    /// The one that was started; it ends with this.
    Parent(ExitCode),
    /// The one that stays.
    Child(ReadyPipe),
}

/// The way of the child to tell its parent.
#[derive(Debug)]
pub(crate) struct ReadyPipe(io::PipeWriter);

impl ReadyPipe {
    /// Says that callers are accepted from now on; the parent ends.
    pub(crate) fn ready(mut self) -> io::Result<()> {
        self.0.write_all(READY)
    }

    /// Says why it cannot be, and whether something has run out.
    pub(crate) fn failed(mut self, words: &str, has_run_out: bool) {
        let mark = if has_run_out { RUN_OUT } else { &[] };
        // A parent that is gone does not ask.
        let _nobody_listens = self.0.write_all(&[mark, words.as_bytes()].concat());
    }
}

/// Forks; the parent waits for the child to be ready. Only legal as the first thing a process does.
pub(crate) fn fork_and_wait() -> io::Result<Side> {
    sys::close_inherited()?;
    let (reader, writer) = io::pipe()?;
    match sys::fork()? {
        sys::Fork::Child => Ok(Side::Child(ReadyPipe(writer))),
        sys::Fork::Parent(_) => {
            drop(writer);
            Ok(Side::Parent(wait_for_child(reader)))
        }
    }
}

fn wait_for_child(reader: PipeReader) -> ExitCode {
    let mut words = Vec::new();
    match reader.take(MAX_WORDS_BYTES).read_to_end(&mut words) {
        Ok(_) if words == READY => return ExitCode::SUCCESS,
        Ok(0) => words.extend_from_slice(b"it ended before it was ready\n"),
        Ok(_) => {}
        Err(error) => words = format!("wait for it to be ready: {error}\n").into_bytes(),
    }
    let (code, words) = match words.strip_prefix(RUN_OUT) {
        Some(words) => (u8::try_from(EXIT_RUN_OUT).map_or(ExitCode::FAILURE, ExitCode::from), words),
        None => (ExitCode::FAILURE, words.as_slice()),
    };
    // For people and for the daemon's log; who has closed stderr does not ask.
    let _nobody_listens = io::stderr().write_all(words);
    code
}

/// Leaves the session, the directory and the descriptors of whoever started us, and becomes a subreaper.
pub(crate) fn detach() -> io::Result<()> {
    nix::unistd::setsid()?;
    nix::unistd::chdir("/")?;
    let null = OpenOptions::new().read(true).write(true).open("/dev/null")?;
    nix::unistd::dup2_stdin(&null)?;
    nix::unistd::dup2_stdout(&null)?;
    nix::unistd::dup2_stderr(&null)?;
    umask(Mode::S_IWGRP | Mode::S_IWOTH);
    nix::sys::prctl::set_child_subreaper(true)?;
    Ok(())
}

/// Blocks signals and opens the descriptor from which they are read.
pub(crate) fn catch_signals() -> io::Result<SignalFd> {
    sys::catch_without_effect(&BLOCKED)?;
    let set: SigSet = BLOCKED.into_iter().collect();
    set.thread_block()?;
    Ok(SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?)
}

/// Starts a process that has no signal blocked: it inherits our mask, and would pass it on to the container.
///
/// A signal that comes in this moment has no effect, so the caller looks for ended children afterwards.
pub(crate) fn spawn(command: &mut Command) -> io::Result<Child> {
    let before = SigSet::empty().thread_swap_mask(SigmaskHow::SIG_SETMASK)?;
    let child = command.spawn();
    before.thread_set_mask()?;
    child
}
