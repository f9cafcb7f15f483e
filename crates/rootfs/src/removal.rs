//! Layers on disk that nobody needs any more: set aside by one rename, then removed by a few threads, so that a large one
//! keeps nobody waiting. One that resists is tried again, later and later. What lies aside when the daemon dies is removed by the
//! next one.
//!
//! A container's files are not trusted: names are removed below open descriptors, no link is followed, no mount is crossed
//! (`RESOLVE_NO_XDEV`), and a tree of any depth takes three descriptors: directories are moved up instead of descended into.
//! A subvolume of btrfs is no mount, and goes with one call.

use std::collections::VecDeque;
use std::ffi::{CStr, CString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, RenameFlags, ResolveFlag, openat2, renameat2};
use nix::sys::stat::Mode;
use nix::unistd::{UnlinkatFlags, unlinkat};
use tracing::{debug, warn};

use crate::btrfs;
use crate::provider::RootfsError;
use crate::quota;
use crate::users::disk;

/// Where they lie, below the state directory: no namespace can begin with a dot.
pub const REMOVED_DIR: &str = ".removed";

/// How many are removed at once: more would only make the disk seek.
const MAX_THREADS: usize = 2;

/// How many names for one layer are tried: one, unless it is removed again while the first removal is under way.
const MAX_NAMES: u32 = 1000;

/// After how many looks one that resists is tried again, at most: some minutes.
const MOST_LOOKS: u32 = 256;

/// One that lies aside.
#[derive(Debug)]
struct Job {
    path: PathBuf,
    /// The root that had it as its layer, detached: given up at last, since that may write to the disk what is unwritten.
    _root: Option<OwnedFd>,
    /// How often it resisted.
    failures: u32,
    /// The number of looks until it is tried again.
    looks: u32,
}

impl Job {
    fn new(path: PathBuf, root: Option<OwnedFd>) -> Self {
        Self { path, _root: root, failures: 0, looks: 0 }
    }

    /// Has it wait after a failure, twice as long each time, and holds nothing that the node may be short of.
    fn later(self) -> Self {
        let looks = 2_u32.saturating_pow(self.failures).min(MOST_LOOKS);
        Self { path: self.path, _root: None, failures: self.failures.saturating_add(1), looks }
    }

    /// Counts a look; tells whether it is tried again now.
    fn is_due(&mut self) -> bool {
        self.looks = self.looks.saturating_sub(1);
        self.looks == 0
    }
}

/// All that lie aside.
#[derive(Debug)]
pub(crate) struct Removals {
    dir: PathBuf,
    work: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    work: Mutex<Work>,
    rested: Condvar,
}

#[derive(Debug, Default)]
struct Work {
    waiting: VecDeque<Job>,
    /// Those that resisted.
    failed: Vec<Job>,
    threads: usize,
    /// Qgroups of subvolumes that are gone, for which the kernel still counts what it has not freed.
    qgroups: Vec<u64>,
}

impl Removals {
    pub(crate) fn new(state: &Path) -> Self {
        Self { dir: state.join(REMOVED_DIR), work: Arc::default() }
    }

