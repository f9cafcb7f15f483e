//! Writes a file so that others see all of it or nothing: temporary name in the same folder, sync, rename.
//!
//! Used for content that has its hash as name and for files that may be a gigabyte: it streams, unlike `contd-durable`.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::unfinished::Unfinished;

/// Starts the name of every temporary file of this crate; a cleaner may remove old ones.
pub(crate) const TEMP_PREFIX: &str = ".tmp-";

/// Tries this many fresh names before it gives up on a folder full of leftovers.
const MAX_NAME_ATTEMPTS: u32 = 16;

/// A file under a temporary name. Dropped before [`TempFile::commit`], it removes itself.
#[derive(Debug)]
pub struct TempFile {
    path: PathBuf,
    file: File,
    committed: bool,
    _unfinished: Unfinished,
}

impl TempFile {
    /// Makes an empty file in `folder`, which must exist, under a name that no one else has.
    ///
    /// # Errors
    /// The folder cannot be written to, or is full of leftovers.
    pub fn create_in(folder: &Path) -> io::Result<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        for _ in 0..MAX_NAME_ATTEMPTS {
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            let path = folder.join(format!("{TEMP_PREFIX}{}-{number}", process::id()));
            // `create_new` is O_EXCL: it neither follows a link nor takes another's file.
            match OpenOptions::new().read(true).write(true).create_new(true).mode(0o644).open(&path) {
                Ok(file) => {
                    let unfinished = Unfinished::new(&path);
                    return Ok(Self { path, file, committed: false, _unfinished: unfinished });
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
        Err(io::Error::from(io::ErrorKind::AlreadyExists))
    }

    /// Gives the file to write to.
    pub fn file(&mut self) -> &mut File {
        &mut self.file
    }

    /// Gives the temporary path, for writers that want a name (SQLite).
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Puts the content on disk and shows it as `target`, which must not be there.
    pub(crate) fn commit_new(self, target: &Path) -> io::Result<()> {
        self.file.sync_data()?;
        // A link fails where a rename would replace; the temporary name goes when this is dropped.
        match fs::hard_link(&self.path, target) {
            // Not every file system has links.
            Err(error) if matches!(error.raw_os_error(), Some(nix::libc::EPERM | nix::libc::EOPNOTSUPP)) => {
                match fs::symlink_metadata(target) {
                    Ok(_) => Err(io::ErrorKind::AlreadyExists.into()),
                    Err(_not_there) => self.rename(target),
                }
            }
            linked => linked,
        }
    }

    /// Puts the content on disk and shows it as `target`, replacing what was there.
    pub(crate) fn commit(self, target: &Path) -> io::Result<()> {
        self.file.sync_data()?;
        self.rename(target)
    }

    /// Shows the file as `target` without waiting for the disk: for content that its readers verify.
    pub(crate) fn rename(mut self, target: &Path) -> io::Result<()> {
        fs::rename(&self.path, target)?;
        self.committed = true;
        Ok(())
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        if !self.committed {
            // Nothing can be done about a failure here; the prefix lets a cleaner find it.
            let _left_behind = fs::remove_file(&self.path);
        }
    }
}

/// Makes a rename in `folder` survive a power loss.
pub(crate) fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}
