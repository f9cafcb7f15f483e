//! Reads a file of a container's root as the container would see it, without trusting the root.
//!
//! A root comes from a flist, so the flist's author decides what `/etc/passwd` is: a symlink to the host's file or into
//! `/proc`, a FIFO that blocks its reader, a device whose opening has an effect, a loop, a terabyte.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Component, Path, PathBuf};

use contd_types::{ErrorKind, Explain};
use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2, readlinkat};
use nix::libc;
use nix::sys::stat::{Mode, mkdirat};
use nix::unistd::{UnlinkatFlags, unlinkat};

use crate::error::of_io;

/// How often a lookup is repeated when the kernel reports a concurrent rename.
const MAX_RACES: u32 = 16;

/// A file of a root cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum RootFileError {
    /// The root itself cannot be opened.
    #[error("open root {}", root.display())]
    OpenRoot {
        /// The root.
        root: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The path cannot be followed inside the root: a loop, a magic link, a mount, a file used as a directory.
    #[error("resolve {} inside the container's root", path.display())]
    Follow {
        /// The path inside the root.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is a directory, FIFO, socket or device.
    #[error("read {} inside the container's root: not a regular file", path.display())]
    NotRegular {
        /// The path inside the root.
        path: PathBuf,
    },
    /// The file is larger than the limit.
    #[error("read {} inside the container's root: more than {max_bytes} bytes", path.display())]
    TooLarge {
        /// The path inside the root.
        path: PathBuf,
        /// The limit in bytes.
        max_bytes: u64,
    },
    /// The file cannot be read.
    #[error("read {} inside the container's root", path.display())]
    Read {
        /// The path inside the root.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl Explain for RootFileError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::OpenRoot { .. } => ErrorKind::Internal,
            Self::Follow { .. } | Self::NotRegular { .. } | Self::TooLarge { .. } => ErrorKind::Corrupt,
            Self::Read { source, .. } => of_io(source),
        }
    }

    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::OpenRoot { .. } => "prepare the root file system first".to_owned(),
            Self::Follow { path, .. } | Self::NotRegular { path } | Self::TooLarge { path, .. } => {
                format!("the flist is damaged or hostile: its {} must be a small regular file", path.display())
            }
            Self::Read { .. } => "look at the log of the flist's server; repeating is safe".to_owned(),
        })
    }
}

/// Returns the content of a regular file inside a root, or `None` when it does not exist.
///
/// `path` and every symlink on the way, absolute ones and `..` included, are taken relative to `root`, as chroot would
/// (`openat2` with `RESOLVE_IN_ROOT`); magic links of procfs and other mounts inside the root are never crossed. The
/// file is opened only after it is known to be regular, so a FIFO does not block and no device driver runs. At most
/// `max_bytes` are read, whatever the file claims to be.
///
/// # Errors
/// A [`RootFileError`]; a path that does not exist is `Ok(None)`.
pub fn read_in_root(root: &Path, path: &Path, max_bytes: u64) -> Result<Option<Vec<u8>>, RootFileError> {
    let Some(bytes) = head_in_root(root, path, max_bytes.saturating_add(1))? else { return Ok(None) };
    if u64::try_from(bytes.len()).is_ok_and(|len| len <= max_bytes) {
        Ok(Some(bytes))
    } else {
        Err(RootFileError::TooLarge { path: path.to_owned(), max_bytes })
    }
}

/// Returns the first bytes of a regular file inside a root, at most `bytes`, by the rules of [`read_in_root`].
pub(crate) fn head_in_root(root: &Path, path: &Path, bytes: u64) -> Result<Option<Vec<u8>>, RootFileError> {
    let Some(file) = open_in_root(root, path)? else { return Ok(None) };
    let mut head = Vec::new();
    let read = file.take(bytes).read_to_end(&mut head);
    read.map_err(|source| RootFileError::Read { path: path.to_owned(), source })?;
    Ok(Some(head))
}

/// Opens a regular file inside a root for reading, by the rules of [`read_in_root`].
pub(crate) fn open_in_root(root: &Path, path: &Path) -> Result<Option<File>, RootFileError> {
    let inside = Inside::open(root).map_err(|source| RootFileError::OpenRoot { root: root.to_owned(), source })?;
    let handle = match find_in_root(&inside.dir, path) {
        Ok(handle) => File::from(handle),
        // A file used as a directory: nothing exists below it.
        Err(Errno::ENOENT | Errno::ENOTDIR) => return Ok(None),
        Err(errno) => return Err(RootFileError::Follow { path: path.to_owned(), source: errno.into() }),
    };
    let failed = |source| RootFileError::Read { path: path.to_owned(), source };
    if !handle.metadata().map_err(failed)?.is_file() {
        return Err(RootFileError::NotRegular { path: path.to_owned() });
    }
    reopen_for(&handle, File::options().read(true)).map(Some).map_err(failed)
}

/// An open root. Lookups cannot leave it.
#[derive(Debug)]
pub(crate) struct Inside {
    dir: File,
}

impl Inside {
    /// Opens a root.
    pub(crate) fn open(root: &Path) -> io::Result<Self> {
        let dir = File::options().read(true).custom_flags(libc::O_PATH | libc::O_DIRECTORY).open(root)?;
        Ok(Self { dir })
    }

