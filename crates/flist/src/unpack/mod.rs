//! Unpacks a flist into a directory: the inverse of [`pack`](crate::pack).
//!
//! ```text
//! tree ──skeleton: directories 0700, files of the right length, links, devices──> content: each block fetched once,
//!        written to all its places, zeros skipped ──> owners, modes, times; a directory after its content
//! ```
//!
//! All changes stay inside the directory: each name is one component relative to an open directory, and the kernel resolves
//! the path to that directory without following links and without leaving the root.

mod error;
mod root;
mod staging;

use std::num::NonZeroUsize;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;

pub use error::{UnpackError, UnpackStep};

use crate::content::ReadError;
use crate::metadata::{FileKind, Flist, Inode, ROOT_INO};
use crate::sweep::{BlockProgress, BlockSource, Group, Sweep};
use root::Root;
use staging::Staging;

/// The options of unpacking.
#[derive(Debug, Clone)]
pub struct UnpackOptions {
    /// Sets the owners of the flist (default); needs root. Otherwise the caller owns all files, and setuid and setgid are
    /// dropped, since they would grant the caller's rights instead of the owner's.
    pub same_owner: bool,
    /// Unpacks into an existing tree: existing directories stay, other entries of the same name are replaced.
    pub force: bool,
    /// The number of blocks fetched at once; by default the number of cores.
    pub jobs: Option<NonZeroUsize>,
}

impl Default for UnpackOptions {
    fn default() -> Self {
        Self { same_owner: true, force: false, jobs: None }
    }
}

/// The result of an [`unpack`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnpackReport {
    /// The number of inodes, the root included.
    pub entries: u64,
    /// Bytes of content of all files, holes included.
    pub content_bytes: u64,
    /// The number of distinct blocks fetched.
    pub blocks: u64,
}

/// Unpacks into `dir`, which must be empty or not exist; its parent must exist.
///
/// Contents, types, owners, modes, devices, and whole-second times of files, links and directories are those of the flist.
/// Blocks of zeros become holes. The tree is made in a private directory, beside `dir` if that does not exist and otherwise
/// inside it, and is moved to its place when it is complete: `dir` is complete, or as it was before. With
/// [`UnpackOptions::force`] it is unpacked in place; after a failure, a second run replaces what the first left.
/// `progress` is called on the calling thread.
///
/// # Errors
/// The directory is not empty, a block could not be fetched or verified, a path is too long for the system, or an operation
/// failed; each with the entry.
pub fn unpack(
    flist: &Flist,
    source: BlockSource<'_>,
    dir: &Path,
    options: &UnpackOptions,
    progress: &dyn Fn(BlockProgress),
) -> Result<UnpackReport, UnpackError> {
    if options.force {
        let root = Root::prepare(dir)?;
        return Unpacking { flist, root: &root, options }.run(source, progress);
    }
    let staging = Staging::make(dir)?;
    let root = Root::prepare(staging.path())?.shown_as(dir);
    let result = Unpacking { flist, root: &root, options }.run(source, progress);
    match result.and_then(|report| staging.publish(flist, options).map(|()| report)) {
        Err(source) => match root.clean_up() {
            Ok(()) => Err(source),
            Err(cleanup) => Err(UnpackError::CleanUp { dir: dir.to_owned(), cleanup, source: Box::new(source) }),
        },
        report => report,
    }
}

struct Unpacking<'a> {
    flist: &'a Flist,
    root: &'a Root,
    options: &'a UnpackOptions,
}

