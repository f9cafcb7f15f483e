//! The container's terminal: its output goes the way of all output, what callers type comes out of the FIFO of its input.
//!
//! ```text
//! FIFO stdin ── splice ──► master ── splice ──► FIFO stdout ──► spool, log ([`crate::pump`])
//! ```
//!
//! Both ways the kernel moves the bytes in one step, so no death of ours loses one. The master is held by the daemon as well; a
//! successor begins without it and is given it ([`Console::give`]). Meanwhile nothing moves, and nothing is lost.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use contd_protocol::shim::files;
use contd_types::WindowSize;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, SpliceFFlags, fcntl, splice};
use nix::poll::PollFlags;

use crate::clock;
use crate::input;

/// The most bytes that are moved at once.
const MAX_BYTES: usize = 64 * 1024;
/// How often bytes are moved at most before the loop goes on.
const MAX_MOVES: usize = 128;
/// How long the terminal is left alone when no process of the container has it open: one may open it again.
const CLOSED_PAUSE: Duration = Duration::from_millis(100);

/// The result of moving bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Moved {
    Some,
    /// There is nothing, or no room.
    Nothing,
    End,
}

/// The terminal of a container.
#[derive(Debug)]
pub(crate) struct Console {
    /// `None` while a predecessor's was not given back.
    master: Option<OwnedFd>,
    /// The writing end of the FIFO of standard output; `None` when all there will ever be was moved.
    output: Option<File>,
    /// The reading end of the FIFO of standard input.
    input: Option<File>,
    /// Whether the terminal takes no more input now.
    is_full: bool,
    /// Until when no process of the container had it open.
    closed_until: Option<Instant>,
    /// Whether the container has ended: its terminal has an end then.
    is_ending: bool,
}

impl Console {
    /// Makes what moves the bytes of a terminal; `output` is a writing end of the FIFO of standard output.
    pub(crate) fn new(dir: &Path, output: File, has_input: bool) -> io::Result<Self> {
        let path = dir.join(files::STDIN);
        let input = has_input.then(|| input::open_reader(&path)).transpose()?;
        Ok(Self { master: None, output: Some(output), input, is_full: false, closed_until: None, is_ending: false })
    }

    /// Begins to move bytes; it is fine when it has a master already.
    pub(crate) fn give(&mut self, master: OwnedFd) -> io::Result<()> {
        if self.master.is_none() {
            fcntl(&master, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
            self.master = Some(master);
        }
        Ok(())
    }

    /// Returns the master, for whoever holds it beside us.
    pub(crate) fn master(&self) -> Option<BorrowedFd<'_>> {
        self.master.as_ref().map(AsFd::as_fd)
    }

    /// Changes the size. The processes at the terminal hear of it.
    pub(crate) fn resize(&self, size: WindowSize) -> io::Result<()> {
        let Some(master) = &self.master else { return Err(io::ErrorKind::WouldBlock.into()) };
        let WindowSize { rows, columns } = size;
        contd_descriptors::terminal::resize(master, rows, columns)
    }

    /// Returns what to wait for at the terminal; its output only if somebody takes it out of the FIFO.
    pub(crate) fn wanted(&self, is_taken: bool) -> Option<(BorrowedFd<'_>, PollFlags)> {
        let master = self.master.as_ref()?;
        if self.closed_until.is_some() || self.output.is_none() {
            return None;
        }
        let output = if is_taken { PollFlags::POLLIN } else { PollFlags::empty() };
        let input = if self.is_full { PollFlags::POLLOUT } else { PollFlags::empty() };
        let wanted = output | input;
        (!wanted.is_empty()).then(|| (master.as_fd(), wanted))
    }

    /// Returns the FIFO of the input, when the terminal takes what comes.
    pub(crate) fn wanted_input(&self) -> Option<BorrowedFd<'_>> {
        let is_open = self.master.is_some() && self.output.is_some() && self.closed_until.is_none();
        let takes = is_open && !self.is_full;
        self.input.as_ref().filter(|_| takes).map(AsFd::as_fd)
    }

    /// Returns when to look again.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.closed_until
    }

    /// Looks again, when it is time.
    pub(crate) fn look_again(&mut self, now: Instant) {
        if self.closed_until.take_if(|until| *until <= now).is_some() {
            self.on_ready(PollFlags::POLLIN | PollFlags::POLLOUT);
        }
    }

    /// Moves what is there, both ways.
    pub(crate) fn on_ready(&mut self, ready: PollFlags) {
        if ready.intersects(PollFlags::POLLOUT) {
            self.on_input();
        }
        if ready.intersects(PollFlags::POLLIN | PollFlags::POLLHUP | PollFlags::POLLERR) {
            self.move_output();
        }
    }

    /// Moves what was typed to the terminal.
    pub(crate) fn on_input(&mut self) {
        let (Some(master), Some(input)) = (&self.master, &self.input) else { return };
        // The FIFO never ends: we hold a writing end of it.
        self.is_full = input_waits(input) && transfer(input.as_fd(), master.as_fd()) == Moved::Nothing;
    }

    /// The container has ended: all that its terminal still has is moved, as far as the FIFO takes it; the rest follows.
    pub(crate) fn end(&mut self) {
        self.is_ending = true;
        self.closed_until = None;
        for _ in 0..MAX_MOVES {
            if self.move_output() != Moved::Some {
                break;
            }
        }
    }

    fn move_output(&mut self) -> Moved {
        let (Some(master), Some(output)) = (&self.master, &self.output) else { return Moved::End };
        let moved = transfer(master.as_fd(), output.as_fd());
        if moved == Moved::End {
            if self.is_ending {
                self.output = None;
            } else {
                self.closed_until = Some(clock::monotonic() + CLOSED_PAUSE);
            }
        }
        moved
    }
}

