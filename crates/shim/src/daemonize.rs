//! From a program that was started to a process that belongs to nobody: fork, session, descriptors, signals.

use std::io::{self, Write as _};
use std::process::{Child, Command, ExitCode};

use contd_failpoint::Failpoint;
use contd_process::{ReadyPipe, Side, Word, close_all_but};
use contd_protocol::shim::EXIT_RUN_OUT;
use nix::sys::signal::{SigSet, SigmaskHow, Signal, raise};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::stat::Mode;

use crate::sys;

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

/// Forks; the child goes on with its pipe, and the parent has waited for it and ends with this code. Only legal as the first
/// thing a process does.
pub(crate) fn fork_and_wait() -> io::Result<Result<ReadyPipe, ExitCode>> {
    close_all_but(&[])?;
    Ok(match contd_process::fork_and_wait()? {
        Side::Child(pipe) => Ok(pipe),
        Side::Parent(word) => Err(pass_on(word)),
    })
}

fn pass_on(word: io::Result<Word>) -> ExitCode {
    let words = match word {
        Ok(Word::Ready) => return ExitCode::SUCCESS,
        Ok(Word::Failed(words)) if words.is_empty() => b"it ended before it was ready\n".to_vec(),
        Ok(Word::Failed(words)) => words,
        Err(error) => format!("wait for it to be ready: {error}\n").into_bytes(),
    };
    let (code, words) = match words.strip_prefix(RUN_OUT) {
        Some(words) => (u8::try_from(EXIT_RUN_OUT).map_or(ExitCode::FAILURE, ExitCode::from), words),
        None => (ExitCode::FAILURE, words.as_slice()),
    };
    // For people and for the daemon's log; who has closed stderr does not ask.
    let _nobody_listens = io::stderr().write_all(words);
    code
}

/// Tells the parent why this process cannot come up, and whether something has run out.
pub(crate) fn tell_failure(pipe: &ReadyPipe, words: &str, has_run_out: bool) {
    let mark = if has_run_out { RUN_OUT } else { &[] };
    pipe.failed(&[mark, words.as_bytes()].concat());
}

/// Leaves the session, the directory and the standard streams of the process that started us, and becomes a subreaper.
pub(crate) fn detach() -> io::Result<()> {
    contd_process::detach(Mode::S_IWGRP | Mode::S_IWOTH)?;
    Ok(nix::sys::prctl::set_child_subreaper(true)?)
}

/// Blocks signals and opens the descriptor from which they are read.
pub(crate) fn catch_signals() -> io::Result<SignalFd> {
    sys::catch(&BLOCKED)?;
    let set: SigSet = BLOCKED.into_iter().collect();
    set.thread_block()?;
    raise_caught()?;
    Ok(SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?)
}

/// Starts a process that has no signal blocked: it inherits our mask, and would pass it on to the container.
///
/// A signal that comes in this moment is raised again when they are blocked, and read like any other.
pub(crate) fn spawn(command: &mut Command) -> io::Result<Child> {
    let before = SigSet::empty().thread_swap_mask(SigmaskHow::SIG_SETMASK)?;
    let child = command.spawn();
    contd_failpoint::hit(Failpoint::ProgramStarted);
    before.thread_set_mask()?;
    raise_caught()?;
    child
}

/// Raises the signals again that came while they were not blocked.
fn raise_caught() -> io::Result<()> {
    for signal in BLOCKED.into_iter().filter(|signal| sys::take_caught(*signal)) {
        raise(signal)?;
    }
    Ok(())
}
