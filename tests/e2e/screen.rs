//! A terminal with somebody in front of it.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};

use nix::fcntl::OFlag;
use nix::sys::stat::Mode;
use rustix::termios::Winsize;

/// Reads up to the end of a line.
pub(crate) fn read_line(from: &mut impl std::io::Read) -> String {
    let (mut line, mut byte) = (Vec::new(), [0]);
    while !line.ends_with(b"\n") {
        from.read_exact(&mut byte).expect("a line");
        line.push(byte[0]);
    }
    String::from_utf8_lossy(&line).trim_end().to_owned()
}

/// Makes a terminal as a user has one, 30 lines of 100. Closed in programs from its first moment on: tests beside this one start daemons.
fn terminal() -> (OwnedFd, OwnedFd) {
    let flags = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    let master = nix::pty::posix_openpt(flags).expect("a terminal");
    nix::pty::grantpt(&master).and_then(|()| nix::pty::unlockpt(&master)).expect("a terminal");
    let name = nix::pty::ptsname_r(&master).expect("a terminal");
    let slave = nix::fcntl::open(name.as_str(), flags, Mode::empty()).expect("a terminal");
    let size = Winsize { ws_row: 30, ws_col: 100, ws_xpixel: 0, ws_ypixel: 0 };
    rustix::termios::tcsetwinsize(&slave, size).expect("its size");
    (master.into(), slave)
}

/// The user in front of a terminal.
pub(crate) struct Screen {
    master: File,
    pub(crate) seen: String,
}

impl Screen {
    /// Runs a command whose descriptors are a terminal, in a session of its own: it hears of each change of the size.
    pub(crate) fn before(given: &Command) -> (Self, Child) {
        let (master, slave) = terminal();
        let mut command = Command::new("setsid");
        command.arg("--ctty").arg(given.get_program()).args(given.get_args());
        command.envs(given.get_envs().filter_map(|(name, value)| Some((name, value?))));
        let own = |fd: &OwnedFd| Stdio::from(fd.try_clone().expect("duplicate"));
        command.stdin(own(&slave)).stdout(own(&slave)).stderr(own(&slave));
        let child = command.spawn().expect("run it");
        (Self { master: File::from(master), seen: String::new() }, child)
    }

    /// Changes the size of the terminal, as that of a window.
    pub(crate) fn resize(&self, rows: u16, columns: u16) {
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        rustix::termios::tcsetwinsize(&self.master, size).expect("its size");
    }

    pub(crate) fn type_in(&mut self, keys: &str) {
        self.master.write_all(keys.as_bytes()).expect("type");
    }

    /// Waits until this is seen.
    #[track_caller]
    pub(crate) fn shows(&mut self, what: &str) {
        let mut piece = [0; 1024];
        while !self.seen.contains(what) {
            let count = self.master.read(&mut piece).unwrap_or_else(|error| panic!("{error}, seen: {}", self.seen));
            self.seen.push_str(&String::from_utf8_lossy(&piece[..count]));
        }
        let end = self.seen.find(what).expect("it is there") + what.len();
        self.seen.drain(..end);
    }
}
