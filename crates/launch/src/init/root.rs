//! The new root: attaches it, enters it, and makes it read-only at the end.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;
use nix::unistd::{chdir, fchdir};

use super::fds::FdTable;
use crate::fault::Fault;
use crate::plan::Root;
use crate::sys::{self, Empty};

/// Unmounts all of the host's mounts: otherwise a warm slot's copies would keep file systems busy that the host
/// unmounts.
pub(crate) fn unmount_host() -> io::Result<()> {
    sys::set_propagation(libc::MS_PRIVATE, true)?;
    let fs = sys::fs_open(c"tmpfs")?;
    sys::fs_create(fs.as_fd())?;
    let empty = sys::fs_mount(fs.as_fd(), 0)?;
    let old = open_root()?;
    sys::move_mount(empty.as_fd(), Empty, old.as_fd())?;
    fchdir(&empty)?;
    sys::pivot_to_cwd()?;
    fchdir(&old)?;
    sys::unmount_cwd()?;
    Ok(chdir("/")?)
}

/// Makes the root's tree the root of this mount namespace, and unmounts the old one; returns the new root.
pub(super) fn enter(root: &Root, fds: &FdTable) -> Result<OwnedFd, Fault> {
    let tree = fds.get(root.tree)?;
    let failed = |what: &'static str| move |error: io::Error| Fault::kernel("root.path", what, &error);
    // Mounts made here must not reach the host; later mounts of the host come in only where the plan says so.
    sys::set_propagation(libc::MS_SLAVE, true).map_err(failed("part with the host's mounts"))?;
    if !shares_with_host(root) {
        sys::mount_set(tree, 0, 0, libc::MS_SLAVE, true).map_err(failed("part with the host's mounts"))?;
    }
    let old = open_root().map_err(failed("open the old root"))?;
    sys::move_mount(tree, Empty, old.as_fd()).map_err(failed("attach the root file system"))?;
    fchdir(tree).map_err(|errno| failed("enter the root file system")(errno.into()))?;
    sys::pivot_to_cwd().map_err(failed("make it the root"))?;
    fchdir(old).map_err(|errno| failed("go to the old root")(errno.into()))?;
    sys::unmount_cwd().map_err(failed("let go of the old root"))?;
    chdir("/").map_err(|errno| failed("go to the new root")(errno.into()))?;
    let new_root = open_root().map_err(failed("open the new root"))?;
    if let Some(propagation) = root.propagation {
        // Set it before the mounts, which have propagation options of their own, and after the pivot, which fails with
        // a shared root.
        sys::mount_set(new_root.as_fd(), 0, 0, propagation.flag, propagation.is_recursive)
            .map_err(|error| Fault::kernel("linux.rootfsPropagation", "set the root's propagation", &error))?;
    }
    Ok(new_root)
}

/// Tells whether the host's and the container's mounts are peers: only if the bundle asks for it.
pub(super) fn shares_with_host(root: &Root) -> bool {
    root.propagation.is_some_and(|propagation| propagation.flag == libc::MS_SHARED)
}

/// Applies the settings that must come last.
pub(super) fn finish(new_root: &OwnedFd, root: &Root) -> Result<(), Fault> {
    if root.is_read_only {
        sys::mount_set(new_root.as_fd(), libc::MOUNT_ATTR_RDONLY, 0, 0, false)
            .map_err(|error| Fault::kernel("root.readonly", "make the root read-only", &error))?;
    }
    Ok(())
}

fn open_root() -> io::Result<OwnedFd> {
    Ok(open("/", OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?)
}