    /// Returns a descriptor of the root itself (`O_PATH`).
    pub(crate) fn dir(&self) -> &File {
        &self.dir
    }

    /// Resolves a path inside the root. Existing links are followed; parts that do not exist are kept as written. The
    /// result has no link and no `..` in it.
    pub(crate) fn follow(&self, path: &Path) -> io::Result<PathBuf> {
        let mut left: Vec<OsString> = names(path);
        let mut found = PathBuf::from("/");
        let mut links = 0;
        while let Some(name) = left.pop() {
            if name == ".." {
                found.pop();
                continue;
            }
            found.push(name);
            let link = match open_at(&self.dir, &found, OFlag::O_NOFOLLOW, ResolveFlag::RESOLVE_NO_SYMLINKS) {
                Ok(link) => link,
                // There is nothing below a file either.
                Err(Errno::ENOENT | Errno::ENOTDIR) => continue,
                Err(errno) => return Err(errno.into()),
            };
            if !File::from(link.try_clone()?).metadata()?.is_symlink() {
                continue;
            }
            links += 1;
            if links > MAX_LINKS {
                return Err(Errno::ELOOP.into());
            }
            let says = PathBuf::from(readlinkat(&link, "").map_err(io::Error::from)?);
            found.pop();
            if says.is_absolute() {
                found = PathBuf::from("/");
            }
            left.extend(names(&says));
        }
        Ok(found)
    }

    /// Opens (`O_PATH`) the file at a path that [`Self::follow`] returned; a link in it now is an error.
    pub(crate) fn open_plain(&self, path: &Path) -> io::Result<File> {
        let found = open_at(&self.dir, path, OFlag::O_NOFOLLOW, ResolveFlag::RESOLVE_NO_SYMLINKS);
        Ok(File::from(found.map_err(io::Error::from)?))
    }

    /// Removes a symbolic link; the directories before it are followed.
    pub(crate) fn remove_link(&self, path: &Path) -> io::Result<()> {
        let (Some(dir), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        let dir = find_in_root(&self.dir, dir).map_err(io::Error::from)?;
        if readlinkat(&dir, name).is_err() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        unlinkat(&dir, name, UnlinkatFlags::NoRemoveDir).map_err(io::Error::from)
    }

    /// Makes a file at a path that [`Self::follow`] returned, and its directory if that is missing.
    pub(crate) fn create(&self, path: &Path, mode: u32) -> io::Result<File> {
        let how = OpenHow::new()
            .flags(OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_CLOEXEC)
            .mode(Mode::from_bits_truncate(mode))
            .resolve(INSIDE | ResolveFlag::RESOLVE_NO_SYMLINKS);
        let create = || openat2(&self.dir, path, how);
        let made = match (create(), path.parent()) {
            (Err(Errno::ENOENT), Some(dir)) if dir.parent() == Some(Path::new("/")) => {
                mkdirat(&self.dir, dir.strip_prefix("/").unwrap_or(dir), Mode::from_bits_truncate(DIR_MODE))
                    .and_then(|()| create())
            }
            (made, _) => made,
        };
        Ok(File::from(made.map_err(io::Error::from)?))
    }
}

/// Tells whether the file is regular and empty.
pub(crate) fn is_empty_file(found: &File) -> bool {
    found.metadata().is_ok_and(|metadata| metadata.is_file() && metadata.len() == 0)
}

/// The mode of new directories.
const DIR_MODE: u32 = 0o755;
/// The most links in a path: the kernel's limit.
const MAX_LINKS: u32 = 40;

/// NO_XDEV: a prepared root is one mount. Without this flag a procfs inside a `dir:` root would show our own environ.
const INSIDE: ResolveFlag =
    ResolveFlag::RESOLVE_IN_ROOT.union(ResolveFlag::RESOLVE_NO_MAGICLINKS).union(ResolveFlag::RESOLVE_NO_XDEV);

/// Splits a path into names, in reverse order.
fn names(path: &Path) -> Vec<OsString> {
    let part = |part: Component<'_>| match part {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    };
    path.components().rev().filter_map(part).collect()
}

/// Finds a path inside a root without opening the file there.
fn find_in_root(root: &File, path: &Path) -> nix::Result<OwnedFd> {
    open_at(root, path, OFlag::empty(), ResolveFlag::empty())
}

fn open_at(root: &File, path: &Path, flags: OFlag, resolve: ResolveFlag) -> nix::Result<OwnedFd> {
    let how = OpenHow::new().flags(OFlag::O_PATH | OFlag::O_CLOEXEC | flags).resolve(INSIDE | resolve);
    let mut races = 0;
    loop {
        match openat2(root, path, how) {
            // The kernel asks for a retry when a rename anywhere made `..` uncertain.
            Err(Errno::EAGAIN) if races < MAX_RACES => races += 1,
            result => return result,
        }
    }
}

/// Opens the file behind an `O_PATH` descriptor: exactly that file, whichever file has its name now.
pub(crate) fn reopen_for(handle: &File, options: &mut OpenOptions) -> io::Result<File> {
    let link = format!("/proc/self/fd/{}", handle.as_raw_fd());
    options.custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(link)
}
