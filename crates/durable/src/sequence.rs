//! Sequences of file operations that survive a crash: replace, remove, make directories. Each may be repeated after any
//! failure.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::fs::Fs;

/// How many temp names are tried before giving up; more than one is taken only by leftovers of an earlier process
/// that had the same pid.
const MAX_TEMP_NAMES: u32 = 64;

/// The text between a file's name and the number in the name of its temp file.
const TEMP_MARK: &[u8] = b".tmp-";

/// A step that failed on the way to the disk. The path is the one the caller gave, or one that it leads to.
#[derive(Debug, thiserror::Error)]
pub enum DurableError {
    /// The path has no file name or no parent.
    #[error("find the directory of {}", path.display())]
    NoParent {
        /// The path as given.
        path: PathBuf,
    },
    /// The path below the base has `..`, `/` or `.` in it.
    #[error("make directory {} below {}: not a plain relative path", path.display(), base.display())]
    NotBelow {
        /// The path as given.
        path: PathBuf,
        /// The directory it should be below of.
        base: PathBuf,
    },
    /// The new content could not be written; the old one is untouched.
    #[error("write new content for {}", path.display())]
    Write {
        /// The file to be replaced.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The new content could not be brought to the disk; the old one is untouched.
    #[error("sync new content for {}", path.display())]
    Sync {
        /// The file to be replaced.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The new content could not take the name; the old one is untouched.
    #[error("replace {} by its new content", path.display())]
    Rename {
        /// The file to be replaced.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The change is made, but may not survive a power loss.
    #[error("sync directory {}", path.display())]
    SyncDir {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A directory could not be made.
    #[error("make directory {}", path.display())]
    CreateDir {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file could not be removed.
    #[error("remove {}", path.display())]
    Remove {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A directory could not be read.
    #[error("list directory {}", path.display())]
    List {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl DurableError {
    /// Returns the system's error, if the step failed by one.
    pub fn io(&self) -> Option<&io::Error> {
        match self {
            Self::NoParent { .. } | Self::NotBelow { .. } => None,
            Self::Write { source, .. }
            | Self::Sync { source, .. }
            | Self::Rename { source, .. }
            | Self::SyncDir { source, .. }
            | Self::CreateDir { source, .. }
            | Self::Remove { source, .. }
            | Self::List { source, .. } => Some(source),
        }
    }

    /// Returns the next step for a person.
    pub fn hint(&self) -> &'static str {
        match self.io().map(io::Error::kind) {
            Some(io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) => "free space on this disk and repeat",
            Some(io::ErrorKind::ReadOnlyFilesystem) => "the file system is read-only: see the kernel log, then remount",
            Some(io::ErrorKind::PermissionDenied) => "run as the owner of this directory",
            Some(_) => "look at the disk and the kernel log; repeating is safe",
            None => "give a path with a directory and a name in it",
        }
    }
}

/// Replaces (or makes) a file. After a crash at any point it has its old content or all of the new one.
///
/// The directory must exist. `mode` is the mode of the new file. After [`DurableError::SyncDir`] the new content is in
/// place, and only a power loss can bring the old one back; after any other error the old content is still there.
///
/// # Errors
/// A [`DurableError`] naming the step; repeating is safe.
pub fn replace(fs: &dyn Fs, path: &Path, bytes: &[u8], mode: u32) -> Result<(), DurableError> {
    let dir = parent_of(path)?;
    let temp = write_temp(fs, path, bytes, mode)?;
    let renamed = fs
        .sync_file(&temp)
        .map_err(|source| DurableError::Sync { path: path.to_owned(), source })
        .and_then(|()| fs.rename(&temp, path).map_err(|source| DurableError::Rename { path: path.to_owned(), source }));
    if let Err(error) = renamed {
        // If the temp file cannot be removed now, `sweep_temps` finds it later by its name.
        let _swept_later = fs.remove_file(&temp);
        return Err(error);
    }
    fs.sync_dir(dir).map_err(|source| DurableError::SyncDir { path: dir.to_owned(), source })
}

/// Replaces a file so that a reader sees its old or its new content, but does not sync it. For tmpfs.
///
/// # Errors
/// A [`DurableError`] naming the step; the old content stands and repeating is safe.
pub fn replace_volatile(fs: &dyn Fs, path: &Path, bytes: &[u8], mode: u32) -> Result<(), DurableError> {
    parent_of(path)?;
    let temp = write_temp(fs, path, bytes, mode)?;
    fs.rename(&temp, path).map_err(|source| {
        let _swept_later = fs.remove_file(&temp);
        DurableError::Rename { path: path.to_owned(), source }
    })
}

/// Removes a file so that it stays removed after a power loss. An absent file or directory is no error.
///
/// # Errors
/// [`DurableError::Remove`] or [`DurableError::SyncDir`]; repeating is safe.
pub fn remove(fs: &dyn Fs, path: &Path) -> Result<(), DurableError> {
    let dir = parent_of(path)?;
    remove_volatile(fs, path)?;
    // Sync even when the file was absent: an earlier call may have failed between the two steps.
    ignore_absent(fs.sync_dir(dir)).map_err(|source| DurableError::SyncDir { path: dir.to_owned(), source })
}

/// Removes a file without syncing: a power loss may bring it back. One that is absent is no error.
///
/// # Errors
/// [`DurableError::Remove`]; repeating is safe.
pub fn remove_volatile(fs: &dyn Fs, path: &Path) -> Result<(), DurableError> {
    ignore_absent(fs.remove_file(path)).map_err(|source| DurableError::Remove { path: path.to_owned(), source })
}

/// Makes `base/relative` so that it is there after a power loss. `base` must exist; each part of `relative` is a name.
///
/// # Errors
/// [`DurableError::NotBelow`], [`DurableError::CreateDir`] or [`DurableError::SyncDir`]; repeating is safe.
pub fn create_dirs(fs: &dyn Fs, base: &Path, relative: &Path, mode: u32) -> Result<(), DurableError> {
    create_dirs_volatile(fs, base, relative, mode)?;
    sync_dirs(fs, base, relative)
}

/// Makes `base/relative` without syncing. `base` must exist; each part of `relative` is a name.
///
/// # Errors
/// [`DurableError::NotBelow`] or [`DurableError::CreateDir`]; repeating is safe.
pub fn create_dirs_volatile(fs: &dyn Fs, base: &Path, relative: &Path, mode: u32) -> Result<(), DurableError> {
    check_below(base, relative)?;
    let mut dir = base.to_owned();
    for part in relative.components() {
        dir.push(part);
        fs.create_dir_all(&dir, mode).map_err(|source| DurableError::CreateDir { path: dir.clone(), source })?;
    }
    Ok(())
}

/// Syncs all directories of `base/relative`, also those that existed: an earlier call may have failed between making
/// and syncing one. The content of the last directory is not synced.
///
/// # Errors
/// [`DurableError::NotBelow`] or [`DurableError::SyncDir`]; repeating is safe.
pub fn sync_dirs(fs: &dyn Fs, base: &Path, relative: &Path) -> Result<(), DurableError> {
    check_below(base, relative)?;
    let mut parent = base.to_owned();
    for part in relative.components() {
        fs.sync_dir(&parent).map_err(|source| DurableError::SyncDir { path: parent.clone(), source })?;
        parent.push(part);
    }
    Ok(())
}

fn check_below(base: &Path, relative: &Path) -> Result<(), DurableError> {
    if relative.components().all(|part| matches!(part, Component::Normal(_))) {
        Ok(())
    } else {
        Err(DurableError::NotBelow { path: relative.to_owned(), base: base.to_owned() })
    }
}

/// Removes the temp files that a crash left in a directory and returns how many there were; an absent directory has none.
///
/// Only legal while no file in that directory is being replaced.
///
/// # Errors
/// [`DurableError::List`] or [`DurableError::Remove`]; repeating is safe.
pub fn sweep_temps(fs: &dyn Fs, dir: &Path) -> Result<usize, DurableError> {
    let names = match fs.list(dir) {
        Ok(names) => names,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        Err(source) => return Err(DurableError::List { path: dir.to_owned(), source }),
    };
    let mut removed = 0;
    for name in names.iter().filter(|name| is_temp(name)) {
        let path = dir.join(name);
        ignore_absent(fs.remove_file(&path)).map_err(|source| DurableError::Remove { path, source })?;
        removed += 1;
    }
    Ok(removed)
}

fn parent_of(path: &Path) -> Result<&Path, DurableError> {
    match (path.parent(), path.file_name()) {
        (Some(dir), Some(_)) if dir.as_os_str().is_empty() => Ok(Path::new(".")),
        (Some(dir), Some(_)) => Ok(dir),
        _ => Err(DurableError::NoParent { path: path.to_owned() }),
    }
}

fn ignore_absent(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Writes the content to a temp file beside its final place and returns the temp file's path. On an error it leaves
/// nothing, or only a temp file.
fn write_temp(fs: &dyn Fs, path: &Path, bytes: &[u8], mode: u32) -> Result<PathBuf, DurableError> {
    let failed = |source| DurableError::Write { path: path.to_owned(), source };
    let mut last = io::Error::from(io::ErrorKind::AlreadyExists);
    for _ in 0..MAX_TEMP_NAMES {
        let temp = temp_path(path)?;
        match fs.write_new(&temp, bytes, mode) {
            Ok(()) => return Ok(temp),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => last = error,
            Err(error) => {
                let _swept_later = fs.remove_file(&temp);
                return Err(failed(error));
            }
        }
    }
    Err(failed(last))
}

/// Names a temp file `.<name>.tmp-<pid>-<number>`: unique among the processes and threads that are alive.
fn temp_path(path: &Path) -> Result<PathBuf, DurableError> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let name = path.file_name().ok_or_else(|| DurableError::NoParent { path: path.to_owned() })?;
    let mut temp = OsString::from(".");
    temp.push(name);
    temp.push(OsStr::from_bytes(TEMP_MARK));
    temp.push(format!("{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed)));
    Ok(path.with_file_name(temp))
}

fn is_temp(name: &OsStr) -> bool {
    let bytes = name.as_bytes();
    let Some(mark) = bytes.windows(TEMP_MARK.len()).rposition(|window| window == TEMP_MARK) else { return false };
    let number = bytes.get(mark + TEMP_MARK.len()..).unwrap_or_default();
    bytes.first() == Some(&b'.')
        && mark > 1
        && !number.is_empty()
        && number.iter().all(|byte| byte.is_ascii_digit() || *byte == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::faulty::{Fault, FaultyFs};
    use crate::fs::RealFs;
    use std::os::unix::fs::PermissionsExt;

    const EIO: i32 = 5;
    const OLD: &[u8] = b"the old content, long enough to be torn";
    const NEW: &[u8] = b"the new content, of another length than the old one";

    fn kinds() -> [Fault; 3] {
        [Fault::Before, Fault::Torn, Fault::After]
    }

    /// Runs `work` on a fresh directory with a fault at operation 1, 2, 3… until it succeeds, and checks after each.
    fn for_every_fault(prepare: impl Fn(&Path), work: impl Fn(&FaultyFs, &Path) -> bool, check: impl Fn(&Path, bool)) {
        for fault in kinds() {
            for lasting in [false, true] {
                let mut at = 1;
                loop {
                    let dir = tempfile::tempdir().expect("scratch");
                    prepare(dir.path());
                    let fs = FaultyFs::new();
                    if lasting {
                        fs.fail_from(at, EIO, fault);
                    } else {
                        fs.fail_at(at, EIO, fault);
                    }
                    let succeeded = work(&fs, dir.path());
                    let hit = fs.count() >= at;
                    check(dir.path(), succeeded);
                    fs.heal();
                    assert!(work(&fs, dir.path()), "the retry after {fault:?} at operation {at} failed");
                    check(dir.path(), true);
                    if !hit {
                        assert!(succeeded, "failed without a fault");
                        break;
                    }
                    at += 1;
                }
                assert!(at > 1, "no operation was made to fail");
            }
        }
    }

    #[test]
    fn replace_leaves_old_or_new_content_whole_whichever_operation_fails() {
        for_every_fault(
            |dir| std::fs::write(dir.join("f"), OLD).expect("prepare"),
            |fs, dir| replace(fs, &dir.join("f"), NEW, 0o600).is_ok(),
            |dir, succeeded| {
                let now = std::fs::read(dir.join("f")).expect("the file is there");
                assert!(now == NEW || (!succeeded && now == OLD), "torn: {}", String::from_utf8_lossy(&now));
            },
        );
    }

    #[test]
    fn replace_volatile_leaves_old_or_new_content_whole_whichever_operation_fails() {
        for_every_fault(
            |dir| std::fs::write(dir.join("f"), OLD).expect("prepare"),
            |fs, dir| replace_volatile(fs, &dir.join("f"), NEW, 0o600).is_ok(),
            |dir, succeeded| {
                let now = std::fs::read(dir.join("f")).expect("the file is there");
                assert!(now == NEW || (!succeeded && now == OLD), "torn: {}", String::from_utf8_lossy(&now));
            },
        );
    }

    #[test]
    fn a_first_write_leaves_nothing_or_all_whichever_operation_fails() {
        for_every_fault(
            |_| {},
            |fs, dir| replace(fs, &dir.join("f"), NEW, 0o600).is_ok(),
            |dir, succeeded| match std::fs::read(dir.join("f")) {
                Ok(now) => assert_eq!(now, NEW),
                Err(error) => assert!(!succeeded && error.kind() == io::ErrorKind::NotFound, "{error}"),
            },
        );
    }

    #[test]
    fn remove_succeeds_in_the_end_whichever_operation_fails() {
        for_every_fault(
            |dir| std::fs::write(dir.join("f"), OLD).expect("prepare"),
            |fs, dir| remove(fs, &dir.join("f")).is_ok(),
            |dir, succeeded| match std::fs::read(dir.join("f")) {
                Ok(now) => assert!(!succeeded && now == OLD),
                Err(error) => assert_eq!(error.kind(), io::ErrorKind::NotFound),
            },
        );
    }

    #[test]
    fn create_dirs_succeeds_in_the_end_whichever_operation_fails() {
        for_every_fault(
            |_| {},
            |fs, dir| create_dirs(fs, dir, Path::new("a/b"), 0o700).is_ok(),
            |dir, succeeded| assert!(!succeeded || dir.join("a/b").is_dir()),
        );
    }

    #[test]
    fn replace_brings_content_and_name_to_the_disk_in_this_order() {
        use crate::faulty::Operation as O;
        let dir = tempfile::tempdir().expect("scratch");
        let fs = FaultyFs::new();
        replace(&fs, &dir.path().join("f"), NEW, 0o640).expect("replace");
        let order: Vec<_> = fs.calls().iter().map(|call| call.operation).collect();
        assert_eq!(order, [O::WriteNew, O::SyncFile, O::Rename, O::SyncDir]);
        let mode = std::fs::metadata(dir.path().join("f")).expect("stat").permissions().mode();
        assert_eq!(mode & 0o777, 0o640);
    }

    #[test]
    fn a_full_disk_leaves_no_temp_file_and_says_what_to_do() {
        let dir = tempfile::tempdir().expect("scratch");
        let fs = FaultyFs::new();
        fs.fail_at(1, 28, Fault::Torn);
        let error = replace(&fs, &dir.path().join("f"), NEW, 0o600).expect_err("the disk is full");
        assert!(matches!(error, DurableError::Write { .. }), "got {error:?}");
        assert!(error.hint().contains("free space"), "{}", error.hint());
        assert_eq!(RealFs.list(dir.path()).expect("list").len(), 0);
    }

    #[test]
    fn sweep_removes_temp_files_and_nothing_else() {
        let dir = tempfile::tempdir().expect("scratch");
        for name in ["f", ".f", ".f.tmp-", ".f.tmp-x", "f.tmp-1-2", ".tmp-1", ".f.tmp-1-2", ".g.json.tmp-77-0"] {
            std::fs::write(dir.path().join(name), b"x").expect("prepare");
        }
        assert_eq!(sweep_temps(&RealFs, dir.path()).expect("sweep"), 2);
        let left = RealFs.list(dir.path()).expect("list");
        assert_eq!(left, [".f", ".f.tmp-", ".f.tmp-x", ".tmp-1", "f", "f.tmp-1-2"]);
        assert_eq!(sweep_temps(&RealFs, &dir.path().join("absent")).expect("sweep"), 0);
    }

    #[test]
    fn leftovers_of_a_process_with_the_same_pid_do_not_stop_a_replacement() {
        let dir = tempfile::tempdir().expect("scratch");
        let path = dir.path().join("f");
        let probe = temp_path(&path).expect("name");
        let text = probe.to_str().expect("text").to_owned();
        let (head, number) = text.rsplit_once('-').expect("number");
        let number: u64 = number.parse().expect("number");
        for next in number..number + 8 {
            std::fs::write(format!("{head}-{next}"), b"left").expect("prepare");
        }
        replace(&RealFs, &path, NEW, 0o600).expect("replace");
        assert_eq!(std::fs::read(&path).expect("read"), NEW);
    }

    #[test]
    fn paths_that_leave_the_base_are_refused() {
        let dir = tempfile::tempdir().expect("scratch");
        for bad in ["../x", "/x", "a/../../x"] {
            let error = create_dirs(&RealFs, dir.path(), Path::new(bad), 0o700).expect_err(bad);
            assert!(matches!(error, DurableError::NotBelow { .. }), "got {error:?}");
        }
        assert!(matches!(replace(&RealFs, Path::new("/"), NEW, 0o600), Err(DurableError::NoParent { .. })));
    }

    #[test]
    fn a_file_over_the_cap_is_not_read() {
        let dir = tempfile::tempdir().expect("scratch");
        let path = dir.path().join("f");
        std::fs::write(&path, b"12345").expect("prepare");
        assert_eq!(RealFs.read(&path, 5).expect("at the cap"), b"12345");
        assert_eq!(RealFs.read(&path, 4).expect_err("over the cap").kind(), io::ErrorKind::FileTooLarge);
    }
}
