//! The process that serves: takes the place of whoever served before, answers the kernel and the control socket, ends when the
//! file system is gone. Its keeper forks it; if the keeper dies, it starts the keeper's successor, which then replaces it.

use std::ffi::OsString;
use std::io::Write as _;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use contd_durable::{RealFs, replace_volatile};
use contd_flist::{BlockCache, CacheLimits, CacheOptions, Content, Flist, RoutePolicy, Routes};
use contd_lease::ProcessIdentity;
use contd_process::ReadyPipe;
use contd_protocol::flistfs::{SERVER_FILE, ServeSpec};
use contd_types::Backoff;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl;
use nix::sys::signalfd::SignalFd;
use tracing::{debug, error, info, warn};

use crate::error::ServeError;
use crate::handover;
use crate::keeper::take_signals;
use crate::mount::{Mount, MountError};
use crate::mount_state::{MountState, SOCKET_FILE, check_not_ending};
use crate::ops::Ops;
use crate::server::Control;
use crate::session::{Session, SessionError};
use crate::slots::Slots;

/// The server's word to its keeper once it serves.
pub(crate) const SERVES: [u8; 1] = *b"s";

/// The open files of the mount, in the lease directory: for a successor on the same connection.
const HANDLES_FILE: &str = "handles";

/// The name that `ps` shows.
const NAME: &std::ffi::CStr = c"contd-flistfs";

/// How the program is found that is running, even if its file was replaced.
const OWN_PROGRAM: &str = "/proc/self/exe";

/// The pauses between attempts to have a keeper again: the mount is served without one, but hangs on one process then.
const KEEPER_PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(30));

/// How often a server that was told to end by SIGTERM looks whether its mount is used no longer, and for how long: a node that
/// goes down waits a minute and a half for its processes and then kills them. Later the signal was meant for nothing.
const LOOK_AGAIN: u16 = 250;
const LOOK_FOR: Duration = Duration::from_secs(120);

/// Serves until the file system is gone.
///
/// # Errors
/// [`ServeError`]; if it served before, another one can go on.
pub(crate) fn run(
    state: MountState,
    flist: Arc<Flist>,
    signals: &SignalFd,
    keeper: &UnixStream,
    ready_pipe: Option<&ReadyPipe>,
) -> Result<(), ServeError> {
    // How `ps` shows us is no reason to fail.
    let _only_a_name = prctl::set_name(NAME);
    let state = Arc::new(state);
    let spec = &state.spec;
    let us = note_server(&state.dir)?;
    let content = content(&state.dir, spec, flist)?;
    // The limits may be others than before, and a server that only reads would never find out.
    content.cache().enforce_limits();
    let ops = Arc::new(Ops::with_passthrough(content, state.dir.join(HANDLES_FILE)));
    handover::end_all(&state.predecessors)?;
    let device = state.device.try_clone().map_err(|source| ServeError::Fork { source })?;
    let slots = Slots::map(&state.requests).map_err(|source| SessionError::Requests { source });
    let slots = slots.map_err(|source| ServeError::Session { source })?;
    let is_first = ready_pipe.is_some() && state.predecessors.is_empty();
    let begin = if is_first { Session::new } else { Session::resume };
    let session = begin(device, state.negotiated, Arc::clone(&ops), slots);
    let gone = session.start().map_err(|source| ServeError::Session { source })?;
    let mount = match Mount::adopt(&spec.mount_point) {
        // Unmounted while nobody served, and still used by somebody: served to the end.
        Err(MountError::NotFound { path }) if !is_first => Mount::unmounted(path),
        found => found.map_err(|source| ServeError::Mount { source })?,
    };
    let request = spec.operation.map(tracing::field::display);
    info!(hash = %spec.hash, mount = %spec.mount_point.display(), inodes = ops.inodes(), is_first, request, "serving");
    let control = Control::new(Arc::clone(&state), us, ops, mount);
    // A keeper that has died meanwhile is noticed below.
    let _unheard = (&mut &*keeper).write_all(&SERVES);
    if let Some(pipe) = ready_pipe {
        // A parent that was killed meanwhile does not hear it; the server serves all the same.
        let _unheard = pipe.ready();
    }
    let ended = attend(&state, signals, gone.as_fd(), keeper, &control);
    control.wait_for_farewells();
    // The socket goes before the lease: whoever finds no socket finds a lease that is dead or about to be.
    let _swept_by_the_daemon = std::fs::remove_file(state.dir.join(SOCKET_FILE));
    info!("the file system is gone");
    ended
}

/// Tries all that could keep a server from serving, without serving.
///
/// # Errors
/// The error that the server would fail with.
pub(crate) fn rehearse(dir: &Path, spec: &ServeSpec, flist: &Arc<Flist>) -> Result<(), ServeError> {
    content(dir, spec, Arc::clone(flist)).map(drop)
}

fn content(dir: &Path, spec: &ServeSpec, flist: Arc<Flist>) -> Result<Content, ServeError> {
    let policy = match &spec.limited_routes {
        Some(limited) => RoutePolicy::limited(limited.dirs.clone(), limited.servers.clone()),
        None => RoutePolicy::for_source_named(&spec.source),
    };
    let routes = Routes::connect(flist.routes(), &policy)
        .map_err(|error| ServeError::Stores { path: spec.flist.clone(), source: Box::new(error) })?;
    let cache = BlockCache::open_with(&spec.cache, cache_options(dir, spec))
        .map_err(|source| ServeError::Cache { path: spec.cache.clone(), source })?;
    Ok(Content::new(flist, routes, Arc::new(cache)))
}

