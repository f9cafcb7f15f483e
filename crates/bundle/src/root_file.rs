//! Reads a file of a container's root as the container would see it, trusting nothing in that root.
//!
//! A root comes from an flist, so whoever made the flist chooses what `/etc/passwd` is: a symlink to the host's file or
//! into `/proc`, a FIFO that blocks its reader, a device whose opening does something, a loop, a terabyte.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use contd_types::{ErrorKind, Explain};
use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use nix::libc;

use crate::error::of_io;

/// The most bytes of a passwd or group file; real ones have a few KiB.
pub const MAX_USER_FILE_BYTES: u64 = 1024 * 1024;

/// How often a lookup is repeated when the kernel says that a rename went on beside it.
const MAX_RACES: u32 = 16;

/// Why a file of a root cannot be read.
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
    #[error("follow {} inside the container's root", path.display())]
    Follow {
        /// The path inside the root.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is a directory, FIFO, socket or device.
    #[error("read {} inside the container's root: not a regular file", path.display())]
    NotRegular {
        /// The path inside the root.
        path: PathBuf,
    },
    /// It has more bytes than are ever read.
    #[error("read {} inside the container's root: more than {max_bytes} bytes", path.display())]
    TooLarge {
        /// The path inside the root.
        path: PathBuf,
        /// The bound.
        max_bytes: u64,
    },
    /// It cannot be read.
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

/// Returns the content of a regular file inside a root, or `None` when there is none.
///
/// `path` and every symlink on the way, absolute ones and `..` included, are taken relative to `root`, as chroot would
/// (`openat2` with `RESOLVE_IN_ROOT`); magic links of procfs and other mounts inside the root are never crossed. The
/// file is opened only after it is known to be regular, so a FIFO does not block and no device driver runs. At most
/// `max_bytes` are read, whatever the file claims to be.
///
/// # Errors
/// A [`RootFileError`]; a path that leads to nothing is `Ok(None)`.
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
    let root_handle = File::options()
        .read(true)
        .custom_flags(libc::O_PATH | libc::O_DIRECTORY)
        .open(root)
        .map_err(|source| RootFileError::OpenRoot { root: root.to_owned(), source })?;
    let handle = match find_in_root(&root_handle, path) {
        Ok(handle) => File::from(handle),
        // A file used as a directory: below it there is nothing.
        Err(Errno::ENOENT | Errno::ENOTDIR) => return Ok(None),
        Err(errno) => return Err(RootFileError::Follow { path: path.to_owned(), source: errno.into() }),
    };
    let failed = |source| RootFileError::Read { path: path.to_owned(), source };
    if !handle.metadata().map_err(failed)?.is_file() {
        return Err(RootFileError::NotRegular { path: path.to_owned() });
    }
    let mut head = Vec::new();
    reopen(&handle).map_err(failed)?.take(bytes).read_to_end(&mut head).map_err(failed)?;
    Ok(Some(head))
}

/// Finds a path inside a root without opening what is there.
fn find_in_root(root: &File, path: &Path) -> nix::Result<OwnedFd> {
    let how = OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_CLOEXEC)
        // NO_XDEV: a prepared root is one mount. Without it a procfs inside a `dir:` root would serve our own environ.
        .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS | ResolveFlag::RESOLVE_NO_XDEV);
    let mut races = 0;
    loop {
        match openat2(root, path, how) {
            // The kernel asks to try again when a rename anywhere made `..` uncertain.
            Err(Errno::EAGAIN) if races < MAX_RACES => races += 1,
            result => return result,
        }
    }
}

/// Opens for reading what an `O_PATH` descriptor stands for: the very same file, whatever has its name now.
pub(crate) fn reopen(handle: &File) -> io::Result<File> {
    let link = format!("/proc/self/fd/{}", handle.as_raw_fd());
    File::options().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(link)
}
