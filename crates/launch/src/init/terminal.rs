//! A terminal of the container's own: made by its own multiplexer, so that its processes find it in their `/dev/pts`.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use contd_types::WindowSize;
use nix::errno::Errno;
use nix::sys::stat::{SFlag, fstat, makedev};
use nix::unistd::Uid;
use rustix::fs::{Mode, OFlags};
use rustix::pty::OpenptFlags;

use super::paths::{self, Kind};
use crate::fault::Fault;
use crate::sys::{self, Empty, Resolve};

/// The multiplexer: a link to that of the mount at `/dev/pts`, or a device of its own that opens the same.
const MULTIPLEXER: &str = "/dev/ptmx";
/// Where the terminal of a container's own process is seen, too.
const CONSOLE: &str = "/dev/console";
/// The device number of every multiplexer.
const MULTIPLEXER_NUMBER: (u64, u64) = (5, 2);

/// Both ends of a terminal.
#[derive(Debug)]
pub struct Terminal {
    /// For whoever types and reads.
    pub master: OwnedFd,
    /// For the process.
    pub slave: OwnedFd,
}

impl Terminal {
    /// Makes one. Only legal inside the container's root, in a process that may open its devices.
    ///
    /// # Errors
    /// [`Fault`]: the container has no multiplexer, or no terminal is free.
    pub(crate) fn open(size: WindowSize) -> Result<Self, Fault> {
        let failed = |what: &'static str| move |error: io::Error| Fault::kernel("process.terminal", what, &error);
        // The container may have put anything in its place: not blocking, so that it cannot hold us.
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let master = rustix::fs::open(MULTIPLEXER, flags, Mode::empty());
        let master = master.map_err(|errno| failed("open /dev/ptmx of the container")(errno.into()))?;
        let status = fstat(&master).map_err(|errno| failed("look at /dev/ptmx of the container")(errno.into()))?;
        let is_device = SFlag::from_bits_truncate(status.st_mode) & SFlag::S_IFMT == SFlag::S_IFCHR;
        let (major, minor) = MULTIPLEXER_NUMBER;
        if !is_device || status.st_rdev != makedev(major, minor) {
            return Err(Fault::invalid(
                "process.terminal",
                "/dev/ptmx of the container is not the terminal multiplexer",
            ));
        }
        let make = || -> io::Result<OwnedFd> {
            rustix::pty::unlockpt(&master)?;
            // By the master, not by a name in `/dev/pts`, which the container could have mounted over.
            let slave = rustix::pty::ioctl_tiocgptpeer(
                &master,
                OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC,
            )?;
            let WindowSize { rows, columns } = size;
            contd_descriptors::terminal::resize(&slave, rows, columns)?;
            rustix::fs::fcntl_setfl(&master, OFlags::empty())?;
            Ok(slave)
        };
        let slave = make().map_err(failed("make a terminal"))?;
        Ok(Self { master, slave })
    }
}

/// Gives a terminal to the user of the process, who could not open it again otherwise.
///
/// # Errors
/// [`Fault`].
pub(crate) fn give(slave: &OwnedFd, uid: u32) -> Result<(), Fault> {
    match nix::unistd::fchown(slave, Some(Uid::from_raw(uid)), None) {
        // An id that a user namespace does not map: it works without.
        Ok(()) | Err(Errno::EINVAL | Errno::EPERM) => Ok(()),
        Err(errno) => Err(Fault::kernel("process.terminal", format!("give the terminal to user {uid}"), &errno.into())),
    }
}

/// Shows the terminal as `/dev/console`, as OCI wants it.
///
/// # Errors
/// [`Fault`].
pub(super) fn make_console(root: &OwnedFd, slave: &OwnedFd) -> Result<(), Fault> {
    let make = || {
        let place = paths::find_or_make(root, CONSOLE, Kind::File, Resolve::IN_ROOT)?;
        let tree = sys::open_tree(slave.as_fd(), c"", false)?;
        sys::move_mount(tree.as_fd(), Empty, place.as_fd())
    };
    make().map_err(|error| Fault::kernel("process.terminal", format!("show it as {CONSOLE}"), &error))
}

/// Makes the terminal at descriptor 0 that of this session, whose leader this process is.
pub(crate) fn control() -> io::Result<()> {
    Ok(rustix::process::ioctl_tiocsctty(io::stdin().as_fd())?)
}
