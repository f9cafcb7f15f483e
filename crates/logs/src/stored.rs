//! All logs of a node as files on its disk: listed, found, removed one by one.

use std::ffi::{OsStr, OsString};
use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustix::fs::{AtFlags, FileType, FsWord, statat, statfs};

use crate::error::LogError;
use crate::files::{Access, Found, LogFiles};
use crate::mark::DIRECTORY;
use crate::prepare::names_in;
use crate::removed::REMOVED_DIR;

/// The end of every log's name.
pub(crate) const LOG: &str = ".log";
/// The disk space that the smallest file takes, with its inode.
const LEAST_BYTES: u64 = 4096;
/// The type of a file system in memory, `TMPFS_MAGIC` of `linux/magic.h`.
const TMPFS: FsWord = 0x0102_1994;

/// The kinds of files of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// A file of a container that was removed.
    Removed,
    /// A rotated file of a container that is there.
    Rotated,
    /// The file that is written.
    Written,
}

/// A file of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredFile {
    /// The container's namespace.
    pub namespace: String,
    /// The file's name in its directory.
    pub name: OsString,
    /// The id of the container.
    pub owner: String,
    /// Its kind.
    pub part: Part,
    /// When it was last written; of a removed container, when it was removed.
    pub since: SystemTime,
    /// The bytes that it takes; at least a page, because many small files fill a disk as well.
    pub bytes: u64,
    /// Its inode: a name may be another file's by the time it is removed.
    pub inode: u64,
}

/// The file system of the logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogDisk {
    /// Its size in bytes.
    pub bytes: u64,
    /// How many of them are taken, by whatever.
    pub taken_bytes: u64,
    /// Whether it is in memory.
    pub is_memory: bool,
}

/// All logs of a node.
#[derive(Debug, Clone)]
pub struct StoredLogs {
    root: PathBuf,
    notes: PathBuf,
}

impl StoredFile {
    /// Returns the container's name: `<name>.log`, `<name>.<id>.log` of a removed one, both perhaps with `.<number>` behind.
    pub fn container(&self) -> Option<&str> {
        let name = log_of(&self.name)?.strip_suffix(LOG)?;
        match self.part {
            Part::Removed => Some(name.rsplit_once('.')?.0),
            Part::Rotated | Part::Written => Some(name),
        }
    }

    fn is_rotated(&self) -> bool {
        !self.name.as_encoded_bytes().ends_with(LOG.as_bytes())
    }
}

impl StoredLogs {
    /// Makes the value from the directory of all logs and the notes of [`LogFiles::marked`].
    pub fn new(root: impl Into<PathBuf>, notes: impl Into<PathBuf>) -> Self {
        Self { root: root.into(), notes: notes.into() }
    }

    fn place(&self, namespace: &str, part: Part) -> LogFiles {
        let dir = match part {
            Part::Removed => Path::new(namespace).join(REMOVED_DIR),
            Part::Rotated | Part::Written => PathBuf::from(namespace),
        };
        LogFiles::in_all(&self.root, dir, &self.notes)
    }

    /// Lists the namespaces' directories in the directory of all logs. Opens none of them: one may be on a file system
    /// that hangs.
    ///
    /// # Errors
    /// [`LogError::Read`].
    pub fn namespaces(&self) -> Result<Vec<String>, LogError> {
        let listed = || -> io::Result<Vec<String>> {
            let root = self.place("", Part::Written).open_root()?;
            let mut found = Vec::new();
            for name in names_in(&root)? {
                let Some(text) = name.to_str().filter(|name| !name.starts_with('.')) else { continue };
                let there = statat(&root, &name, AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT);
                if there.is_ok_and(|there| FileType::from_raw_mode(there.st_mode) == FileType::Directory) {
                    found.push(text.to_owned());
                }
            }
            Ok(found)
        };
        listed().map_err(|source| LogError::Read { path: self.root.clone(), source })
    }

    /// Looks at the file system that holds the logs.
    ///
    /// # Errors
    /// [`LogError::Read`].
    pub fn disk(&self) -> Result<LogDisk, LogError> {
        let found = statfs(&self.root);
        let found = found.map_err(|errno| LogError::Read { path: self.root.clone(), source: errno.into() })?;
        let block = u64::try_from(found.f_frsize).unwrap_or_default();
        Ok(LogDisk {
            bytes: found.f_blocks.saturating_mul(block),
            taken_bytes: found.f_blocks.saturating_sub(found.f_bfree).saturating_mul(block),
            is_memory: found.f_type == TMPFS,
        })
    }

