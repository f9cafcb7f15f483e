//! The directory to unpack into, as an open descriptor: all paths are relative to it.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, openat, openat2};
use nix::sys::stat::{
    FchmodatFlags, Mode, SFlag, UtimensatFlags, fchmod, fchmodat, fstatat, futimens, mkdirat, mknodat, utimensat,
};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchown, fchownat, ftruncate, symlinkat, unlinkat};

use super::error::{UnpackError, UnpackStep};
use crate::metadata::{FileKind, Inode};
use crate::unfinished;

/// The longest path that the system accepts (`PATH_MAX` without its NUL). A packer that works by paths makes none longer.
pub(super) const MAX_PATH_BYTES: usize = 4095;

/// Modes that restrict access to the caller while the tree is being filled.
const PRIVATE_DIRECTORY: u32 = 0o700;
const PRIVATE_FILE: u32 = 0o600;

/// Setuid and setgid.
const SET_ID_BITS: u32 = 0o6000;

#[derive(Debug)]
pub(super) struct Root {
    dir: PathBuf,
    /// The path for messages, which differs from `dir` until the tree is complete.
    shown: PathBuf,
    descriptor: OwnedFd,
}

impl Root {
    /// Opens the directory, after creating it if necessary, and makes it private.
    pub(super) fn prepare(dir: &Path) -> Result<Self, UnpackError> {
        let failed = |source| UnpackError::Prepare { dir: dir.to_owned(), source };
        match fs::DirBuilder::new().mode(PRIVATE_DIRECTORY).create(dir) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(failed(error)),
        }
        let opened = File::open(dir).map_err(failed)?;
        let metadata = opened.metadata().map_err(failed)?;
        if !metadata.is_dir() {
            return Err(UnpackError::NotADirectory { dir: dir.to_owned() });
        }
        opened.set_permissions(fs::Permissions::from_mode(PRIVATE_DIRECTORY)).map_err(failed)?;
        Ok(Self { dir: dir.to_owned(), shown: dir.to_owned(), descriptor: opened.into() })
    }

    /// Sets the path for messages: the final place of the tree.
    pub(super) fn shown_as(self, dir: &Path) -> Self {
        Self { shown: dir.to_owned(), ..self }
    }

    /// Removes the directory with its content.
    pub(super) fn clean_up(&self) -> io::Result<()> {
        unfinished::remove(&self.dir)
    }

    /// Returns a path of the flist, for messages.
    pub(super) fn shown(&self, path: &[u8]) -> PathBuf {
        self.shown.join(std::ffi::OsStr::from_bytes(path))
    }

    /// Opens a directory at or below the root.
    pub(super) fn open_directory(&self, path: &[u8]) -> nix::Result<OwnedFd> {
        let path = if path.is_empty() { b"." } else { path };
        self.open_beneath(path, OFlag::O_RDONLY | OFlag::O_DIRECTORY)
    }

    /// Opens an existing path without following links, in its directories or at its end, and without leaving the root.
    fn open_beneath(&self, path: &[u8], flags: OFlag) -> nix::Result<OwnedFd> {
        let how = OpenHow::new()
            .flags(flags | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK)
            .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS);
        openat2(self.descriptor.as_fd(), path, how)
    }

    /// Writes a part of a file that [`Self::create`] made.
    pub(super) fn write_at(&self, path: &[u8], bytes: &[u8], offset: u64) -> io::Result<()> {
        let file = File::from(self.open_beneath(path, OFlag::O_WRONLY)?);
        if !file.metadata()?.is_file() {
            return Err(io::Error::from(io::ErrorKind::InvalidData));
        }
        file.write_all_at(bytes, offset)
    }

    /// Makes one entry in an open directory. With `force` an existing entry is replaced, except a directory by a directory.
    pub(super) fn create(
        &self,
        folder: BorrowedFd<'_>,
        inode: Inode<'_>,
        target: Option<&[u8]>,
        force: bool,
    ) -> nix::Result<()> {
        match create(folder, inode, target) {
            Err(Errno::EEXIST) if force => {}
            result => return result,
        }
        let there = SFlag::from_bits_truncate(
            fstatat(folder, inode.name(), AtFlags::AT_SYMLINK_NOFOLLOW)?.st_mode & SFlag::S_IFMT.bits(),
        );
        if there == SFlag::S_IFDIR {
            // An existing directory is never emptied; another kind of entry with its name is an error.
            return if inode.kind() == FileKind::Directory { Ok(()) } else { Err(Errno::EISDIR) };
        }
        unlinkat(folder, inode.name(), UnlinkatFlags::NoRemoveDir)?;
        create(folder, inode, target)
    }
}

