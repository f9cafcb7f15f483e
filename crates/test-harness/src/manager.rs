//! A service manager that follows a script: hears `sd_notify`, keeps descriptors as systemd does, and passes them at a start.

use std::fs::{self, File};
use std::io::IoSliceMut;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};

/// The number of the first descriptor that is passed.
const FIRST: i32 = 3;

/// How long an end of this manager may go unnoticed, in milliseconds.
const LOOK_AGAIN_MS: u16 = 50;

/// One stored descriptor.
#[derive(Debug)]
struct Stored {
    name: String,
    fd: OwnedFd,
    /// Dropped as soon as its other end has gone, as systemd does unless told `FDPOLL=0`.
    is_polled: bool,
}

#[derive(Debug)]
struct State {
    socket: UnixDatagram,
    stored: Vec<Stored>,
    said: Vec<String>,
}

/// The manager of one service.
#[derive(Debug)]
pub struct Manager {
    path: PathBuf,
    state: Arc<Mutex<State>>,
    is_over: Arc<AtomicBool>,
    hearing: Option<JoinHandle<()>>,
    unit_socket: Option<UnixListener>,
}

impl Manager {
    /// Begins to hear at a socket below a node's root.
    pub fn new(root: &Path) -> Self {
        let path = root.join("input/notify");
        let socket = UnixDatagram::bind(&path).expect("bind the notify socket");
        socket.set_nonblocking(true).expect("set it");
        let ready = socket.try_clone().expect("duplicate");
        let state = Arc::new(Mutex::new(State { socket, stored: Vec::new(), said: Vec::new() }));
        let is_over = Arc::new(AtomicBool::new(false));
        let (heard, over) = (Arc::clone(&state), Arc::clone(&is_over));
        // A sender shall not wait for a question.
        let hearing = std::thread::spawn(move || {
            while !over.load(Ordering::SeqCst) {
                let mut fds = [PollFd::new(ready.as_fd(), PollFlags::POLLIN)];
                poll(&mut fds, PollTimeout::from(LOOK_AGAIN_MS)).expect("poll");
                heard.lock().expect("lock").hear();
            }
        });
        Self { path, state, is_over, hearing: Some(hearing), unit_socket: None }
    }

    /// The same, with a socket unit that listens at the node's address.
    pub fn with_socket(root: &Path) -> Self {
        fs::create_dir(root.join("run")).expect("make the run directory");
        let socket = UnixListener::bind(root.join("run/contd.sock")).expect("listen");
        let mut manager = Self::new(root);
        manager.unit_socket = Some(socket);
        manager
    }

