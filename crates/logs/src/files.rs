//! The files of one log, and which of the files at their names belong to it. All calls use a descriptor of the
//! directory, follow no symlink, and open only regular files that bear the log's mark or pass the checks for unmarked
//! ones.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, RenameFlags, ResolveFlags, Stat, fstat, linkat, mkdirat, openat, openat2,
    renameat_with, statat, unlinkat,
};
use rustix::io::Errno;

use crate::error::LogError;
use crate::mark::{DIRECTORY, Marks};

/// Logs may hold secrets: only the owner and the group of the logs may read them.
const FILE_MODE: Mode = Mode::from_raw_mode(0o640);
/// As [`FILE_MODE`].
const DIR_MODE: Mode = Mode::from_raw_mode(0o750);

/// The mode of the directory of all logs: operators may list it.
const ROOT_MODE: u32 = 0o755;

/// Names the files of one log and tells which of the files at these names belong to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogFiles {
    /// The directory of all logs. Its configured path may contain symlinks.
    root: PathBuf,
    /// The directory of this log, below `root`.
    dir: PathBuf,
    name: OsString,
    owner: Option<String>,
    marks: Marks,
    takes_unmarked: bool,
}

/// The result of a look at a name.
#[derive(Debug)]
pub(crate) enum Found {
    Absent,
    /// A file of this log.
    Ours(File),
    /// A file of another log of contd, and its owner.
    OfOwner(String, File),
    /// A file that is not of contd; the text says why.
    Foreign(&'static str),
}

/// How a file is opened.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Access {
    Read,
    /// Opens for reading and for appending.
    Append,
    /// Opens for writing at any offset.
    Write,
}

impl Access {
    fn flags(self) -> OFlags {
        match self {
            Self::Read => OFlags::RDONLY,
            Self::Append => OFlags::RDWR | OFlags::APPEND,
            Self::Write => OFlags::WRONLY,
        }
    }
}

impl LogFiles {
    /// Names the log `<root>/<dir>/<name>` of an owner. Only files that bear the owner's mark belong to it. `notes` is
    /// a directory for the marks on file systems without extended attributes; it is made when needed.
    pub fn marked(path: &Path, owner: impl Into<String>, notes: impl Into<PathBuf>) -> Self {
        Self { owner: Some(owner.into()), marks: Marks::new(notes), takes_unmarked: false, ..Self::by_name(path) }
    }

    /// Names a log whose files are known by their names alone, as in versions without marks. A file with a mark does
    /// not belong to it.
    pub fn by_name(path: &Path) -> Self {
        let dir = path.parent().unwrap_or(Path::new("/"));
        let (root, dir) = match (dir.parent(), dir.file_name()) {
            (Some(root), Some(dir)) if root != Path::new("") => (root.to_owned(), PathBuf::from(dir)),
            _ => (dir.to_owned(), PathBuf::from(".")),
        };
        let name = path.file_name().unwrap_or_default().to_owned();
        Self { root, dir, name, owner: None, marks: Marks::default(), takes_unmarked: true }
    }

    /// Names a directory below that of all logs, without a log in it. Each file there belongs to an owner of its own.
    pub(crate) fn in_all(root: &Path, dir: PathBuf, notes: &Path) -> Self {
        let (name, owner, marks) = (OsString::new(), Some(String::new()), Marks::new(notes));
        Self { root: root.to_owned(), dir, name, owner, marks, takes_unmarked: false }
    }

    /// Returns the owner of a log file, if it bears a mark. `notes` as in [`Self::marked`].
    ///
    /// # Errors
    /// [`LogError::Open`] or [`LogError::Foreign`].
    pub fn owner_of(path: &Path, notes: &Path) -> Result<Option<String>, LogError> {
        let files = Self::marked(path, "", notes);
        let Some(dir) = files.open_dir()? else { return Ok(None) };
        match files.find(&dir, &files.name, Access::Read)? {
            Found::OfOwner(owner, _) => Ok(Some(owner)),
            Found::Absent | Found::Ours(_) | Found::Foreign(_) => Ok(None),
        }
    }