fn create(folder: BorrowedFd<'_>, inode: Inode<'_>, target: Option<&[u8]>) -> nix::Result<()> {
    let name = inode.name();
    let node = |kind| mknodat(folder, name, kind, Mode::from_bits_truncate(PRIVATE_FILE), inode.rdev());
    match inode.kind() {
        FileKind::Directory => mkdirat(folder, name, Mode::from_bits_truncate(PRIVATE_DIRECTORY)),
        FileKind::File => {
            let flags = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_WRONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
            let file = openat(folder, name, flags, Mode::from_bits_truncate(PRIVATE_FILE))?;
            let size = i64::try_from(inode.size()).map_err(|_too_large| Errno::EFBIG)?;
            if size > 0 { ftruncate(file, size) } else { Ok(()) }
        }
        FileKind::Symlink => symlinkat(target.unwrap_or_default(), folder, name),
        FileKind::CharDevice => node(SFlag::S_IFCHR),
        FileKind::BlockDevice => node(SFlag::S_IFBLK),
        FileKind::Fifo => node(SFlag::S_IFIFO),
        FileKind::Socket => node(SFlag::S_IFSOCK),
    }
}

/// Sets owner, mode and times of an entry that is no directory; in this order, since chown clears setuid.
pub(super) fn finish_entry(
    folder: BorrowedFd<'_>,
    inode: Inode<'_>,
    same_owner: bool,
) -> Result<(), (UnpackStep, Errno)> {
    let name = inode.name();
    if same_owner {
        let (uid, gid) = (Some(Uid::from_raw(inode.uid())), Some(Gid::from_raw(inode.gid())));
        fchownat(folder, name, uid, gid, AtFlags::AT_SYMLINK_NOFOLLOW).map_err(|errno| (UnpackStep::Chown, errno))?;
    }
    if inode.kind() != FileKind::Symlink {
        fchmodat(folder, name, mode_of(inode, same_owner), FchmodatFlags::NoFollowSymlink)
            .map_err(|errno| (UnpackStep::Chmod, errno))?;
    }
    let time = TimeSpec::new(inode.mtime(), 0);
    utimensat(folder, name, &time, &time, UtimensatFlags::NoFollowSymlink).map_err(|errno| (UnpackStep::Times, errno))
}

/// Sets owner, mode and times of an open directory.
pub(super) fn finish_directory(
    folder: BorrowedFd<'_>,
    inode: Inode<'_>,
    same_owner: bool,
) -> Result<(), (UnpackStep, Errno)> {
    if same_owner {
        let (uid, gid) = (Some(Uid::from_raw(inode.uid())), Some(Gid::from_raw(inode.gid())));
        fchown(folder, uid, gid).map_err(|errno| (UnpackStep::Chown, errno))?;
    }
    fchmod(folder, mode_of(inode, same_owner)).map_err(|errno| (UnpackStep::Chmod, errno))?;
    let time = TimeSpec::new(inode.mtime(), 0);
    futimens(folder, &time, &time).map_err(|errno| (UnpackStep::Times, errno))
}

fn mode_of(inode: Inode<'_>, same_owner: bool) -> Mode {
    let dropped = if same_owner { 0 } else { SET_ID_BITS };
    Mode::from_bits_truncate(inode.mode() & 0o7777 & !dropped)
}
