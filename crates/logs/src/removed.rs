//! The logs of removed containers, kept for a while: `<ns>/.removed/<name>.<id>.log`, with their rotated files.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustix::fs::{AtFlags, FileType, statat};

use crate::error::LogError;
use crate::files::{Access, Found, LogFiles, rename_to_free};
use crate::mark::DIRECTORY;
use crate::prepare::names_in;

/// The directory of these logs in their namespace's. No name of a container or namespace begins with a dot.
pub const REMOVED_DIR: &str = ".removed";
/// How many digits of a container's id are in the name: as many as people are shown.
const ID_DIGITS: usize = 12;
/// The disk space that the smallest file takes, with its inode.
const LEAST_BYTES: u64 = 4096;
/// The end of every log's name.
const LOG: &str = ".log";

/// A file of a removed container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptFile {
    /// The container's namespace.
    pub namespace: String,
    /// The file's name in the directory.
    pub name: OsString,
    /// The id of the container.
    pub owner: String,
    /// When it was put there, or last changed.
    pub since: SystemTime,
    /// The bytes that it takes; at least a page, because many small files fill a disk as well.
    pub bytes: u64,
}

/// All logs of removed containers of a node.
#[derive(Debug, Clone)]
pub struct RemovedLogs {
    root: PathBuf,
    notes: PathBuf,
}

impl LogFiles {
    /// Moves the log and its rotated files to the logs of removed containers, and returns how many bytes they take. An
    /// empty log is removed.
    ///
    /// # Errors
    /// [`LogError`]; it may be repeated, or [`Self::remove`] may be called instead.
    pub fn keep(&self) -> Result<u64, LogError> {
        let Some(dir) = self.open_own_dir()? else { return Ok(0) };
        let files = self.own_files(&dir)?;
        let bytes = files.iter().map(|own| own.bytes).sum();
        let Some(owner) = self.owner().filter(|_| bytes > 0) else {
            self.remove()?;
            return Ok(0);
        };
        let name = self.aged(0);
        let stem = name.to_string_lossy();
        let stem = stem.strip_suffix(LOG).unwrap_or(&stem);
        let short = owner.get(..ID_DIGITS).unwrap_or(owner);
        let place = self.in_dir(self.dir().join(REMOVED_DIR), OsString::new());
        let to = place.make_dir()?;
        for own in files {
            self.mark(&own.name, &own.file)?;
            let kept = OsString::from(format!("{stem}.{short}{LOG}{}", own.suffix));
            match rename_to_free((&dir, &own.name), (&to, &kept)) {
                Ok(()) => {}
                // The file was removed meanwhile.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(source) => return Err(LogError::Remove { path: self.path_of(&own.name), source }),
            }
        }
        Ok(bytes)
    }
}

impl RemovedLogs {
    /// Makes the value from the directory of all logs and the notes of [`LogFiles::marked`].
    pub fn new(root: impl Into<PathBuf>, notes: impl Into<PathBuf>) -> Self {
        Self { root: root.into(), notes: notes.into() }
    }

    fn place(&self, namespace: &str) -> LogFiles {
        let of_anybody = LogFiles::marked(&self.root.join(namespace).join(REMOVED_DIR), "", &self.notes);
        of_anybody.in_dir(Path::new(namespace).join(REMOVED_DIR), OsString::new())
    }

    /// Lists the namespaces' directories in the directory of all logs. Opens none of them: one may be on a file system
    /// that hangs.
    ///
    /// # Errors
    /// [`LogError::Read`].
    pub fn namespaces(&self) -> Result<Vec<String>, LogError> {
        let listed = || -> io::Result<Vec<String>> {
            let root = self.place(REMOVED_DIR).open_root()?;
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

    /// Returns the size, in bytes, of the file system that holds the logs.
    ///
    /// # Errors
    /// [`LogError::Read`].
    pub fn disk_bytes(&self) -> Result<u64, LogError> {
        let found = rustix::fs::statvfs(&self.root);
        let found = found.map_err(|errno| LogError::Read { path: self.root.clone(), source: errno.into() })?;
        Ok(found.f_blocks.saturating_mul(found.f_frsize))
    }

    /// Lists the kept files of one namespace.
    ///
    /// # Errors
    /// [`LogError::Open`] or [`LogError::Read`].
    pub fn list(&self, namespace: &str) -> Result<Vec<KeptFile>, LogError> {
        let place = self.place(namespace);
        let Some(dir) = place.open_own_dir()? else { return Ok(Vec::new()) };
        let failed = |source| LogError::Read { path: place.dir_path(), source };
        if place.marks().get(&dir).map_err(failed)?.as_deref() != Some(DIRECTORY) {
            return Ok(Vec::new());
        }
        let mut kept = Vec::new();
        for name in names_in(&dir).map_err(failed)? {
            let Found::OfOwner(owner, file) = place.find(&dir, &name, Access::Read)? else { continue };
            let there = file.metadata().map_err(failed)?;
            // A rename changes the inode's ctime.
            let changed = (there.ctime(), there.ctime_nsec()).max((there.mtime(), there.mtime_nsec()));
            let since = Duration::new(to_u64(changed.0), u32::try_from(changed.1).unwrap_or_default());
            let since = SystemTime::UNIX_EPOCH + since;
            kept.push(KeptFile {
                namespace: namespace.to_owned(),
                name,
                owner,
                since,
                bytes: there.len().max(LEAST_BYTES),
            });
        }
        Ok(kept)
    }

    /// Removes a file, and its directories if they are empty then.
    ///
    /// # Errors
    /// [`LogError::Open`] or [`LogError::Remove`]; it may be repeated.
    pub fn remove(&self, kept: &KeptFile) -> Result<(), LogError> {
        let place = self.place(&kept.namespace).of(&kept.owner);
        let Some(dir) = place.open_dir()? else { return Ok(()) };
        if let Found::Ours(file) = place.find(&dir, &kept.name, Access::Read)? {
            let removed = place.unlink(&dir, &kept.name, &file);
            removed.map_err(|source| LogError::Remove { path: place.path_of(&kept.name), source })?;
        }
        drop(dir);
        place.clear_up()?;
        place.in_dir(PathBuf::from(&kept.namespace), OsString::new()).clear_up()
    }

    /// Finds the log of a removed container by its name or the beginning of its id; of several, the one removed last.
    ///
    /// # Errors
    /// As [`Self::list`].
    pub fn find(&self, namespace: &str, container: &str) -> Result<Option<LogFiles>, LogError> {
        let is_log = |kept: &&KeptFile| kept.name.as_os_str().to_str().is_some_and(|name| name.ends_with(LOG));
        let is_named = |kept: &KeptFile| name_of(&kept.name).is_some_and(|name| name == container);
        let kept = self.list(namespace)?;
        let by = |is_it: &dyn Fn(&KeptFile) -> bool| {
            kept.iter().filter(is_log).filter(|kept| is_it(kept)).max_by_key(|kept| kept.since)
        };
        let found = by(&is_named).or_else(|| by(&|kept| kept.owner.starts_with(container)));
        Ok(found.map(|kept| {
            let place = self.place(namespace).of(&kept.owner);
            place.in_dir(place.dir().to_owned(), kept.name.clone())
        }))
    }
}

fn to_u64(seconds: i64) -> u64 {
    u64::try_from(seconds).unwrap_or_default()
}

/// Returns the container's name from `<name>.<id>.log`.
fn name_of(file: &OsStr) -> Option<&str> {
    Some(file.to_str()?.strip_suffix(LOG)?.rsplit_once('.')?.0)
}
