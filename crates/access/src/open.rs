//! Opens files below an allowed directory.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::thread;

use contd_types::{Caller, ErrorKind, Explain, Shortage};
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, open as open_path, openat2};
use nix::sys::stat::{Mode, fstat};

use crate::below::Below;
use crate::sys;

/// An attempt to open a file below an allowed directory failed.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The directory that the rule names could not be opened.
    #[error("open the directory {} that a rule allows", base.display())]
    Base {
        /// The directory.
        base: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The path that the caller names could not be opened.
    #[error("open {path}, which must not lead out of {}", path.base.display())]
    Below {
        /// The place.
        path: Below,
        /// Why.
        source: io::Error,
    },
    /// The file is not a regular file.
    #[error("open {path}: it is not a regular file")]
    NotAFile {
        /// The place.
        path: Below,
    },
    /// No thread with the caller's rights could be made.
    #[error("open {path} with the rights of uid {uid}: take these rights")]
    Rights {
        /// The place.
        path: Below,
        /// The caller.
        uid: u32,
        /// Why.
        source: io::Error,
    },
}

impl OpenError {
    fn io(&self) -> Option<&io::Error> {
        match self {
            Self::Base { source, .. } | Self::Below { source, .. } | Self::Rights { source, .. } => Some(source),
            Self::NotAFile { .. } => None,
        }
    }

    /// Tells whether a symlink, or a change during the lookup, is the reason.
    fn is_link(&self) -> bool {
        let number = self.io().and_then(io::Error::raw_os_error);
        matches!(number, Some(libc::ELOOP | libc::EXDEV | libc::EAGAIN))
    }
}

impl Explain for OpenError {
    fn kind(&self) -> ErrorKind {
        if Shortage::behind(self).is_some() {
            return ErrorKind::OutOfResources;
        }
        match (self, self.io().map(io::Error::kind)) {
            (Self::NotAFile { .. }, _) => ErrorKind::InvalidArgument,
            (Self::Rights { .. }, _) => ErrorKind::Internal,
            _ if self.is_link() => ErrorKind::PermissionDenied,
            (_, Some(io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)) => ErrorKind::NotFound,
            (_, Some(io::ErrorKind::PermissionDenied)) => ErrorKind::PermissionDenied,
            _ => ErrorKind::Internal,
        }
    }

    fn hint(&self) -> Option<String> {
        if let Some(shortage) = Shortage::behind(self) {
            return Some(shortage.hint().to_owned());
        }
        Some(match self {
            Self::Base { base, .. } if self.is_link() => {
                format!("ask the operator to write the rule without symlinks: realpath {}", base.display())
            }
            Self::Base { base, .. } => {
                format!("ask the operator to make it, or to change the rule: {}", base.display())
            }
            Self::Below { path, .. } if self.is_link() => {
                format!("name it without a symlink that leads out of {}", path.base.display())
            }
            Self::Below { path, source } if source.kind() == io::ErrorKind::PermissionDenied => {
                format!("it is opened with your own rights: ls -ld {path}")
            }
            Self::Below { path, .. } => format!("check that it is there: ls -ld {path}"),
            Self::NotAFile { .. } => "name a .fl file".to_owned(),
            Self::Rights { .. } => "contd must run as root to take a caller's rights".to_owned(),
        })
    }
}

/// Opens a path with the daemon's own rights. Symlinks are followed as long as they stay below the allowed directory,
/// whose own path may have none.
///
/// # Errors
/// [`OpenError`].
pub fn open(place: &Below, flags: OFlag) -> Result<OwnedFd, OpenError> {
    let base = open_base(&place.base)?;
    if place.rest == Path::new(".") {
        // The rule's own path may be a file.
        return open_rule(&place.base, flags).map_err(|source| OpenError::Below { path: place.clone(), source });
    }
    let resolve = ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS;
    open_at(&base, &place.rest, flags, resolve).map_err(|source| OpenError::Below { path: place.clone(), source })
}

/// Opens a regular file for reading with the caller's own rights, supplementary groups included. Other kinds of files
/// (a device, a pipe) are refused before they are opened, because opening one may have an effect.
///
/// # Errors
/// [`OpenError`]; also when this process cannot take the caller's rights.
pub fn open_file_as(caller: &Caller, place: &Below) -> Result<File, OpenError> {
    let failed = |source| OpenError::Below { path: place.clone(), source };
    with_rights_of(caller, place, || {
        let found = open(place, OFlag::O_PATH)?;
        let kind = fstat(&found).map_err(|errno| failed(errno.into()))?.st_mode & libc::S_IFMT;
        if kind != libc::S_IFREG {
            return Err(OpenError::NotAFile { path: place.clone() });
        }
        // Reopen exactly the file that was found; here the kernel checks the caller's right to read it.
        File::open(format!("/proc/self/fd/{}", found.as_raw_fd())).map_err(failed)
    })
}

/// Opens a directory with the caller's own rights, which must allow listing it.
///
/// # Errors
/// As [`open_file_as`].
pub fn open_dir_as(caller: &Caller, place: &Below) -> Result<OwnedFd, OpenError> {
    with_rights_of(caller, place, || open(place, OFlag::O_RDONLY | OFlag::O_DIRECTORY))
}

