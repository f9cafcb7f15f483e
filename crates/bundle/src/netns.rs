//! Resolves the name of a network namespace to a file that a runtime may join.

use std::fs::{File, Metadata};
use std::io;
use std::iter;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use contd_types::{ErrorKind, Explain, NetnsName};
use nix::libc;
use nix::sys::statfs::{NSFS_MAGIC, fstatfs};

use crate::error::of_io;
use crate::sys;

/// This process's own network namespace: for a daemon, the host's.
const OWN_NAMESPACE: &str = "/proc/self/ns/net";
/// The network namespace of the first process: the host's, also when the daemon was started in another one.
const INIT_NAMESPACE: &str = "/proc/1/ns/net";
/// The inode number of the kernel's first network namespace (`NET_NS_INIT_INO` of linux/nsfs.h, since 6.18). Earlier
/// kernels number namespaces from 0xF0000000 on, so no other namespace has this number.
const INIT_INODE: u64 = 0xEFFF_FFF9;

/// A network namespace cannot be joined.
#[derive(Debug, thiserror::Error)]
pub enum NetnsError {
    /// No network namespace has this name.
    #[error("join network namespace {name}: there is none in {}", dir.display())]
    Missing {
        /// The name.
        name: NetnsName,
        /// The directory that was searched.
        dir: PathBuf,
    },
    /// The file is not a network namespace: a plain file, a symlink, a FIFO, a namespace of another kind.
    #[error("join network namespace {name}: {} is not a network namespace", path.display())]
    NotANamespace {
        /// The name.
        name: NetnsName,
        /// The file.
        path: PathBuf,
    },
    /// The network namespace is the host's own; no container may join it.
    #[error("join network namespace {name}: it is the host's own")]
    IsHost {
        /// The name.
        name: NetnsName,
    },
    /// The file, or the host's network namespace, cannot be examined.
    #[error("join network namespace {name}: examine {}", path.display())]
    Inspect {
        /// The name.
        name: NetnsName,
        /// The path that was examined.
        path: PathBuf,
        /// The error.
        source: io::Error,
    },
}

impl Explain for NetnsError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Missing { .. } => ErrorKind::NotFound,
            Self::NotANamespace { .. } => ErrorKind::InvalidArgument,
            Self::IsHost { .. } => ErrorKind::PermissionDenied,
            Self::Inspect { source, .. } => of_io(source),
        }
    }

    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Missing { name, .. } => format!("ip netns add {name}"),
            Self::NotANamespace { name, path } => {
                format!("remove {} and make it anew: ip netns add {name}", path.display())
            }
            Self::IsHost { .. } => "make a namespace for the container: ip netns add NAME".to_owned(),
            Self::Inspect { .. } => "run as root, with /proc mounted".to_owned(),
        })
    }
}

/// Returns `dir/name` after checking that it is a network namespace and not the host's.
///
/// The name's type guarantees that it is one path component. The file is opened with `O_PATH`, so without following a
/// symlink or running a driver's open; only after it is known to be on nsfs is it opened to ask for its kind. A user
/// who can replace files in `dir` (root) can do so after the check too: the directory itself must be trusted.
///
/// # Errors
/// A [`NetnsError`]; nothing was joined or changed.
pub fn resolve(name: &NetnsName, dir: &Path) -> Result<PathBuf, NetnsError> {
    let path = dir.join(name);
    let inspect = |path: &Path, source| NetnsError::Inspect { name: name.clone(), path: path.to_owned(), source };
    let not_a_namespace = || NetnsError::NotANamespace { name: name.clone(), path: path.clone() };

    let handle = match File::options().read(true).custom_flags(libc::O_PATH | libc::O_NOFOLLOW).open(&path) {
        Ok(handle) => handle,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(NetnsError::Missing { name: name.clone(), dir: dir.to_owned() });
        }
        Err(error) => return Err(inspect(&path, error)),
    };
    let file_system = fstatfs(&handle).map_err(|errno| inspect(&path, errno.into()))?;
    if file_system.filesystem_type() != NSFS_MAGIC {
        return Err(not_a_namespace());
    }
    let readable = crate::root_file::reopen_for(&handle, std::fs::File::options().read(true))
        .map_err(|error| inspect(&path, error))?;
    if sys::namespace_kind(&readable).map_err(|errno| inspect(&path, errno.into()))? != libc::CLONE_NEWNET {
        return Err(not_a_namespace());
    }
    let found = readable.metadata().map_err(|error| inspect(&path, error))?;
    let own = std::fs::metadata(OWN_NAMESPACE).map_err(|error| inspect(Path::new(OWN_NAMESPACE), error))?;
    let init = match std::fs::metadata(INIT_NAMESPACE) {
        Ok(metadata) => Some(metadata),
        // The first process has capabilities that this one lacks (a node in a guarded virtual machine), so the kernel
        // does not show its namespace. Compare with the number of the first namespace and with our own namespace only.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => None,
        Err(error) => return Err(inspect(Path::new(INIT_NAMESPACE), error)),
    };
    let is_host = found.ino() == INIT_INODE || iter::once(own).chain(init).any(|host| is_same_file(&found, &host));
    if is_host { Err(NetnsError::IsHost { name: name.clone() }) } else { Ok(path) }
}

fn is_same_file(one: &Metadata, other: &Metadata) -> bool {
    (one.dev(), one.ino()) == (other.dev(), other.ino())
}