    /// The state with all that was sent before this call.
    fn state(&self) -> MutexGuard<'_, State> {
        let mut state = self.state.lock().expect("lock");
        state.hear();
        state
    }

    /// Makes of a command what the manager would start.
    pub fn dress(&self, command: &Command) -> Command {
        let mut state = self.state();
        state.stored.retain(|stored| !stored.is_polled || !has_hung_up(&stored.fd));
        let socket = self.unit_socket.iter().map(|socket| ("contd.socket".to_owned(), socket.as_fd()));
        let stored = state.stored.iter().map(|stored| (stored.name.clone(), stored.fd.as_fd()));
        let (names, fds): (Vec<String>, Vec<OwnedFd>) =
            socket.chain(stored).map(|(name, fd)| (name, fd.try_clone_to_owned().expect("duplicate"))).unzip();
        let mut dressed = Command::new("/bin/sh");
        // The shell knows its own pid, which is the daemon's after the exec.
        dressed.args(["-c", "LISTEN_PID=$$ exec \"$0\" \"$@\""]).arg(command.get_program()).args(command.get_args());
        dressed.env("NOTIFY_SOCKET", &self.path);
        if !fds.is_empty() {
            dressed.env("LISTEN_FDS", fds.len().to_string()).env("LISTEN_FDNAMES", names.join(":"));
        }
        let pass = move || {
            let above = FIRST + i32::try_from(fds.len()).expect("few");
            let copy = |fd: &OwnedFd| nix::fcntl::fcntl(fd, nix::fcntl::FcntlArg::F_DUPFD_CLOEXEC(above));
            for (number, fd) in (FIRST..).zip(&fds) {
                let high = copy(fd)?;
                // SAFETY: dup2 takes two numbers; the first was just made by fcntl, and the second is ours to give: the
                // child has one thread and uses no descriptor between here and its exec but the standard ones.
                if unsafe { nix::libc::dup2(high, number) } < 0 {
                    return Err(std::io::Error::last_os_error());
                }
            }
            Ok(())
        };
        // SAFETY: between fork and exec only fcntl and dup2 are called, which are async-signal-safe, and nothing allocates.
        unsafe { dressed.pre_exec(pass) };
        dressed
    }

    /// Returns the names of what is stored, in order.
    pub fn stored(&self) -> Vec<String> {
        let mut names: Vec<String> = self.state().stored.iter().map(|stored| stored.name.clone()).collect();
        names.sort();
        names
    }

    /// Forgets all that is stored.
    pub fn lose_all(&self) {
        self.state().stored.clear();
    }

    /// Tells whether it has heard a line.
    pub fn has_heard(&self, line: &str) -> bool {
        self.state().said.iter().any(|said| said == line)
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::SeqCst);
        if let Some(hearing) = self.hearing.take() {
            let _panicked = hearing.join().is_err();
        }
    }
}

impl State {
    /// Hears all that was sent.
    fn hear(&mut self) {
        let mut buffer = [0; 4096];
        loop {
            let mut space = nix::cmsg_space!([i32; 8]);
            let mut slices = [IoSliceMut::new(&mut buffer)];
            let flags = MsgFlags::MSG_CMSG_CLOEXEC;
            let message = match recvmsg::<()>(self.socket.as_raw_fd(), &mut slices, Some(&mut space), flags) {
                Ok(message) => message,
                Err(Errno::EINTR) => continue,
                Err(Errno::EAGAIN) => return,
                Err(errno) => panic!("hear: {errno}"),
            };
            let mut fds = Vec::new();
            for control in message.cmsgs().expect("whole") {
                if let ControlMessageOwned::ScmRights(numbers) = control {
                    // SAFETY: the kernel has just made these for us, and nobody else knows their numbers.
                    fds.extend(numbers.into_iter().map(|number| unsafe { OwnedFd::from_raw_fd(number) }));
                }
            }
            let length = message.bytes;
            self.take(&String::from_utf8_lossy(&buffer[..length]), fds);
        }
    }

    fn take(&mut self, text: &str, fds: Vec<OwnedFd>) {
        let value = |key: &str| text.lines().find_map(|line| line.strip_prefix(key)).map(str::to_owned);
        let name = value("FDNAME=").unwrap_or_else(|| "stored".to_owned());
        if text.contains("FDSTORE=1") {
            let is_polled = value("FDPOLL=").as_deref() != Some("0");
            self.stored.extend(fds.into_iter().map(|fd| Stored { name: name.clone(), fd, is_polled }));
        }
        if text.contains("FDSTOREREMOVE=1") {
            self.stored.retain(|stored| stored.name != name);
        }
        self.said.extend(text.lines().map(str::to_owned));
    }
}

fn has_hung_up(fd: &OwnedFd) -> bool {
    let mut fds = [PollFd::new(fd.as_fd(), PollFlags::POLLIN)];
    poll(&mut fds, PollTimeout::ZERO).expect("poll");
    fds[0].revents().is_some_and(|ready| ready.intersects(PollFlags::POLLHUP | PollFlags::POLLERR))
}

/// Reads a file that is shipped.
pub fn shipped(name: &str) -> String {
    let mut text = String::new();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../contrib").join(name);
    let mut file = File::open(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    std::io::Read::read_to_string(&mut file, &mut text).expect("utf-8");
    text
}
