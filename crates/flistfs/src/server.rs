//! The control socket: status, shutdown and the handover to a successor.

use std::os::fd::AsFd as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use contd_lease::ProcessIdentity;
use contd_protocol::flistfs::{Call, FlistSocket, Handover, Request, Response, Status};
use contd_session::{Blocking, SessionError};
use contd_types::{ApiError, ErrorKind, Explain};
use tracing::{debug, info, warn};

use crate::handover::process;
use crate::mount::{Mount, MountError};
use crate::mount_state::MountState;
use crate::ops::Ops;

/// Connections at the same time: the daemon has one per flist, a person with a tool another.
const MAX_CONNECTIONS: usize = 16;

/// How long a connection may be silent between frames, or an answer unread. A caller connects anew after it.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// How long the kernel may take to give up the file system after the unmount, when nothing uses it: it is a matter of
/// milliseconds. If it takes longer, something that the mount table does not show still uses it.
const GONE_TIMEOUT: Duration = Duration::from_secs(2);

/// How long the end of the process waits for the answer to the Shutdown that caused it.
const FAREWELL_TIMEOUT: Duration = Duration::from_secs(5);

/// Why the server does not end when it is asked to.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ShutdownError {
    /// It could not be unmounted.
    #[error("shut down the flist server")]
    Unmount {
        /// Why.
        source: MountError,
    },
    /// It is unmounted here, and something still uses it.
    #[error("shut down the flist server: unmounted, but still in use after {GONE_TIMEOUT:?}")]
    StillUsed,
}

impl Explain for ShutdownError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Unmount { source: MountError::InUse { .. } } | Self::StillUsed => ErrorKind::Busy,
            Self::Unmount { .. } => ErrorKind::Internal,
        }
    }

    fn hint(&self) -> Option<String> {
        Some("end what uses it (grep contd-flistfs /proc/*/mountinfo), then shut down again".to_owned())
    }
}

/// The state that the connections share.
#[derive(Debug)]
pub(crate) struct Control {
    state: Arc<MountState>,
    us: ProcessIdentity,
    ops: Arc<Ops>,
    mount: Mount,
    ending: Mutex<Ending>,
    changed: Condvar,
    connections: AtomicUsize,
}

/// How far the end is.
#[derive(Debug, Default)]
struct Ending {
    /// Whether the kernel has given up the file system.
    is_gone: bool,
    /// Shutdowns that were asked for and are not answered yet.
    farewells: usize,
    /// Connections of successors that were given all they need, and have not ended us yet.
    successors: usize,
}

impl Control {
    pub(crate) fn new(state: Arc<MountState>, us: ProcessIdentity, ops: Arc<Ops>, mount: Mount) -> Arc<Self> {
        Arc::new(Self {
            state,
            us,
            ops,
            mount,
            ending: Mutex::default(),
            changed: Condvar::new(),
            connections: AtomicUsize::new(0),
        })
    }

    /// Notes that the kernel has given up the file system.
    pub(crate) fn note_gone(&self) {
        self.ending().is_gone = true;
        self.changed.notify_all();
    }

    fn ending(&self) -> MutexGuard<'_, Ending> {
        self.ending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until those who asked for the end have been told.
    pub(crate) fn wait_for_farewells(&self) {
        let is_awaited = |ending: &mut Ending| ending.farewells > 0;
        let _told_or_too_late = self.changed.wait_timeout_while(self.ending(), FAREWELL_TIMEOUT, is_awaited);
    }

    /// Waits while a successor that has been given everything may be about to end us.
    pub(crate) fn wait_for_successors(&self) {
        let is_awaited = |ending: &mut Ending| ending.successors > 0;
        drop(self.changed.wait_while(self.ending(), is_awaited));
    }

