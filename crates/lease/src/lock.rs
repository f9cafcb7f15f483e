//! The lock that is the proof of life: a write lock of an open file description, on the whole file.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};

/// Opens the lock file; with `is_created`, makes it when it is absent.
pub(crate) fn open(path: &Path, is_created: bool) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(is_created).truncate(false).mode(0o600).custom_flags(libc::O_NOFOLLOW);
    options.open(path)
}

/// Takes the lock for this open file description; `false` when another one has it.
pub(crate) fn try_take(file: impl AsFd) -> io::Result<bool> {
    match fcntl(file, FcntlArg::F_OFD_SETLK(&whole_file(libc::F_WRLCK))) {
        Ok(_) => Ok(true),
        Err(Errno::EAGAIN | Errno::EACCES) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

/// The lock for the length of a piece of work. It is given back by name, not only by closing: a process that another
/// thread is just spawning has a copy of our descriptor until its exec, and would keep the lock until then.
#[derive(Debug)]
pub(crate) struct Taken(Option<File>);

impl Taken {
    /// Wraps a file whose lock was just taken.
    pub(crate) fn new(file: File) -> Self {
        Self(Some(file))
    }

    /// Keeps the lock beyond this piece of work: from here on it ends with the last descriptor.
    pub(crate) fn keep(mut self) -> Option<File> {
        self.0.take()
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        if let Some(file) = &self.0 {
            // If this fails, closing gives it back, only a little later.
            let _closed_anyway = fcntl(file, FcntlArg::F_OFD_SETLK(&whole_file(libc::F_UNLCK)));
        }
    }
}

/// Tells whether another open file description has the lock, without taking it.
pub(crate) fn is_taken(file: impl AsFd) -> io::Result<bool> {
    let mut lock = whole_file(libc::F_WRLCK);
    fcntl(file, FcntlArg::F_OFD_GETLK(&mut lock))?;
    Ok(i32::from(lock.l_type) != libc::F_UNLCK)
}

/// Tells whether the path still leads to this very file; only then does its lock mean anything.
pub(crate) fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    let ours = file.metadata()?;
    match std::fs::symlink_metadata(path) {
        Ok(there) => Ok(there.dev() == ours.dev() && there.ino() == ours.ino()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

#[expect(clippy::cast_possible_truncation, reason = "the constants are 0 to 2; the fields of the struct are shorts")]
fn whole_file(lock_type: libc::c_int) -> libc::flock {
    libc::flock {
        l_type: lock_type as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    }
}
