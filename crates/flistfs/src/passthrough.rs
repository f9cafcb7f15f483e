//! Kernel passthrough: a file whose whole content lies in one file of the cache is read by the kernel from there, without
//! a request, with one page cache for all, and even while no server lives.
//!
//! It takes Linux 6.9, the capability to administer the system, and a cache that does not itself lie on an overlay. Where
//! one of them is missing, everything is read by READ: slower, the same bytes. That is found out at the first try, said
//! once, and not tried again by this process.

#[expect(unsafe_code, reason = "two ioctls of /dev/fuse, which nix does not have")]
mod sys;

use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, Weak};

use nix::errno::Errno;
use tracing::{info, warn};

use crate::handles::{Handles, Way};
use crate::negotiate::Negotiated;
use crate::wire::init_flag;

/// How a session begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Beginning {
    /// With a new mount.
    New,
    /// With what a dead predecessor has left.
    Resumed,
}

/// Decides how files are served, and keeps count of it.
#[derive(Debug)]
pub(crate) struct Passthrough {
    /// Where the handles are written down.
    path: PathBuf,
    attached: RwLock<Option<Arc<Attached>>>,
    is_off: AtomicBool,
    passed: AtomicU64,
}

/// The state of one connection.
#[derive(Debug)]
struct Attached {
    /// Weak: a session that has ended must not keep the connection.
    device: Weak<File>,
    handles: Handles,
}

/// An answered OPEN.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Opened {
    pub(crate) handle: u64,
    pub(crate) way: Way,
}

impl Passthrough {
    /// Keeps the handles in this file.
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path, attached: RwLock::default(), is_off: AtomicBool::new(false), passed: AtomicU64::new(0) }
    }

    /// Binds to a connection; without passthrough if the kernel has none, or if the handles cannot be written down.
    pub(crate) fn attach(&self, device: &Arc<File>, negotiated: &Negotiated, beginning: Beginning) {
        let attached = negotiated.has(init_flag::PASSTHROUGH).then(|| {
            let handles = match beginning {
                Beginning::New => Handles::create(&self.path),
                Beginning::Resumed => match Handles::take_over(&self.path) {
                    // The predecessor has died before it began.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => Handles::create(&self.path),
                    other => other,
                },
            };
            let handles = handles.inspect_err(|error| {
                let path = self.path.display();
                warn!(%error, %path, "open files cannot be written down, so nothing is passed through");
            });
            Some(Arc::new(Attached { device: Arc::downgrade(device), handles: handles.ok()? }))
        });
        *self.attached.write().unwrap_or_else(PoisonError::into_inner) = attached.flatten();
    }

    /// Counts the OPENs that were answered with a file to pass through.
    pub(crate) fn passed(&self) -> u64 {
        self.passed.load(Ordering::Relaxed)
    }

    /// Tells whether it is worth having whole files.
    pub(crate) fn is_on(&self) -> bool {
        !self.is_off.load(Ordering::Relaxed) && self.attached().is_some()
    }

    /// Answers an OPEN for which there is nothing to decide: begun by a predecessor, or of an inode that is open already.
    pub(crate) fn open_again(&self, unique: u64, ino: u64) -> Option<Result<Opened, Errno>> {
        let attached = self.attached()?;
        if let Some((handle, way)) = attached.handles.again(unique) {
            return Some(Ok(Opened { handle, way }));
        }
        Some(self.noted(attached.handles.join(unique, ino)?))
    }

    /// Answers an OPEN: passed through to `whole` if there is one and the kernel takes it.
    pub(crate) fn open(&self, unique: u64, ino: u64, whole: Option<File>) -> Result<Opened, Errno> {
        let Some(attached) = self.attached() else {
            return Ok(Opened { handle: ino, way: Way::Cached });
        };
        let lent = whole.and_then(|file| self.lend(&attached, &file));
        let opened = self.noted(attached.handles.open(unique, ino, lent.map_or(Way::Cached, Way::Passed)));
        // Another thread was faster with the same inode: its way counts.
        let is_used = opened.is_ok_and(|opened| opened.way == lent.map_or(Way::Cached, Way::Passed));
        if let Some(id) = lent.filter(|_| !is_used) {
            attached.take_back(id);
        }
        opened
    }

    /// Ends a handle; returns the inode if nobody has it open any more and it was not passed through.
    pub(crate) fn release(&self, handle: u64) -> Option<u64> {
        let attached = self.attached()?;
        match attached.handles.release(handle)? {
            (_, Way::Passed(id)) => {
                attached.take_back(id);
                None
            }
            (ino, Way::Cached) => Some(ino),
        }
    }

    /// Ends the handle of an OPEN whose answer the kernel has refused; returns what [`Self::release`] does.
    pub(crate) fn refused(&self, unique: u64) -> Option<u64> {
        self.release(self.attached()?.handles.refused(unique)?)
    }

    fn noted(&self, handle: Option<(u64, Way)>) -> Result<Opened, Errno> {
        let (handle, way) = handle.ok_or(Errno::ENFILE)?;
        if matches!(way, Way::Passed(_)) {
            self.passed.fetch_add(1, Ordering::Relaxed);
        }
        Ok(Opened { handle, way })
    }

    fn lend(&self, attached: &Attached, file: &File) -> Option<u32> {
        if self.is_off.load(Ordering::Relaxed) {
            return None;
        }
        let why = match sys::lend(attached.device.upgrade()?.as_ref(), file) {
            Ok(id) => return Some(id),
            // A shortage passes; the next OPEN tries again.
            Err(Errno::ENOMEM | Errno::ENFILE | Errno::EMFILE | Errno::EINTR | Errno::EAGAIN) => return None,
            Err(Errno::ELOOP) => "the cache lies on an overlay or another stacked file system",
            Err(Errno::EPERM) => "this process lacks CAP_SYS_ADMIN",
            Err(_) => "the kernel refuses the file system of the cache",
        };
        if !self.is_off.swap(true, Ordering::Relaxed) {
            info!(why, "files are not passed through to the kernel but read by this server");
        }
        None
    }

    fn attached(&self) -> Option<Arc<Attached>> {
        self.attached.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Attached {
    fn take_back(&self, id: u32) {
        let Some(device) = self.device.upgrade() else { return };
        if let Err(error) = sys::take_back(&device, id) {
            // ENOENT: a predecessor has taken it back and died before it could write that down.
            if error != Errno::ENOENT {
                warn!(%error, id, "the kernel keeps a file of the cache until the file system is unmounted");
            }
        }
    }
}
