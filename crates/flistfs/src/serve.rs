//! One server's life: claim, open, mount, serve, end.

use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use contd_flist::{
    BlockCache, CacheError, CacheLimits, CacheOptions, Content, Flist, FlistErrorKind, MetadataError, RoutePolicy,
    Routes, StoreError,
};
use contd_lease::{LeaseDir, LeaseError};
use contd_protocol::flistfs::{SERVE_SPEC_VERSION, ServeSpec};
use contd_types::{ApiError, ErrorKind, Explain, Shortage};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use tracing::{error, info, warn};

use crate::launch::Reporter;
use crate::log::BoundedLog;
use crate::mount::{self, Mount, MountError};
use crate::ops::Ops;
use crate::server::Control;
use crate::session::{self, SessionError};

/// The file in the lease directory that says what to serve.
pub const SERVE_FILE: &str = "serve.json";
/// The control socket in the lease directory.
pub const SOCKET_FILE: &str = "sock";

/// No spec is larger: three paths and a hash.
const MAX_SPEC_BYTES: u64 = 64 * 1024;

/// Why a server does not come up, or ends.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Its log could not be opened.
    #[error("open the log in {}", dir.display())]
    Log {
        /// The lease directory.
        dir: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// What to serve could not be read.
    #[error("read {}", path.display())]
    ReadSpec {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// What to serve makes no sense.
    #[error("decode {}", path.display())]
    DecodeSpec {
        /// The file.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
    /// What to serve is of another version.
    #[error("decode {}: version {found}, this program knows {SERVE_SPEC_VERSION}", path.display())]
    SpecVersion {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u32,
    },
    /// The lease is not for us.
    #[error("take the lease of the flist server")]
    Lease {
        /// Why.
        source: LeaseError,
    },
    /// The flist is missing or bad.
    #[error("open flist {}", path.display())]
    Flist {
        /// The file.
        path: PathBuf,
        /// Why.
        source: Box<MetadataError>,
    },
    /// Its stores make no sense.
    #[error("prepare the stores of flist {}", path.display())]
    Stores {
        /// The file.
        path: PathBuf,
        /// Why.
        source: StoreError,
    },
    /// The cache cannot be used.
    #[error("open the block cache in {}", path.display())]
    Cache {
        /// Its directory.
        path: PathBuf,
        /// Why.
        source: CacheError,
    },
    /// The control socket could not be made.
    #[error("listen on {}", path.display())]
    Listen {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The mount could not be made.
    #[error("mount the flist")]
    Mount {
        /// Why.
        source: MountError,
    },
    /// The kernel and we do not get on.
    #[error("serve the mount")]
    Session {
        /// Why.
        source: SessionError,
    },
    /// Signals could not be set up, or waiting failed.
    #[error("wait for work")]
    Wait {
        /// Why.
        source: io::Error,
    },
}

impl Explain for ServeError {
    fn kind(&self) -> ErrorKind {
        if Shortage::behind(self).is_some() {
            return ErrorKind::OutOfResources;
        }
        match self {
            Self::Flist { source, .. } => kind_of(source.kind()),
            Self::Stores { source, .. } => kind_of(source.kind()),
            Self::Cache { source, .. } => kind_of(source.kind()),
            Self::Lease { source: LeaseError::Held { .. } } => ErrorKind::AlreadyExists,
            Self::DecodeSpec { .. } | Self::Lease { .. } => ErrorKind::Conflict,
            Self::SpecVersion { .. } => ErrorKind::VersionMismatch,
            Self::Mount { source: MountError::Device { .. } } | Self::Session { source: SessionError::Version } => {
                ErrorKind::Unsupported
            }
            Self::Log { source, .. } | Self::ReadSpec { source, .. } | Self::Listen { source, .. } => {
                match source.kind() {
                    io::ErrorKind::NotFound => ErrorKind::NotFound,
                    _ => ErrorKind::Internal,
                }
            }
            Self::Mount { .. } | Self::Session { .. } | Self::Wait { .. } => ErrorKind::Internal,
        }
    }

    fn hint(&self) -> Option<String> {
        if let Some(shortage) = Shortage::behind(self) {
            return Some(shortage.hint().to_owned());
        }
        Some(match self {
            Self::Flist { source, .. } => source.hint().to_owned(),
            Self::Stores { source, .. } => source.hint().to_owned(),
            Self::Cache { source, .. } => source.hint().to_owned(),
            Self::Lease { source } => source.hint().to_owned(),
            Self::ReadSpec { .. } | Self::DecodeSpec { .. } | Self::SpecVersion { .. } => {
                "the daemon writes this file; start the server through it".to_owned()
            }
            Self::Mount { .. } | Self::Session { .. } => {
                "check that the kernel has FUSE (/dev/fuse) and that this is root".to_owned()
            }
            Self::Log { dir, .. } => format!("check space and rights of {}", dir.display()),
            Self::Listen { path, .. } => format!("check space and rights beside {}", path.display()),
            Self::Wait { .. } => return None,
        })
    }
}

/// Gives the kind that travels for the flist library's own.
fn kind_of(kind: FlistErrorKind) -> ErrorKind {
    match kind {
        FlistErrorKind::NotFound => ErrorKind::NotFound,
        FlistErrorKind::Unreachable => ErrorKind::Unavailable,
        FlistErrorKind::Corrupt => ErrorKind::Corrupt,
        FlistErrorKind::Invalid => ErrorKind::InvalidArgument,
        FlistErrorKind::Unsupported => ErrorKind::Unsupported,
        FlistErrorKind::Io => ErrorKind::Internal,
    }
}

/// Serves what the lease directory says until it is shut down, terminated, or the file system is gone.
///
/// # Errors
/// The failure as it travels; it is also in the log, if there is one.
pub(crate) fn run(dir: &Path, reporter: Reporter<'_>) -> Result<(), ApiError> {
    let log = BoundedLog::open(dir)
        .map_err(|source| ApiError::from_error(&ServeError::Log { dir: dir.to_owned(), source }))?;
    let subscriber = tracing_subscriber::fmt().with_writer(log).with_ansi(false).with_target(false).finish();
    // There is no other: this process has only just begun.
    let _is_first = tracing::subscriber::set_global_default(subscriber);
    serve(dir, reporter).map_err(|error| {
        let error = ApiError::from_error(&error);
        error!(%error, "the flist server ends");
        error
    })
}

fn serve(dir: &Path, reporter: Reporter<'_>) -> Result<(), ServeError> {
    // First of all: threads inherit the mask, and an early SIGTERM must not kill between mount and serving.
    let signals = catch_signals()?;
    let spec = read_spec(&dir.join(SERVE_FILE))?;
    let lease = LeaseDir::new(dir).claim(env!("CARGO_PKG_VERSION")).map_err(|source| ServeError::Lease { source })?;
    let ops = Arc::new(open(&spec, dir)?);
    let socket = dir.join(SOCKET_FILE);
    let listener = listen(&socket)?;
    let device = mount::attach(&spec.mount_point).map_err(|source| ServeError::Mount { source })?;
    let started = session::start(device, Arc::clone(&ops))
        .map_err(|source| ServeError::Session { source })
        .and_then(|gone| Ok((gone, Mount::adopt(&spec.mount_point).map_err(|source| ServeError::Mount { source })?)));
    let (gone, mount) = started.inspect_err(|_| mount::abandon(&spec.mount_point))?;
    info!(hash = %spec.hash, mount = %spec.mount_point.display(), inodes = ops.inodes(), "serving");
    let control = Control::new(spec, ops, mount);
    reporter.ready();
    let ended = attend(&listener, &signals, gone.as_fd(), &control);
    control.wait_for_farewells();
    // The socket goes before the lease: whoever finds no socket finds a lease that is dead or about to be.
    let _swept_by_the_daemon = std::fs::remove_file(&socket);
    drop(lease);
    info!("ended");
    ended
}

/// Blocks the signals that ask us to end and takes them as data; the rest of the usual ones is ignored by blocking.
fn catch_signals() -> Result<SignalFd, ServeError> {
    let failed = |errno: Errno| ServeError::Wait { source: errno.into() };
    let mut blocked = SigSet::empty();
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGPIPE, Signal::SIGUSR1, Signal::SIGUSR2] {
        blocked.add(signal);
    }
    blocked.thread_block().map_err(failed)?;
    let mut taken = SigSet::empty();
    taken.add(Signal::SIGTERM);
    SignalFd::with_flags(&taken, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK).map_err(failed)
}

fn read_spec(path: &Path) -> Result<ServeSpec, ServeError> {
    use std::io::Read as _;
    let read_failed = |source| ServeError::ReadSpec { path: path.to_owned(), source };
    let mut text = Vec::new();
    let file = std::fs::File::open(path).map_err(read_failed)?;
    file.take(MAX_SPEC_BYTES).read_to_end(&mut text).map_err(read_failed)?;
    let spec: ServeSpec =
        serde_json::from_slice(&text).map_err(|source| ServeError::DecodeSpec { path: path.to_owned(), source })?;
    match spec.version {
        SERVE_SPEC_VERSION => Ok(spec),
        found => Err(ServeError::SpecVersion { path: path.to_owned(), found }),
    }
}

fn open(spec: &ServeSpec, dir: &Path) -> Result<Ops, ServeError> {
    let path = &spec.flist;
    let flist = Flist::open(path).map_err(|error| ServeError::Flist { path: path.clone(), source: Box::new(error) })?;
    let routes = Routes::connect(flist.routes(), &RoutePolicy::default())
        .map_err(|source| ServeError::Stores { path: path.clone(), source })?;
    let cache = BlockCache::open_with(&spec.cache, cache_options(spec, dir))
        .map_err(|source| ServeError::Cache { path: spec.cache.clone(), source })?;
    // The limits may be others than before, and a server that only reads would never find out.
    cache.see_to_limits();
    Ok(Ops::new(Content::new(Arc::new(flist), routes, Arc::new(cache))))
}

/// Our lease directory lies beside those of the other servers.
fn cache_options(spec: &ServeSpec, dir: &Path) -> CacheOptions {
    let default = CacheLimits::default();
    let limits = CacheLimits {
        max_bytes: spec.cache_limits.max_bytes.unwrap_or(default.max_bytes),
        min_free_bytes: spec.cache_limits.min_free_bytes.unwrap_or(default.min_free_bytes),
    };
    CacheOptions { limits, servers: dir.parent().map(Path::to_owned) }
}

fn listen(socket: &Path) -> Result<UnixListener, ServeError> {
    let failed = |source| ServeError::Listen { path: socket.to_owned(), source };
    match std::fs::remove_file(socket) {
        // A dead predecessor's: the lease is ours.
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(source) => return Err(failed(source)),
    }
    let listener = UnixListener::bind(socket).map_err(failed)?;
    // The directory is 0700, so nobody can have come in between.
    std::fs::set_permissions(socket, std::fs::Permissions::from_mode(0o600)).map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    Ok(listener)
}

/// Answers the control socket and SIGTERM until the file system is gone.
fn attend(
    listener: &UnixListener,
    signals: &SignalFd,
    gone: impl AsFd,
    control: &Arc<Control>,
) -> Result<(), ServeError> {
    loop {
        let mut fds = [
            PollFd::new(gone.as_fd(), PollFlags::POLLIN),
            PollFd::new(listener.as_fd(), PollFlags::POLLIN),
            PollFd::new(signals.as_fd(), PollFlags::POLLIN),
        ];
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(ServeError::Wait { source: errno.into() }),
        }
        let [is_gone, is_called, is_signalled] = fds.map(|fd| fd.revents().is_some_and(|events| !events.is_empty()));
        if is_gone {
            control.note_gone();
            return Ok(());
        }
        if is_signalled {
            while let Ok(Some(_)) = signals.read_signal() {}
            let control = Arc::clone(control);
            // Unmounting waits for us to answer the kernel and for the end; this thread must see that end.
            let ending = std::thread::Builder::new().name("terminate".to_owned()).spawn(move || {
                if let Err(error) = control.shut_down() {
                    warn!(%error, "asked to end, but the mount is in use: serving on");
                }
            });
            if let Err(error) = ending {
                warn!(%error, "asked to end, but no thread can be started: serving on");
            }
        }
        if is_called {
            control.accept(listener);
        }
    }
}
