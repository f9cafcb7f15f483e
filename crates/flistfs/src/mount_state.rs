//! State of a mount that outlives the process that serves it: the keeper holds it, and hands it over to every successor.
//!
//! ```text
//! create     claim the lease ─► listen ─► mount ─► INIT                    the first of a mount
//! take over  ask the server that lives ─► device, lock, socket, requests   every later one: the mount stays as it is
//! ```

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use contd_lease::{HeldLease, LeaseDir, ProcessIdentity};
use contd_protocol::flistfs::{ENDING_FILE, FlistSocket, SERVE_SPEC_VERSION, ServeSpec};
use contd_session::Blocking;

use crate::error::ServeError;
use crate::handover::Offer;
use crate::mount;
use crate::negotiate::Negotiated;
use crate::session;
use crate::slots;

/// The file in the lease directory that says what to serve.
pub(crate) const SERVE_FILE: &str = "serve.json";
/// The control socket in the lease directory.
pub(crate) const SOCKET_FILE: &str = "sock";

/// No spec is larger: a few paths, a hash and some limits.
const MAX_SPEC_BYTES: u64 = 64 * 1024;

/// All that must not be lost while the mount lives.
#[derive(Debug)]
pub(crate) struct MountState {
    /// The lease directory.
    pub(crate) dir: PathBuf,
    /// The flist that is served.
    pub(crate) spec: ServeSpec,
    /// The proof of life: while a process holds it, the mount is not cleared away.
    pub(crate) lease: HeldLease,
    /// The control socket.
    pub(crate) listener: UnixListener,
    /// `/dev/fuse`: while a process holds it, the kernel keeps the file system and the requests that wait for an answer.
    pub(crate) device: File,
    /// The memory in which requests stand until they are answered: see [`slots`].
    pub(crate) requests: OwnedFd,
    /// The session parameters agreed with the kernel, once.
    pub(crate) negotiated: Negotiated,
    /// The processes that served before and may still live; they end before the first request is read.
    pub(crate) predecessors: Vec<ProcessIdentity>,
    /// The connection of the handover: while it is open, the predecessor starts no successor of its own.
    _quiet: Option<Blocking<FlistSocket>>,
}

impl MountState {
    /// Mounts anew.
    ///
    /// # Errors
    /// [`ServeError`]; nothing is mounted then.
    pub(crate) fn create(dir: &Path, spec: ServeSpec, lease: HeldLease) -> Result<Self, ServeError> {
        let listener = listen(&dir.join(SOCKET_FILE))?;
        let requests = slots::create()
            .map_err(|source| ServeError::Session { source: session::SessionError::Requests { source } })?;
        let device = mount::attach(&spec.mount_point).map_err(|source| ServeError::Mount { source })?;
        let negotiated = session::agree(&device).map_err(|source| {
            mount::abandon(&spec.mount_point);
            ServeError::Session { source }
        })?;
        let (dir, predecessors) = (dir.to_owned(), Vec::new());
        Ok(Self { dir, spec, lease, listener, device, requests, negotiated, predecessors, _quiet: None })
    }

    /// Takes what a living server has offered, and becomes the one that the lease names.
    ///
    /// # Errors
    /// [`ServeError::Lease`] when the lease is not that server's; it serves on.
    pub(crate) fn take_over(dir: &Path, spec: ServeSpec, offer: Offer) -> Result<Self, ServeError> {
        let lease_dir = LeaseDir::new(dir);
        let keeper = named_in(&lease_dir)?;
        let lease = lease_dir
            .take_over(offer.lock, env!("CARGO_PKG_VERSION"))
            .map_err(|source| ServeError::Lease { source })?;
        // The keeper first: it would replace a server that ends before it.
        let predecessors = keeper.into_iter().chain([offer.server]).collect();
        Ok(Self {
            dir: dir.to_owned(),
            spec,
            lease,
            listener: offer.listener,
            device: offer.device,
            requests: offer.requests,
            negotiated: offer.negotiated,
            predecessors,
            _quiet: Some(offer.connection),
        })
    }
}

/// The process that the lease names.
fn named_in(lease: &LeaseDir) -> Result<Option<ProcessIdentity>, ServeError> {
    match lease.probe().map_err(|source| ServeError::Lease { source })? {
        contd_lease::LeaseState::Held(lease) => Ok(lease.process),
        _ => Ok(None),
    }
}

/// Refuses while somebody ends all processes of this directory.
pub(crate) fn check_not_ending(dir: &Path) -> Result<(), ServeError> {
    if dir.join(ENDING_FILE).symlink_metadata().is_ok() {
        return Err(ServeError::Ending { dir: dir.to_owned() });
    }
    Ok(())
}

/// Reads what to serve.
pub(crate) fn read_spec(dir: &Path) -> Result<ServeSpec, ServeError> {
    use std::io::Read as _;
    let path = dir.join(SERVE_FILE);
    let read_failed = |source| ServeError::ReadSpec { path: path.clone(), source };
    let mut text = Vec::new();
    let file = File::open(&path).map_err(read_failed)?;
    file.take(MAX_SPEC_BYTES).read_to_end(&mut text).map_err(read_failed)?;
    let spec: ServeSpec =
        serde_json::from_slice(&text).map_err(|source| ServeError::DecodeSpec { path: path.clone(), source })?;
    match spec.version {
        SERVE_SPEC_VERSION => Ok(spec),
        found => Err(ServeError::SpecVersion { path, found }),
    }
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