    /// Takes the next connection and serves it on a thread of its own.
    pub(crate) fn accept(self: &Arc<Self>, listener: &UnixListener) {
        let stream = match listener.accept() {
            Ok((stream, _nameless)) => stream,
            Err(error) => return debug!(%error, "nobody there any more"),
        };
        if self.connections.fetch_add(1, Ordering::Relaxed) >= MAX_CONNECTIONS {
            self.connections.fetch_sub(1, Ordering::Relaxed);
            // The caller sees the end of the stream, which it takes as "try again".
            return warn!("too many connections, closing the newest");
        }
        let control = Arc::clone(self);
        let served = std::thread::Builder::new().name("control".to_owned()).spawn(move || {
            if let Err(error) = control.serve(stream) {
                debug!(error = %contd_types::one_line(&error), "a connection ended early");
            }
            control.connections.fetch_sub(1, Ordering::Relaxed);
        });
        if let Err(error) = served {
            self.connections.fetch_sub(1, Ordering::Relaxed);
            warn!(%error, "no thread for a connection, closing it");
        }
    }

    /// Unmounts and waits until the kernel has given up the file system; then the process ends by itself.
    ///
    /// # Errors
    /// [`ShutdownError`]; the server goes on serving.
    pub(crate) fn shut_down(&self) -> Result<(), ShutdownError> {
        self.mount.detach().map_err(|source| ShutdownError::Unmount { source })?;
        let waited = self.changed.wait_timeout_while(self.ending(), GONE_TIMEOUT, |ending| !ending.is_gone);
        let (ending, _) = waited.unwrap_or_else(PoisonError::into_inner);
        if ending.is_gone { Ok(()) } else { Err(ShutdownError::StillUsed) }
    }

    fn serve(&self, stream: UnixStream) -> Result<(), SessionError> {
        let mut session = Blocking::<FlistSocket>::new(stream, IDLE_TIMEOUT)?;
        if session.welcome(concat!("contd-flistfs ", env!("CARGO_PKG_VERSION")))?.is_none() {
            return Ok(());
        }
        // Until this connection closes, for whatever reason.
        let mut _handover = None;
        while let Some(call) = session.next_call()? {
            if matches!(call.request, Request::HandOver) {
                _handover = Some(HandoverUnderWay::new(self));
            }
            self.answer(&session, &call)?;
        }
        Ok(())
    }

    fn answer(&self, session: &Blocking<FlistSocket>, call: &Call) -> Result<(), SessionError> {
        match call.request {
            Request::Status => session.reply(call.id, Ok(Response::Status(self.status())), &[]),
            Request::Shutdown => {
                // Counted before the end can begin, so that the end waits for this answer.
                self.count_farewell(|count| count.saturating_add(1));
                info!("asked to shut down");
                let result = self.shut_down().map(|()| Response::Done).map_err(|error| ApiError::from_error(&error));
                let sent = session.reply(call.id, result, &[]);
                self.count_farewell(|count| count.saturating_sub(1));
                sent
            }
            Request::HandOver => {
                let MountState { device, lease, listener, requests, negotiated, .. } = &*self.state;
                let handover = Handover { server: process(&self.us), session: negotiated.to_json() };
                info!("handing over to a successor");
                let fds = [device.as_fd(), lease.as_fd(), listener.as_fd(), requests.as_fd()];
                session.reply(call.id, Ok(Response::Handover(handover)), &fds)
            }
        }
    }

    fn count_farewell(&self, change: impl FnOnce(usize) -> usize) {
        let mut ending = self.ending();
        ending.farewells = change(ending.farewells);
        drop(ending);
        self.changed.notify_all();
    }

    fn status(&self) -> Status {
        Status {
            pid: nix::unistd::getpid().as_raw(),
            hash: self.state.spec.hash.clone(),
            mount_point: self.mount.path().to_owned(),
            inodes: self.ops.inodes(),
            failed_reads: self.ops.failed_reads(),
        }
    }
}

/// Counted as long as a successor's connection is open.
struct HandoverUnderWay<'a>(&'a Control);

impl<'a> HandoverUnderWay<'a> {
    fn new(control: &'a Control) -> Self {
        let mut ending = control.ending();
        ending.successors = ending.successors.saturating_add(1);
        Self(control)
    }
}

impl Drop for HandoverUnderWay<'_> {
    fn drop(&mut self) {
        let mut ending = self.0.ending();
        ending.successors = ending.successors.saturating_sub(1);
        drop(ending);
        self.0.changed.notify_all();
    }
}