    /// Sets a directory of the state directory aside and has it removed; fine when there is none.
    pub(crate) fn set_aside(&self, path: &Path, name: &str, root: Option<OwnedFd>) -> Result<(), RootfsError> {
        if path.symlink_metadata().is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
            return Ok(());
        }
        std::fs::create_dir_all(&self.dir).map_err(|source| disk("make", &self.dir, source))?;
        for number in 0..MAX_NAMES {
            let aside = self.dir.join(format!("{name}.{number}"));
            match renameat2(nix::fcntl::AT_FDCWD, path, nix::fcntl::AT_FDCWD, &aside, RenameFlags::RENAME_NOREPLACE) {
                Ok(()) => {
                    self.begin(Job::new(aside, root));
                    return Ok(());
                }
                Err(Errno::EEXIST) => {}
                Err(Errno::ENOENT) => return Ok(()),
                Err(errno) => return Err(disk("set aside the layer", path, errno.into())),
            }
        }
        Err(disk("set aside the layer", path, Errno::EEXIST.into()))
    }

    /// Goes on with what an earlier daemon left.
    pub(crate) fn go_on(&self) -> Result<(), RootfsError> {
        let entries = match std::fs::read_dir(&self.dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(source) => return Err(disk("list", &self.dir, source)),
        };
        for entry in entries {
            let path = entry.map_err(|source| disk("list", &self.dir, source))?.path();
            self.begin(Job::new(path, None));
        }
        Ok(())
    }

    /// Tries again to remove what resisted and is due, and the qgroups that were left. The next daemon does not know of these:
    /// they are nobody's limit, and their numbers are never used again.
    pub(crate) fn tidy(&self) {
        let due: Vec<Job> = {
            let mut work = self.work.lock();
            // Without a thread those wait that never had one.
            let idle = if work.threads == 0 { std::mem::take(&mut work.waiting) } else { VecDeque::new() };
            work.failed.extract_if(.., Job::is_due).chain(idle).collect()
        };
        due.into_iter().for_each(|job| self.begin(job));
        let mut left = std::mem::take(&mut self.work.lock().qgroups);
        if left.is_empty() {
            return;
        }
        let removed = File::open(&self.dir).and_then(|dir| {
            let mut still = Vec::new();
            for qgroup in left.drain(..) {
                if !btrfs::forget(&dir, qgroup)? {
                    still.push(qgroup);
                }
            }
            Ok(still)
        });
        match removed {
            Ok(still) => self.work.lock().qgroups.extend(still),
            Err(error) => warn!(%error, "qgroups of removed layers stay: see btrfs qgroup clear-stale"),
        }
    }

    /// Waits until all are removed, or none can be.
    pub(crate) fn wait(&self) {
        let is_at_work = |work: &mut Work| work.threads > 0;
        drop(self.work.rested.wait_while(self.work.lock(), is_at_work));
    }

    fn begin(&self, job: Job) {
        let mut work = self.work.lock();
        work.waiting.push_back(job);
        if work.threads >= MAX_THREADS {
            return;
        }
        let shared = Arc::clone(&self.work);
        match std::thread::Builder::new().name("layers".to_owned()).spawn(move || remove_all(&shared)) {
            Ok(_detached) => work.threads += 1,
            // The next look begins it.
            Err(error) => warn!(%error, "no thread for the removal of a layer, it waits"),
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Work> {
        // Only pushes, pops and counts happen under it: a panic leaves it whole.
        self.work.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Removes until none waits.
fn remove_all(shared: &Shared) {
    loop {
        let Some(job) = ({
            let mut work = shared.lock();
            let job = work.waiting.pop_front();
            if job.is_none() {
                work.threads = work.threads.saturating_sub(1);
                shared.rested.notify_all();
            }
            job
        }) else {
            return;
        };
        match remove(&job.path) {
            Ok(qgroup) => {
                debug!(path = %job.path.display(), "layer removed");
                shared.lock().qgroups.extend(qgroup);
            }
            Err(error) => {
                let path = job.path.display();
                match job.failures {
                    0 => warn!(%path, %error, "a layer could not be removed whole, it is tried again"),
                    failures => debug!(%path, %error, failures, "a layer still could not be removed whole"),
                }
                shared.lock().failed.push(job.later());
            }
        }
    }
}

/// Removes one directory with all that is in it, and gives its project or qgroup back. Returns the qgroup if that is too early.
fn remove(path: &Path) -> io::Result<Option<u64>> {
    let top = match File::open(path) {
        Ok(top) => top,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return Err(Errno::EINVAL.into()) };
    let (parent, name) = (File::open(parent)?, CString::new(name.as_bytes())?);
    let (project, subvolume) = (quota::project_of(&top), btrfs::subvolume(&top)?);
    if subvolume.is_none() || !btrfs::destroy(&parent, &name)? {
        empty(&top.into())?;
        match unlinkat(&parent, name.as_c_str(), UnlinkatFlags::RemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    if let Some(project) = project {
        quota::forget(&parent, project)?;
    }
    match subvolume {
        Some(qgroup) => Ok((!btrfs::forget(&parent, qgroup)?).then_some(qgroup)),
        None => Ok(None),
    }
}

/// Empties a directory. Directories that are not empty are emptied into it, until none is left.
fn empty(top: &OwnedFd) -> io::Result<()> {
    let is_btrfs = btrfs::is_on(&File::from(top.try_clone()?))?;
    let mut moved = 0_u64;
    loop {
        let mut is_empty = true;
        for name in names(top)? {
            is_empty = false;
            if is_removed(top, &name, is_btrfs)? {
                continue;
            }
            let dir = enter(top, &name)?;
            for inner in names(&dir)? {
                if !is_removed(&dir, &inner, is_btrfs)? {
                    move_up(&dir, &inner, top, &mut moved)?;
                }
            }
            unlinkat(top, name.as_c_str(), UnlinkatFlags::RemoveDir)?;
        }
        if is_empty {
            return Ok(());
        }
    }
}

/// Lists the names in a directory. All at once: to remove while reading may skip some.
fn names(dir: &OwnedFd) -> io::Result<Vec<CString>> {
    // A descriptor of its own, since the position is shared by copies.
    let how = OpenHow::new().flags(OFlag::O_DIRECTORY | OFlag::O_RDONLY | OFlag::O_CLOEXEC).mode(Mode::empty());
    let mut open = Dir::from_fd(openat2(dir, c".", how)?)?;
    let mut names = Vec::new();
    for entry in open.iter() {
        let name = entry?.file_name().to_owned();
        if !matches!(name.to_bytes(), b"." | b"..") {
            names.push(name);
        }
    }
    Ok(names)
}

/// Removes a file, an empty directory or, on btrfs, a subvolume; `false` for a directory that is not empty.
fn is_removed(dir: impl AsFd, name: &CStr, is_btrfs: bool) -> io::Result<bool> {
    match unlinkat(&dir, name, UnlinkatFlags::NoRemoveDir) {
        Ok(()) | Err(Errno::ENOENT) => return Ok(true),
        Err(Errno::EISDIR | Errno::EPERM) => {}
        Err(errno) => return Err(errno.into()),
    }
    match unlinkat(&dir, name, UnlinkatFlags::RemoveDir) {
        Ok(()) | Err(Errno::ENOENT) => Ok(true),
        Err(Errno::ENOTEMPTY | Errno::EEXIST) => Ok(is_btrfs && btrfs::destroy(dir, name)?),
        Err(errno) => Err(errno.into()),
    }
}

/// Opens a directory by its name, and never what is mounted on it.
fn enter(dir: &OwnedFd, name: &CStr) -> io::Result<OwnedFd> {
    let flags = OFlag::O_DIRECTORY | OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
    let resolve = ResolveFlag::RESOLVE_NO_XDEV | ResolveFlag::RESOLVE_NO_SYMLINKS | ResolveFlag::RESOLVE_BENEATH;
    Ok(openat2(dir, name, OpenHow::new().flags(flags).resolve(resolve))?)
}

/// Moves a directory to the top, under a name that is free there.
fn move_up(from: &OwnedFd, name: &CStr, top: &OwnedFd, moved: &mut u64) -> io::Result<()> {
    loop {
        *moved += 1;
        let free = CString::new(format!("moved-{moved}"))?;
        match renameat2(from, name, top, free.as_c_str(), RenameFlags::RENAME_NOREPLACE) {
            Ok(()) | Err(Errno::ENOENT) => return Ok(()),
            Err(Errno::EEXIST) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn links_are_removed_and_never_followed() {
        let dir = tempfile::tempdir().unwrap();
        let (layer, other) = (dir.path().join("layer"), dir.path().join("other"));
        std::fs::create_dir_all(layer.join("upper/a/b/c")).unwrap();
        std::fs::create_dir_all(other.join("kept")).unwrap();
        std::fs::write(other.join("file"), "kept").unwrap();
        for link in ["dir", "upper/dir", "upper/a/b/dir"] {
            symlink(&other, layer.join(link)).unwrap();
        }
        std::fs::write(layer.join("upper/a/moved-1"), "").unwrap();
        std::fs::hard_link(other.join("file"), layer.join("upper/a/hard")).unwrap();
        remove(&layer).unwrap();
        assert!(!layer.exists() && other.join("kept").is_dir());
        assert_eq!(std::fs::read_to_string(other.join("file")).unwrap(), "kept");
        remove(&layer).expect("twice is fine");
    }

    #[test]
    fn a_tree_deeper_than_any_path_or_limit_of_descriptors_goes() {
        let dir = tempfile::tempdir().unwrap();
        let layer = dir.path().join("layer");
        std::fs::create_dir(&layer).unwrap();
        let mut open: OwnedFd = File::open(&layer).unwrap().into();
        let name = CString::new("d".repeat(200)).unwrap();
        for _ in 0..3000 {
            nix::sys::stat::mkdirat(&open, name.as_c_str(), Mode::S_IRWXU).unwrap();
            open = enter(&open, &name).unwrap();
        }
        drop(open);
        remove(&layer).unwrap();
        assert!(!layer.exists());
    }

    #[test]
    fn one_that_resists_is_tried_again_until_it_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let layer = dir.path().join("layer");
        std::fs::create_dir_all(layer.join("upper/point")).unwrap();
        let removals = Removals::new(dir.path());
        let aside = dir.path().join(REMOVED_DIR).join("x.0/upper/point");
        std::fs::create_dir(dir.path().join("other")).unwrap();
        // A mount keeps it, whoever removes it.
        let mount = |at: &Path| {
            let flags = nix::mount::MsFlags::MS_BIND;
            nix::mount::mount(Some(&dir.path().join("other")), at, None::<&str>, flags, None::<&str>)
                .expect("run as root");
        };
        mount(&layer.join("upper/point"));
        removals.set_aside(&layer, "x", None).unwrap();
        removals.wait();
        removals.tidy();
        removals.wait();
        assert!(aside.exists(), "it cannot be gone");
        nix::mount::umount2(&aside, nix::mount::MntFlags::MNT_DETACH).unwrap();
        removals.tidy();
        removals.wait();
        assert!(aside.exists(), "after the second failure it waits");
        removals.tidy();
        removals.wait();
        assert!(!aside.exists() && removals.work.lock().failed.is_empty());
    }

    #[test]
    fn what_somebody_mounted_inside_is_not_emptied() {
        let dir = tempfile::tempdir().unwrap();
        let (layer, other) = (dir.path().join("layer"), dir.path().join("other"));
        std::fs::create_dir_all(layer.join("upper/point")).unwrap();
        std::fs::create_dir(&other).unwrap();
        std::fs::write(other.join("file"), "kept").unwrap();
        let (point, flags) = (layer.join("upper/point"), nix::mount::MsFlags::MS_BIND);
        nix::mount::mount(Some(&other), &point, None::<&str>, flags, None::<&str>).expect("run as root");
        let result = remove(&layer);
        nix::mount::umount2(&point, nix::mount::MntFlags::MNT_DETACH).unwrap();
        assert!(result.is_err() && other.join("file").exists());
        remove(&layer).unwrap();
        assert!(!layer.exists());
    }
}