/// Runs `work` on a new thread that has the caller's rights to files and ends afterwards.
fn with_rights_of<T: Send>(
    caller: &Caller,
    place: &Below,
    work: impl FnOnce() -> Result<T, OpenError> + Send,
) -> Result<T, OpenError> {
    let no_rights = |source| OpenError::Rights { path: place.clone(), uid: caller.uid, source };
    thread::scope(|scope| {
        let running = thread::Builder::new().name("contd-as-caller".to_owned()).spawn_scoped(scope, || {
            sys::take_file_rights(caller.uid, caller.gid, &caller.groups).map_err(no_rights)?;
            work()
        });
        let panicked = |_| no_rights(io::Error::other("the thread panicked"));
        running.map_err(no_rights)?.join().map_err(panicked)?
    })
}

/// Opens one entry of an open directory; a symlink is never followed.
///
/// # Errors
/// The kernel's error.
pub fn open_entry(dir: impl AsFd, name: &str, flags: OFlag) -> io::Result<OwnedFd> {
    open_at(dir, Path::new(name), flags, ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS)
}

fn open_base(base: &Path) -> Result<OwnedFd, OpenError> {
    open_rule(base, OFlag::O_PATH).map_err(|source| OpenError::Base { base: base.to_owned(), source })
}

/// Opens the path that a rule names. A symlink in it is refused: the caller could have put it there.
fn open_rule(path: &Path, flags: OFlag) -> io::Result<OwnedFd> {
    let root = open_path("/", OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
    open_at(root, path, flags, ResolveFlag::RESOLVE_NO_SYMLINKS | ResolveFlag::RESOLVE_NO_MAGICLINKS)
}

fn open_at(dir: impl AsFd, path: &Path, flags: OFlag, resolve: ResolveFlag) -> io::Result<OwnedFd> {
    let how = OpenHow::new().flags(flags | OFlag::O_CLOEXEC).resolve(resolve);
    Ok(openat2(dir, path, how)?)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Read as _;
    use std::os::unix::fs::{PermissionsExt, chown, symlink};

    use super::*;

    fn below(base: &Path, rest: &str) -> Below {
        Below::split(base, &base.join(rest)).unwrap()
    }

    fn text(file: impl Into<File>) -> String {
        let mut text = String::new();
        file.into().read_to_string(&mut text).unwrap();
        text
    }

    #[test]
    fn nothing_outside_of_the_allowed_directory_can_be_opened() {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().join("base");
        fs::create_dir_all(base.join("sub")).unwrap();
        fs::write(dir.path().join("secret"), "s").unwrap();
        fs::write(base.join("sub/file"), "inside").unwrap();
        symlink("../secret", base.join("up")).unwrap();
        symlink("/etc", base.join("absolute")).unwrap();
        symlink("/proc/self/root", base.join("magic")).unwrap();
        symlink("sub", base.join("inner")).unwrap();
        symlink(&base, dir.path().join("linked")).unwrap();
        assert_eq!(text(open(&below(&base, "sub/file"), OFlag::O_RDONLY).unwrap()), "inside");
        assert_eq!(text(open(&below(&base, "inner/file"), OFlag::O_RDONLY).unwrap()), "inside");
        for outside in ["up", "absolute", "absolute/passwd", "magic/etc/passwd"] {
            let refused = open(&below(&base, outside), OFlag::O_PATH).unwrap_err();
            assert!(matches!(refused, OpenError::Below { .. }), "{outside}: {refused:?}");
            assert_eq!(refused.kind(), ErrorKind::PermissionDenied, "{outside}");
        }
        // A rule's directory that was replaced by a symlink is refused.
        let refused = open(&below(&dir.path().join("linked"), "sub"), OFlag::O_PATH).unwrap_err();
        assert!(matches!(refused, OpenError::Base { .. }), "{refused:?}");
        assert!(refused.hint().unwrap().contains("realpath"));
        let refused = open(&below(&dir.path().join("linked"), ""), OFlag::O_PATH).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::PermissionDenied);
        assert!(open_entry(File::open(&base).unwrap(), "inner", OFlag::O_PATH).is_err());
        assert!(open_entry(File::open(&base).unwrap(), "sub", OFlag::O_PATH).is_ok());
    }

    #[test]
    fn a_file_is_opened_with_the_rights_of_its_caller_and_groups_count() {
        if !nix::unistd::geteuid().is_root() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let make = |name: &str, mode, gid| {
            let path = dir.path().join(name);
            fs::write(&path, name).unwrap();
            chown(&path, Some(0), Some(gid)).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        };
        make("of-all", 0o644, 0);
        make("of-root", 0o600, 0);
        make("of-a-group", 0o640, 61_002);
        let caller = Caller { uid: 61_000, gid: 61_001, groups: vec![61_002] };
        let read = |caller: &Caller, name: &str| open_file_as(caller, &below(dir.path(), name)).map(text);
        assert_eq!(read(&caller, "of-all").unwrap(), "of-all");
        assert_eq!(read(&caller, "of-a-group").unwrap(), "of-a-group");
        let refused = read(&caller, "of-root").unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::PermissionDenied);
        assert!(refused.hint().unwrap().contains("your own rights"), "{refused:?}");
        assert!(read(&Caller { groups: vec![], ..caller.clone() }, "of-a-group").is_err());
        // The calling thread still has its own rights.
        assert_eq!(text(File::open(dir.path().join("of-root")).unwrap()), "of-root");
        assert!(open_dir_as(&caller, &below(dir.path(), "")).is_ok());
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o711)).unwrap();
        assert!(open_dir_as(&caller, &below(dir.path(), "")).is_err());
        let fifo = dir.path().join("fifo");
        nix::unistd::mkfifo(&fifo, Mode::from_bits_truncate(0o666)).unwrap();
        assert!(matches!(read(&caller, "fifo"), Err(OpenError::NotAFile { .. })));
    }
}