    /// Lists the files of the logs of one namespace, those of removed containers too.
    ///
    /// # Errors
    /// [`LogError::Open`] or [`LogError::Read`].
    pub fn list(&self, namespace: &str) -> Result<Vec<StoredFile>, LogError> {
        let mut found = self.list_removed(namespace)?;
        found.extend(self.list_in(namespace, Part::Written)?);
        Ok(found)
    }

    /// Lists the files of the logs of removed containers of one namespace.
    ///
    /// # Errors
    /// As [`Self::list`].
    pub fn list_removed(&self, namespace: &str) -> Result<Vec<StoredFile>, LogError> {
        self.list_in(namespace, Part::Removed)
    }

    fn list_in(&self, namespace: &str, part: Part) -> Result<Vec<StoredFile>, LogError> {
        let place = self.place(namespace, part);
        let Some(dir) = place.open_own_dir()? else { return Ok(Vec::new()) };
        let failed = |source| LogError::Read { path: place.dir_path(), source };
        // The directory of a namespace may be shared with others: there each file tells whose it is.
        if part == Part::Removed && place.marks().get(&dir).map_err(failed)?.as_deref() != Some(DIRECTORY) {
            return Ok(Vec::new());
        }
        let mut stored = Vec::new();
        for name in names_in(&dir).map_err(failed)? {
            if log_of(&name).is_none() {
                continue;
            }
            let Found::OfOwner(owner, file) = place.find(&dir, &name, Access::Read)? else { continue };
            let there = file.metadata().map_err(failed)?;
            let mut found = StoredFile {
                namespace: namespace.to_owned(),
                name,
                owner,
                part,
                since: since(&there, part),
                bytes: there.len().max(LEAST_BYTES),
                inode: there.ino(),
            };
            if part == Part::Written && found.is_rotated() {
                found.part = Part::Rotated;
            }
            stored.push(found);
        }
        Ok(stored)
    }

    /// Removes a file, unless its name is another file's by now. Removes the directories of removed logs if they are empty
    /// then.
    ///
    /// # Errors
    /// [`LogError::Open`] or [`LogError::Remove`]; it may be repeated.
    pub fn remove(&self, stored: &StoredFile) -> Result<(), LogError> {
        let place = self.place(&stored.namespace, stored.part).of(&stored.owner);
        let Some(dir) = place.open_dir()? else { return Ok(()) };
        if let Found::Ours(file) = place.find(&dir, &stored.name, Access::Read)? {
            let failed = |source| LogError::Remove { path: place.path_of(&stored.name), source };
            if file.metadata().map_err(failed)?.ino() == stored.inode {
                place.unlink(&dir, &stored.name, &file).map_err(failed)?;
            }
        }
        if stored.part != Part::Removed {
            return Ok(());
        }
        drop(dir);
        place.clear_up()?;
        self.place(&stored.namespace, Part::Written).clear_up()
    }

    /// Finds the log of a removed container by its name or the beginning of its id; of several, the one removed last.
    ///
    /// # Errors
    /// As [`Self::list`].
    pub fn find(&self, namespace: &str, container: &str) -> Result<Option<LogFiles>, LogError> {
        let stored: Vec<_> = self.list_removed(namespace)?.into_iter().filter(|file| !file.is_rotated()).collect();
        let by = |is_it: &dyn Fn(&StoredFile) -> bool| {
            stored.iter().filter(|file| is_it(file)).max_by_key(|file| file.since)
        };
        let found =
            by(&|file| file.container() == Some(container)).or_else(|| by(&|file| file.owner.starts_with(container)));
        Ok(found.map(|file| {
            let place = self.place(namespace, Part::Removed).of(&file.owner);
            place.in_dir(place.dir().to_owned(), file.name.clone())
        }))
    }
}

/// Returns the name of the log to which a file belongs: without the number of a rotated one.
fn log_of(file: &OsStr) -> Option<&str> {
    let name = file.to_str()?;
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let log = match name.rsplit_once('.') {
        Some((log, number)) if is_number(number) => log,
        _ => name,
    };
    log.ends_with(LOG).then_some(log)
}

/// Returns when a file was last written or, of a removed log, renamed: a rename changes the inode's ctime.
fn since(there: &Metadata, part: Part) -> SystemTime {
    let written = (there.mtime(), there.mtime_nsec());
    let changed = (there.ctime(), there.ctime_nsec());
    let (seconds, nanos) = if part == Part::Removed { written.max(changed) } else { written };
    let time = Duration::new(u64::try_from(seconds).unwrap_or_default(), u32::try_from(nanos).unwrap_or_default());
    SystemTime::UNIX_EPOCH + time
}