/// Our lease directory lies beside those of the other servers.
fn cache_options(dir: &Path, spec: &ServeSpec) -> CacheOptions {
    let default = CacheLimits::default();
    let limits = CacheLimits {
        max_bytes: spec.cache_limits.max_bytes.unwrap_or(default.max_bytes),
        min_free_bytes: spec.cache_limits.min_free_bytes.unwrap_or(default.min_free_bytes),
    };
    CacheOptions { limits, servers: dir.parent().map(Path::to_owned) }
}

/// Writes down who serves, so that whoever must end all processes of this mount finds this one, too.
fn note_server(dir: &Path) -> Result<ProcessIdentity, ServeError> {
    let us = ProcessIdentity::of_self().map_err(|source| ServeError::Process { source })?;
    let path = dir.join(SERVER_FILE);
    let failed = |source| ServeError::NoteServer { path: path.clone(), source };
    let text = serde_json::to_vec(&handover::process(&us)).map_err(|error| failed(error.into()))?;
    replace_volatile(&RealFs, &path, &text, 0o600).map_err(|error| {
        let number = error.io().and_then(std::io::Error::raw_os_error);
        failed(number.map_or_else(|| std::io::Error::other(error.to_string()), std::io::Error::from_raw_os_error))
    })?;
    // A process that ends all servers finds us by that file, or has written its intent before.
    check_not_ending(dir)?;
    Ok(us)
}

/// Answers the control socket and SIGTERM until the file system is gone, and sees to it that there is a keeper.
fn attend(
    state: &Arc<MountState>,
    signals: &SignalFd,
    gone: impl AsFd,
    keeper: &UnixStream,
    control: &Arc<Control>,
) -> Result<(), ServeError> {
    let mut has_keeper = true;
    let mut farewell = Farewell::default();
    loop {
        let mut fds = [
            PollFd::new(gone.as_fd(), PollFlags::POLLIN),
            PollFd::new(state.listener.as_fd(), PollFlags::POLLIN),
            PollFd::new(signals.as_fd(), PollFlags::POLLIN),
            PollFd::new(keeper.as_fd(), PollFlags::POLLIN),
        ];
        let watched = if has_keeper { 4 } else { 3 };
        match poll(fds.get_mut(..watched).unwrap_or_default(), farewell.next_look()) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(ServeError::Wait { source: errno.into() }),
        }
        let [is_gone, is_called, is_signalled, is_orphaned] =
            fds.map(|fd| fd.revents().is_some_and(|events| !events.is_empty()));
        if is_gone {
            control.note_gone();
            return Ok(());
        }
        if is_signalled && take_signals(signals) {
            farewell.begin();
        }
        farewell.look(control);
        if is_called {
            control.accept(&state.listener);
        }
        if has_keeper && is_orphaned {
            has_keeper = false;
            let (control, state) = (Arc::clone(control), Arc::clone(state));
            in_background("successor", move || find_keeper(&state.dir, &control));
        }
    }
}

/// The wish to end that SIGTERM has brought: carried out once nobody uses the mount.
#[derive(Default)]
struct Farewell {
    until: Option<Instant>,
    /// Whether a try is under way; it waits for us to answer the kernel, so it is not made here.
    is_trying: Arc<AtomicBool>,
    is_announced: bool,
}

#[expect(clippy::disallowed_methods, reason = "real mounts live in real time; no decision that a test would steer")]
impl Farewell {
    fn begin(&mut self) {
        self.until = Some(Instant::now() + LOOK_FOR);
        self.is_announced = false;
    }

    fn next_look(&self) -> PollTimeout {
        if self.until.is_some() { PollTimeout::from(LOOK_AGAIN) } else { PollTimeout::NONE }
    }

    /// Tries to end, if that is wanted and not under way.
    fn look(&mut self, control: &Arc<Control>) {
        let Some(until) = self.until else { return };
        if until <= Instant::now() {
            self.until = None;
            return;
        }
        if self.is_trying.swap(true, Ordering::AcqRel) {
            return;
        }
        let (control, is_trying, is_first) = (Arc::clone(control), Arc::clone(&self.is_trying), !self.is_announced);
        self.is_announced = true;
        in_background("terminate", move || {
            if let Err(error) = control.shut_down()
                && is_first
            {
                warn!(error = %contd_types::one_line(&error), "told to end, but the mount is in use: serving until it is not");
            }
            is_trying.store(false, Ordering::Release);
        });
    }
}

fn in_background(name: &str, work: impl FnOnce() + Send + 'static) {
    if let Err(error) = thread::Builder::new().name(name.to_owned()).spawn(work) {
        warn!(%error, name, "no thread can be started: serving on");
    }
}

/// Starts a successor of the keeper until one has come, which then ends this process.
fn find_keeper(dir: &Path, control: &Control) {
    let (min, max) = KEEPER_PAUSES;
    for attempt in 1_u32.. {
        control.wait_for_successors();
        if let Err(error) = check_not_ending(dir) {
            return debug!(%error, "no keeper is wanted any more");
        }
        warn!("the keeper is gone, starting its successor");
        let name = std::env::args_os().next().unwrap_or_else(|| OsString::from("contd-flistfs"));
        let mut command = Command::new(OWN_PROGRAM);
        command.arg0(name).arg("--dir").arg(dir).arg("--succeed").current_dir("/");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        match command.status() {
            // It has not ended us yet; if it does not, there is another round.
            Ok(status) if status.success() => thread::park_timeout(max),
            Ok(status) => error!(%status, "the successor failed, see above"),
            Err(error) => error!(%error, "the successor cannot be started"),
        }
        thread::park_timeout(Backoff::new(min, max).delay(attempt, 0));
    }
}
