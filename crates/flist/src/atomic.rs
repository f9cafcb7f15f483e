//! Writes a file so that others see it complete or not at all: temporary name in the same folder, sync, rename.
//!
//! It serves content named by its hash and files of up to a gigabyte: it streams, unlike `contd-durable`.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::unfinished::Unfinished;

/// The prefix of the temporary files of this crate; a cleaner may remove old ones.
pub(crate) const TEMP_PREFIX: &str = ".tmp-";

/// The most new names tried in a folder full of leftovers.
const MAX_NAME_ATTEMPTS: u32 = 16;

/// A file under a temporary name. It is removed when dropped before [`TempFile::commit`].
#[derive(Debug)]
pub struct TempFile {
    path: PathBuf,
    file: File,
    committed: bool,
    _unfinished: Unfinished,
}

impl TempFile {
    /// Creates an empty file in `folder`, which must exist, under an unused name.
    ///
    /// # Errors
    /// The folder cannot be written to, or is full of leftovers.
    pub fn create_in(folder: &Path) -> io::Result<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        for _ in 0..MAX_NAME_ATTEMPTS {
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            let path = folder.join(format!("{TEMP_PREFIX}{}-{number}", process::id()));
            // `create_new` is O_EXCL: it neither follows a link nor opens an existing file.
            let mut options = OpenOptions::new();
            options.read(true).write(true).create_new(true).mode(0o644);
            match Unfinished::make(|| Ok((path.clone(), options.open(&path)?))) {
                Ok((unfinished, file)) => {
                    return Ok(Self { path, file, committed: false, _unfinished: unfinished });
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
        Err(io::Error::from(io::ErrorKind::AlreadyExists))
    }

    /// Returns the file, for writing.
    pub fn file(&mut self) -> &mut File {
        &mut self.file
    }

    /// Returns the temporary path, for writers that need a path (SQLite).
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Syncs the content and links it as `target`, which must not exist.
    pub(crate) fn commit_new(self, target: &Path) -> io::Result<()> {
        self.file.sync_data()?;
        // A link fails where a rename would replace; the temporary name is removed when this is dropped.
        match fs::hard_link(&self.path, target) {
            // Some file systems have no links.
            Err(error) if matches!(error.raw_os_error(), Some(nix::libc::EPERM | nix::libc::EOPNOTSUPP)) => {
                match fs::symlink_metadata(target) {
                    Ok(_) => Err(io::ErrorKind::AlreadyExists.into()),
                    Err(_not_there) => self.rename(target),
                }
            }
            linked => linked,
        }
    }

    /// Syncs the content and renames the file to `target`; an existing file is replaced.
    pub(crate) fn commit(self, target: &Path) -> io::Result<()> {
        self.file.sync_data()?;
        self.rename(target)
    }

    /// Renames the file to `target` without a sync: for content that its readers verify.
    pub(crate) fn rename(mut self, target: &Path) -> io::Result<()> {
        fs::rename(&self.path, target)?;
        self.committed = true;
        Ok(())
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        if !self.committed {
            // A failure cannot be handled here; the prefix lets a cleaner find the file.
            let _left_behind = fs::remove_file(&self.path);
        }
    }
}

/// Makes a rename in `folder` survive a power loss.
pub(crate) fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}