    /// Accepts files without a mark as files of this log too.
    #[must_use]
    pub fn with_unmarked(self) -> Self {
        Self { takes_unmarked: true, ..self }
    }

    /// Returns the same names with another owner.
    pub(crate) fn of(&self, owner: &str) -> Self {
        Self { owner: Some(owner.to_owned()), takes_unmarked: false, ..self.clone() }
    }

    /// Returns the log with the same owner in another directory below the same root.
    pub(crate) fn in_dir(&self, dir: PathBuf, name: OsString) -> Self {
        Self { dir, name, ..self.clone() }
    }

    /// Returns the path of the log.
    pub fn path(&self) -> PathBuf {
        self.path_of(&self.name)
    }

    pub(crate) fn path_of(&self, name: &OsStr) -> PathBuf {
        self.dir_path().join(name)
    }

    pub(crate) fn dir_path(&self) -> PathBuf {
        if self.dir == Path::new(".") { self.root.clone() } else { self.root.join(&self.dir) }
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(crate) fn owner(&self) -> Option<&str> {
        self.owner.as_deref()
    }

    pub(crate) fn marks(&self) -> &Marks {
        &self.marks
    }

    /// Returns the name of the file of this age; age 0 is the log itself.
    pub(crate) fn aged(&self, age: u32) -> OsString {
        let mut name = self.name.clone();
        if age > 0 {
            name.push(format!(".{age}"));
        }
        name
    }

    /// Returns the part of the name that follows the log's own name, if `found` is the log or one of its rotated files.
    pub(crate) fn suffix_of<'a>(&self, found: &'a OsStr) -> Option<&'a str> {
        let rest = found.to_str()?.strip_prefix(self.name.to_str()?)?;
        let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        (rest.is_empty() || rest.strip_prefix('.').is_some_and(is_number)).then_some(rest)
    }

    /// Opens the parent of the log's directory, and returns the directory's name in it.
    fn open_above(&self) -> io::Result<(OwnedFd, &OsStr)> {
        let above = self.dir.parent().filter(|above| *above != Path::new("")).unwrap_or(Path::new("."));
        Ok((open_below(self.open_root()?, above)?, self.dir.file_name().unwrap_or(OsStr::new("."))))
    }

    pub(crate) fn open_root(&self) -> io::Result<OwnedFd> {
        Ok(openat(CWD, &self.root, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
    }

    /// Opens the directory; `None` when it does not exist.
    pub(crate) fn open_dir(&self) -> Result<Option<OwnedFd>, LogError> {
        let failed = |source: io::Error| LogError::Open { path: self.dir_path(), source };
        let root = match self.open_root() {
            Ok(root) => root,
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                return Ok(None);
            }
            Err(error) => return Err(failed(error)),
        };
        match open_below(&root, &self.dir) {
            Ok(dir) => Ok(Some(dir)),
            Err(Errno::NOENT) => Ok(None),
            Err(Errno::LOOP | Errno::NOTDIR | Errno::XDEV) => {
                Err(LogError::Foreign { path: self.dir_path(), what: "it is no directory, or a link to one" })
            }
            Err(errno) => Err(failed(errno.into())),
        }
    }

    /// Opens the directory, or makes it and marks it as ours. Also makes the directory of all logs, which gets no mark
    /// and is never removed.
    pub(crate) fn make_dir(&self) -> Result<OwnedFd, LogError> {
        if let Some(dir) = self.open_dir()? {
            return Ok(dir);
        }
        let failed = |source: io::Error| LogError::Open { path: self.dir_path(), source };
        std::fs::DirBuilder::new().recursive(true).mode(ROOT_MODE).create(&self.root).map_err(failed)?;
        let (above, name) = self.open_above().map_err(failed)?;
        match mkdirat(&above, name, DIR_MODE) {
            Ok(()) => {}
            // Another process made it first, so it is not ours.
            Err(Errno::EXIST) => return self.open_dir()?.ok_or_else(|| failed(Errno::NOENT.into())),
            Err(errno) => return Err(failed(errno.into())),
        }
        let dir = self.open_dir()?.ok_or_else(|| failed(Errno::NOENT.into()))?;
        if let Err(source) = self.marks.set(&dir, DIRECTORY) {
            let _empty_still = unlinkat(&above, name, AtFlags::REMOVEDIR);
            return Err(failed(source));
        }
        Ok(dir)
    }

    /// Removes the directory if it bears our mark and is empty.
    pub(crate) fn remove_dir(&self) -> Result<(), LogError> {
        let Some(dir) = self.open_dir()? else { return Ok(()) };
        let failed = |source: io::Error| LogError::Remove { path: self.dir_path(), source };
        if self.marks.get(&dir).map_err(failed)?.as_deref() != Some(DIRECTORY) {
            return Ok(());
        }
        let (above, name) = self.open_above().map_err(failed)?;
        match unlinkat(&above, name, AtFlags::REMOVEDIR) {
            Ok(()) => self.marks.forget(&dir).map_err(failed),
            Err(Errno::NOTEMPTY | Errno::EXIST | Errno::NOENT | Errno::BUSY) => Ok(()),
            Err(errno) => Err(failed(errno.into())),
        }
    }

    /// Looks at a name, and opens the file if it belongs to this log.
    pub(crate) fn find(&self, dir: &OwnedFd, name: &OsStr, access: Access) -> Result<Found, LogError> {
        self.look(dir, name, access).map_err(|source| LogError::Open { path: self.path_of(name), source })
    }

    fn look(&self, dir: &OwnedFd, name: &OsStr, access: Access) -> io::Result<Found> {
        // Opening a device or a FIFO may have an effect, so look at its type first.
        let there = match statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(there) => there,
            Err(Errno::NOENT) => return Ok(Found::Absent),
            Err(errno) => return Err(errno.into()),
        };
        if let Some(what) = not_regular(&there) {
            return Ok(Found::Foreign(what));
        }
        let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let file = match openat(dir, name, flags | access.flags(), Mode::empty()) {
            Ok(file) => file,
            Err(Errno::NOENT) => return Ok(Found::Absent),
            Err(Errno::LOOP | Errno::NXIO | Errno::ISDIR) => return Ok(Found::Foreign("it was replaced meanwhile")),
            Err(errno) => return Err(errno.into()),
        };
        let there = fstat(&file)?;
        if let Some(what) = not_regular(&there) {
            return Ok(Found::Foreign(what));
        }
        Ok(match (self.marks.get(&file)?, &self.owner) {
            (Some(mark), Some(owner)) if mark == *owner => Found::Ours(file.into()),
            (Some(mark), _) => Found::OfOwner(mark, file.into()),
            // An unmarked file with a second name may belong to anybody.
            (None, _) if there.st_nlink > 1 => Found::Foreign("it is a hard link"),
            (None, _) if self.takes_unmarked => Found::Ours(file.into()),
            (None, _) => Found::Foreign("contd has not made it"),
        })
    }

    /// Does the same as [`Self::find`], but fails when a file of another owner has the name.
    pub(crate) fn find_own(&self, dir: &OwnedFd, name: &OsStr, access: Access) -> Result<Option<File>, LogError> {
        match self.find(dir, name, access)? {
            Found::Absent => Ok(None),
            Found::Ours(file) => Ok(Some(file)),
            Found::OfOwner(..) => Err(self.foreign(name, "it is the log of another container")),
            Found::Foreign(what) => Err(self.foreign(name, what)),
        }
    }

    pub(crate) fn foreign(&self, name: &OsStr, what: &'static str) -> LogError {
        LogError::Foreign { path: self.path_of(name), what }
    }

    /// Makes a file without a name that bears the mark (`O_TMPFILE`); `None` where the file system does not support it.
    pub(crate) fn make_nameless(&self, dir: &OwnedFd) -> io::Result<Option<File>> {
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::APPEND | OFlags::CLOEXEC;
        let file = match openat(dir, ".", flags, FILE_MODE) {
            Ok(file) => file,
            Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL | Errno::NOENT | Errno::NOSYS) => return Ok(None),
            Err(errno) => return Err(errno.into()),
        };
        if let Some(owner) = &self.owner {
            self.marks.set(&file, owner)?;
        }
        Ok(Some(file.into()))
    }

    /// Links a file of [`Self::make_nameless`] to a name, or makes one. The name must be free.
    pub(crate) fn place(&self, dir: &OwnedFd, name: &OsStr, made: Option<File>) -> io::Result<File> {
        if let Some(file) = made {
            let handle = format!("/proc/self/fd/{}", file.as_raw_fd());
            match linkat(CWD, &handle, dir, name, AtFlags::SYMLINK_FOLLOW) {
                Ok(()) => return Ok(file),
                // Without /proc there is no path to link from.
                Err(Errno::NOENT) => {}
                Err(errno) => {
                    let _gone_with_its_file = self.marks.forget(&file);
                    return Err(errno.into());
                }
            }
        }
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::APPEND | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = openat(dir, name, flags, FILE_MODE)?;
        if let Some(owner) = &self.owner
            && let Err(error) = self.marks.set(&file, owner)
        {
            // A file without a mark would never be recognised as ours.
            unlinkat(dir, name, AtFlags::empty())?;
            return Err(error);
        }
        Ok(file.into())
    }

    /// Opens the log for appending, or makes it.
    pub(crate) fn open_log(&self, dir: &OwnedFd) -> Result<File, LogError> {
        if let Some(file) = self.find_own(dir, &self.name, Access::Append)? {
            return Ok(file);
        }
        let made = self.make_nameless(dir).and_then(|made| self.place(dir, &self.name, made));
        match made {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                Err(self.foreign(&self.name, "it appeared just now"))
            }
            made => made.map_err(|source| LogError::Open { path: self.path(), source }),
        }
    }

    /// Removes one name of a file of this log.
    pub(crate) fn unlink(&self, dir: &OwnedFd, name: &OsStr, file: &File) -> io::Result<()> {
        match unlinkat(dir, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => self.marks.forget(file),
            Err(errno) => Err(errno.into()),
        }
    }
}

