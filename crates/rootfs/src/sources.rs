//! Sources of binds, and upper directories, of callers with limited rights: opened below what a rule allows, and used by
//! descriptor. What is swapped for a link between the check and the mount changes nothing.
//!
//! `<dir>/binds/<n>` is where the source of the n-th mount is attached, in a directory that nobody else can enter. The bundle
//! names that path.

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use contd_access::Below;
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::mount::{MntFlags, umount2};
use nix::sys::stat::{Mode, fchmod, futimens, mkdirat};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, fchown};

use crate::grant::{BindGrant, Sources};
use crate::provider::RootfsError;
use crate::users::disk;

/// Attaches the sources below `dir`, in place of what was attached there. After an error some may be.
pub(crate) fn attach(dir: &Path, binds: &std::collections::BTreeMap<usize, BindGrant>) -> Result<Sources, RootfsError> {
    detach(dir)?;
    let mut attached = Sources::new();
    for (number, bind) in binds {
        make_dir(dir)?;
        let source = contd_access::open(&bind.place, OFlag::O_PATH).map_err(RootfsError::Source)?;
        let at = dir.join(number.to_string());
        contd_access::attach(&source, &at, bind.is_read_only).map_err(RootfsError::Attach)?;
        attached.insert(*number, at);
    }
    Ok(attached)
}

/// Detaches and removes everything below `dir`; fine when there is nothing.
pub(crate) fn detach(dir: &Path) -> Result<(), RootfsError> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(|source| disk("list", dir, source))?,
    };
    for entry in entries {
        let entry = entry.map_err(|source| disk("list", dir, source))?;
        let path = entry.path();
        // At once, whoever uses it; several may lie on one another when a daemon died half-way.
        loop {
            match umount2(&path, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
                Ok(()) => {}
                Err(Errno::EINVAL | Errno::ENOENT) => break,
                Err(errno) => return Err(RootfsError::Unmount { path, source: errno.into() }),
            }
        }
        // Never what is in it: had the mount come back, that would be the user's.
        let is_dir = fs::symlink_metadata(&path).is_ok_and(|metadata| metadata.is_dir());
        let removed = if is_dir { fs::remove_dir(&path) } else { fs::remove_file(&path) };
        removed.map_err(|source| disk("remove", &path, source))?;
    }
    match fs::remove_dir(dir) {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::DirectoryNotEmpty) => Ok(()),
        removed => removed.map_err(|source| disk("remove", dir, source)),
    }
}

/// Opens `upper` and `work` in an upper directory, and makes them where they are missing; a link in their place is refused.
pub(crate) fn open_upper(place: &Below, lower: &Path) -> Result<(OwnedFd, OwnedFd), RootfsError> {
    let dir = contd_access::open(place, OFlag::O_RDONLY | OFlag::O_DIRECTORY).map_err(RootfsError::Source)?;
    let failed = |source| RootfsError::Directory { path: place.path(), source };
    let (upper, is_new) = open_or_make(&dir, "upper").map_err(failed)?;
    if is_new {
        look_like(&upper, lower).map_err(failed)?;
    }
    let (work, _) = open_or_make(&dir, "work").map_err(failed)?;
    fchmod(&work, Mode::S_IRWXU).map_err(|errno| failed(errno.into()))?;
    Ok((upper, work))
}

/// Returns the path of a place without symlinks, to tell whether others have it.
pub(crate) fn real_path(place: &Below) -> Result<PathBuf, RootfsError> {
    let dir = contd_access::open(place, OFlag::O_PATH | OFlag::O_DIRECTORY).map_err(RootfsError::Source)?;
    real_path_of(&dir).map_err(|source| RootfsError::Directory { path: place.path(), source })
}

/// Returns the path of what a descriptor stands for.
pub(crate) fn real_path_of(fd: impl AsFd) -> io::Result<PathBuf> {
    fs::read_link(path_of(fd))
}

/// Names what a descriptor stands for, for an option of a mount; the descriptor must stay open until it is made.
pub(crate) fn path_of(fd: impl AsFd) -> PathBuf {
    format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd()).into()
}

fn open_or_make(dir: &OwnedFd, name: &str) -> io::Result<(OwnedFd, bool)> {
    let is_new = match mkdirat(dir, name, Mode::S_IRWXU) {
        Ok(()) => true,
        Err(Errno::EEXIST) => false,
        Err(errno) => return Err(errno.into()),
    };
    Ok((contd_access::open_entry(dir, name, OFlag::O_RDONLY | OFlag::O_DIRECTORY)?, is_new))
}

/// Gives a new upper directory owner, mode and times of the root of the lower: it shows as the root of the overlay.
fn look_like(upper: &OwnedFd, lower: &Path) -> io::Result<()> {
    let like = fs::metadata(lower)?;
    fchown(upper, Some(Uid::from_raw(like.uid())), Some(Gid::from_raw(like.gid())))?;
    fchmod(upper, Mode::from_bits_truncate(like.mode() & 0o7777))?;
    let time = TimeSpec::new(like.mtime(), like.mtime_nsec());
    Ok(futimens(upper, &time, &time)?)
}

fn make_dir(dir: &Path) -> Result<(), RootfsError> {
    let made = std::os::unix::fs::DirBuilderExt::mode(fs::DirBuilder::new().recursive(true), 0o700).create(dir);
    made.map_err(|source| disk("make", dir, source))
}
