//! Makes device nodes and the links that every `/dev` has.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::AtFlags;
use nix::sys::stat::{Mode, SFlag, mknodat};
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchownat, symlinkat, unlinkat};

use super::fds::FdTable;
use super::paths::{self, Kind};
use crate::fault::Fault;
use crate::plan::DeviceNode;
use crate::sys::{self, Empty, Resolve};

/// The links of OCI's default file systems: name and target.
const LINKS: [(&str, &str); 4] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
];

/// Makes the nodes.
pub(super) fn make_all(root: &OwnedFd, devices: &[DeviceNode], fds: &FdTable) -> Result<(), Fault> {
    for device in devices {
        let failed = |error: io::Error| Fault::kernel("linux.devices", format!("make {}", device.path), &error);
        match device.bind {
            Some(tree) => bind(root, device, fds.get(tree)?).map_err(failed)?,
            None => make(root, device).map_err(failed)?,
        }
    }
    Ok(())
}

fn make(root: &OwnedFd, device: &DeviceNode) -> io::Result<()> {
    let (parent, name) = paths::parent_of(root, &device.path)?;
    let (kind, mode) = (SFlag::from_bits_truncate(device.file_type), Mode::from_bits_truncate(device.mode));
    match mknodat(parent.as_fd(), name, kind, mode, device.device) {
        Ok(()) => {}
        // An existing node is kept as it is, as with `runc`.
        Err(Errno::EEXIST) => return Ok(()),
        Err(errno) => return Err(errno.into()),
    }
    let (uid, gid) = (Uid::from_raw(device.uid), Gid::from_raw(device.gid));
    Ok(fchownat(parent.as_fd(), name, Some(uid), Some(gid), AtFlags::AT_SYMLINK_NOFOLLOW)?)
}

fn bind(root: &OwnedFd, device: &DeviceNode, tree: std::os::fd::BorrowedFd<'_>) -> io::Result<()> {
    let place = paths::find_or_make(root, &device.path, Kind::File, Resolve::IN_ROOT)?;
    sys::move_mount(tree, Empty, place.as_fd())
}

/// Makes the links: to a process's own descriptors, to the terminal multiplexer, and to `/proc/kcore` if it exists.
pub(super) fn link_all(root: &OwnedFd) -> Result<(), Fault> {
    let link = || -> io::Result<()> {
        let dev = paths::find_or_make(root, "/dev", Kind::Dir, Resolve::IN_ROOT)?;
        for (name, target) in LINKS {
            link_unless_there(&dev, name, target)?;
        }
        if paths::find(root, "/proc/kcore", Resolve::IN_ROOT).is_ok() {
            link_unless_there(&dev, "core", "/proc/kcore")?;
        }
        match unlinkat(dev.as_fd(), "ptmx", UnlinkatFlags::NoRemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => {}
            Err(errno) => return Err(errno.into()),
        }
        link_unless_there(&dev, "ptmx", "pts/ptmx")
    };
    link().map_err(|error| Fault::kernel("mounts", "make the links in /dev", &error))
}

fn link_unless_there(dev: &OwnedFd, name: &str, target: &str) -> io::Result<()> {
    match symlinkat(target, dev.as_fd(), name) {
        Ok(()) | Err(Errno::EEXIST) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}