impl From<PathBuf> for LogFiles {
    fn from(path: PathBuf) -> Self {
        Self::by_name(&path)
    }
}

impl From<&Path> for LogFiles {
    fn from(path: &Path) -> Self {
        Self::by_name(path)
    }
}

impl From<&PathBuf> for LogFiles {
    fn from(path: &PathBuf) -> Self {
        Self::by_name(path)
    }
}

/// Returns the kind of a file that is not regular.
fn not_regular(there: &Stat) -> Option<&'static str> {
    match FileType::from_raw_mode(there.st_mode) {
        FileType::RegularFile => None,
        FileType::Symlink => Some("it is a symbolic link"),
        FileType::Directory => Some("it is a directory"),
        FileType::Fifo => Some("it is a FIFO"),
        _ => Some("it is no regular file"),
    }
}

/// Opens a directory below another one; no part of the path may be a symlink.
pub(crate) fn open_below(root: impl AsFd, dir: &Path) -> Result<OwnedFd, Errno> {
    let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
    openat2(root, dir, flags, Mode::empty(), ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS)
}

/// Renames a file to a name that must be free.
pub(crate) fn rename_to_free(from: (&OwnedFd, &OsStr), to: (&OwnedFd, &OsStr)) -> io::Result<()> {
    match renameat_with(from.0, from.1, to.0, to.1, RenameFlags::NOREPLACE) {
        // The file system does not support the flag: check the name before the rename.
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => match statat(to.0, to.1, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => Ok(rustix::fs::renameat(from.0, from.1, to.0, to.1)?),
            Ok(_) => Err(Errno::EXIST.into()),
            Err(errno) => Err(errno.into()),
        },
        other => Ok(other?),
    }
}