impl Unpacking<'_> {
    fn run(&self, source: BlockSource<'_>, progress: &dyn Fn(BlockProgress)) -> Result<UnpackReport, UnpackError> {
        let directories = self.make_skeleton()?;
        let blocks = self.write_content(source, progress)?;
        // Each directory comes after its parents, so the reverse order finishes children first.
        for ino in directories.iter().rev() {
            self.finish_directory(*ino)?;
        }
        Ok(UnpackReport { entries: self.flist.inode_count() as u64, content_bytes: self.flist.content_bytes(), blocks })
    }

    /// Makes every entry, without content, owner, mode and times. Returns all directories, parents first.
    fn make_skeleton(&self) -> Result<Vec<u64>, UnpackError> {
        let mut directories = Vec::new();
        let mut waiting = vec![ROOT_INO];
        while let Some(ino) = waiting.pop() {
            directories.push(ino);
            let children = self.flist.children(ino);
            if children.is_empty() {
                continue;
            }
            let folder = self.open_directory(ino)?;
            for child in children.iter() {
                self.root
                    .create(folder.as_fd(), child, self.flist.symlink_target(child.ino()), self.options.force)
                    .map_err(|errno| self.failed(UnpackStep::Create, child.ino(), errno))?;
                if child.kind() == FileKind::Directory {
                    waiting.push(child.ino());
                }
            }
        }
        Ok(directories)
    }

    fn write_content(&self, source: BlockSource<'_>, progress: &dyn Fn(BlockProgress)) -> Result<u64, UnpackError> {
        let sweep = Sweep::of(self.flist);
        let total_bytes = self.flist.content_bytes();
        let mut done_bytes = 0;
        progress(BlockProgress { done_bytes, total_bytes });
        sweep.run(
            self.flist,
            self.options.jobs,
            |group| self.write_block(source, group),
            |group, result| {
                result?;
                done_bytes += group.len as u64 * group.places.len() as u64;
                progress(BlockProgress { done_bytes, total_bytes });
                Ok(())
            },
        )?;
        Ok(sweep.len() as u64)
    }

    fn write_block(&self, source: BlockSource<'_>, group: &Group<'_>) -> Result<(), UnpackError> {
        let plain = group.fetch(source).map_err(|source: ReadError| {
            let ino = group.places.first().map_or(0, |place| place.ino);
            UnpackError::Read { path: self.root.shown(&self.path(ino)), source }
        })?;
        if plain.iter().all(|byte| *byte == 0) {
            // The files have their length already, so unwritten ranges are holes.
            return Ok(());
        }
        for place in group.places {
            let path = self.checked_path(place.ino)?;
            self.root.write_at(&path, &plain, place.offset()).map_err(|source| UnpackError::Entry {
                step: UnpackStep::Write,
                path: self.root.shown(&path),
                source,
            })?;
        }
        Ok(())
    }

    /// Sets owner, mode and times of the entries of a directory, and then of the directory.
    fn finish_directory(&self, ino: u64) -> Result<(), UnpackError> {
        let folder = self.open_directory(ino)?;
        for child in self.flist.children(ino).iter().filter(|child| child.kind() != FileKind::Directory) {
            root::finish_entry(folder.as_fd(), child, self.options.same_owner)
                .map_err(|(step, errno)| self.failed(step, child.ino(), errno))?;
        }
        let Some(inode) = self.flist.inode(ino) else { return Ok(()) };
        root::finish_directory(folder.as_fd(), inode, self.options.same_owner)
            .map_err(|(step, errno)| self.failed(step, ino, errno))
    }

    fn open_directory(&self, ino: u64) -> Result<OwnedFd, UnpackError> {
        let path = self.checked_path(ino)?;
        self.root.open_directory(&path).map_err(|errno| self.failed(UnpackStep::Open, ino, errno))
    }

    fn path(&self, ino: u64) -> Vec<u8> {
        self.flist.inode(ino).map(Inode::path).unwrap_or_default()
    }

    fn checked_path(&self, ino: u64) -> Result<Vec<u8>, UnpackError> {
        let path = self.path(ino);
        if path.len() <= root::MAX_PATH_BYTES {
            return Ok(path);
        }
        let shown = path.get(..root::MAX_PATH_BYTES).unwrap_or_default();
        Err(UnpackError::PathTooLong { path: self.root.shown(shown), len: path.len() })
    }

    fn failed(&self, step: UnpackStep, ino: u64, errno: nix::Error) -> UnpackError {
        UnpackError::Entry { step, path: self.root.shown(&self.path(ino)), source: errno.into() }
    }
}