/// Tells whether bytes lie in the FIFO.
fn input_waits(input: &File) -> bool {
    rustix::io::ioctl_fionread(input).is_ok_and(|count| count > 0)
}

fn transfer(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> Moved {
    match splice(from, None, to, None, MAX_BYTES, SpliceFFlags::SPLICE_F_NONBLOCK) {
        Ok(0) | Err(Errno::EIO) => Moved::End,
        Ok(_) => Moved::Some,
        Err(_not_now) => Moved::Nothing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::input::Input;
    use std::fs::OpenOptions;
    use std::io::{Read, Write};

    struct Scene {
        dir: tempfile::TempDir,
        console: Console,
        slave: File,
        output: File,
        _input: Input,
    }

    fn scene() -> Scene {
        let dir = tempfile::tempdir().expect("scratch");
        let (input, reader) = Input::make(dir.path(), true).expect("a FIFO");
        drop(reader);
        let (output, writer) = io::pipe().expect("a pipe");
        let output = File::from(OwnedFd::from(output));
        fcntl(&output, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).expect("set");
        let mut console = Console::new(dir.path(), File::from(OwnedFd::from(writer)), true).expect("made");
        let pty = nix::pty::openpty(None, None).expect("a terminal");
        let mut raw = nix::sys::termios::tcgetattr(&pty.slave).expect("read");
        nix::sys::termios::cfmakeraw(&mut raw);
        nix::sys::termios::tcsetattr(&pty.slave, nix::sys::termios::SetArg::TCSANOW, &raw).expect("set");
        console.give(pty.master).expect("given");
        Scene { dir, console, slave: pty.slave.into(), output, _input: input }
    }

    #[test]
    fn what_is_typed_reaches_the_terminal_and_what_it_says_the_pipe() {
        let mut scene = scene();
        let path = scene.dir.path().join(files::STDIN);
        let mut caller = OpenOptions::new().write(true).open(path).expect("it is open");
        caller.write_all(b"ls\r").expect("room");
        scene.console.on_input();
        let mut bytes = [0; 16];
        assert_eq!(scene.slave.read(&mut bytes).expect("typed"), 3);
        scene.slave.write_all(b"files").expect("written");
        scene.console.on_ready(PollFlags::POLLIN);
        assert_eq!(scene.output.read(&mut bytes).expect("said"), 5);
        assert_eq!(&bytes[..5], b"files");
        scene.console.resize(WindowSize { rows: 3, columns: 4 }).expect("resized");
        let size = rustix::termios::tcgetwinsize(&scene.slave).expect("its size");
        assert_eq!((size.ws_row, size.ws_col), (3, 4));
    }

    #[test]
    fn a_terminal_that_takes_no_more_is_waited_for_and_loses_nothing() {
        let mut scene = scene();
        let path = scene.dir.path().join(files::STDIN);
        let mut caller = OpenOptions::new().write(true).open(path).expect("it is open");
        let (mut sent, mut got) = (0, 0);
        let chunk = [b'x'; 4096];
        fcntl(&caller, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).expect("set");
        fcntl(&scene.slave, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).expect("set");
        for _ in 0..1000 {
            sent += caller.write(&chunk).unwrap_or(0);
            scene.console.on_input();
            if scene.console.is_full {
                break;
            }
        }
        assert!(scene.console.is_full && scene.console.wanted_input().is_none());
        drop(caller);
        let mut bytes = [0; 4096];
        // The line discipline hands on what lies behind it in the background.
        let until = clock::monotonic() + Duration::from_secs(60);
        while got < sent && clock::monotonic() < until {
            got += scene.slave.read(&mut bytes).unwrap_or(0);
            scene.console.on_ready(PollFlags::POLLOUT);
        }
        assert_eq!(got, sent);
    }

    #[test]
    fn a_terminal_that_nobody_has_open_ends_only_with_its_container() {
        let mut scene = scene();
        scene.slave.write_all(b"bye").expect("written");
        drop(scene.slave);
        scene.console.on_ready(PollFlags::POLLIN);
        scene.console.on_ready(PollFlags::POLLHUP);
        assert!(scene.console.output.is_some() && scene.console.deadline().is_some());
        assert!(scene.console.wanted(true).is_none() && scene.console.wanted_input().is_none());
        scene.console.end();
        assert!(scene.console.output.is_none() && scene.console.wanted(true).is_none());
        let mut said = String::new();
        scene.output.read_to_string(&mut said).expect("up to its end");
        assert_eq!(said, "bye");
    }
}
