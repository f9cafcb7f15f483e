//! Marks: they say which log files are of contd, and name the owner.
//!
//! The mark is an extended attribute that only root may set. On a file system without extended attributes a note in a
//! directory of contd takes its place. The note's name has the inode and its time of birth, so that a later file with
//! the same inode number does not match.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, StatxFlags, XattrFlags, fgetxattr, fsetxattr, statx};
use rustix::io::Errno;

/// The extended attribute. Its value is the owner.
const ATTRIBUTE: &str = "trusted.contd.log";
/// The owner of directories that contd made.
pub(crate) const DIRECTORY: &str = "contd";
/// More than any owner's name takes.
const MAX_OWNER_BYTES: usize = 128;

/// Reads and writes marks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Marks {
    /// The directory of the notes.
    notes: Option<PathBuf>,
}

impl Marks {
    pub(crate) fn new(notes: impl Into<PathBuf>) -> Self {
        Self { notes: Some(notes.into()) }
    }

    /// Sets the owner of a file.
    pub(crate) fn set(&self, file: impl AsFd, owner: &str) -> io::Result<()> {
        match (fsetxattr(file.as_fd(), ATTRIBUTE, owner.as_bytes(), XattrFlags::empty()), &self.notes) {
            (Ok(()), _) => Ok(()),
            (Err(Errno::NOTSUP | Errno::PERM | Errno::NOSYS), Some(notes)) => note(notes, file.as_fd(), owner),
            (Err(errno), _) => Err(errno.into()),
        }
    }

    /// Returns the owner of a file, if it has a mark.
    pub(crate) fn get(&self, file: impl AsFd) -> io::Result<Option<String>> {
        let mut owner = [0; MAX_OWNER_BYTES];
        match fgetxattr(file.as_fd(), ATTRIBUTE, &mut owner) {
            Ok(length) => Ok(Some(String::from_utf8_lossy(owner.get(..length).unwrap_or_default()).into_owned())),
            // The value is longer than any that we write, so the owner is unknown.
            Err(Errno::RANGE) => Ok(Some(String::new())),
            Err(Errno::NODATA | Errno::NOTSUP | Errno::PERM | Errno::NOSYS) => self.noted(file.as_fd()),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Removes the note on a file that is about to be removed.
    pub(crate) fn forget(&self, file: impl AsFd) -> io::Result<()> {
        let Some(notes) = self.notes.as_deref().filter(|notes| notes.exists()) else { return Ok(()) };
        match fs::remove_file(notes.join(note_name(file.as_fd())?)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    fn noted(&self, file: BorrowedFd<'_>) -> io::Result<Option<String>> {
        let Some(notes) = self.notes.as_deref().filter(|notes| notes.exists()) else { return Ok(None) };
        match fs::read_to_string(notes.join(note_name(file)?)) {
            Ok(owner) => Ok(Some(owner).filter(|owner| !owner.is_empty())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

fn note(notes: &Path, file: BorrowedFd<'_>, owner: &str) -> io::Result<()> {
    use std::io::Write;
    use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
    fs::DirBuilder::new().recursive(true).mode(0o700).create(notes)?;
    let mut options = fs::OpenOptions::new();
    let mut note = options.write(true).create(true).truncate(true).mode(0o600).open(notes.join(note_name(file)?))?;
    note.write_all(owner.as_bytes())?;
    // The log's own file system decides when the log is on disk; without its note it would count as a foreign file
    // after a power loss.
    note.sync_all()
}

fn note_name(file: BorrowedFd<'_>) -> io::Result<String> {
    let found = statx(file, "", AtFlags::EMPTY_PATH, StatxFlags::INO | StatxFlags::BTIME)?;
    Ok(format!("{}-{}.{}", found.stx_ino, found.stx_btime.tv_sec, found.stx_btime.tv_nsec))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_read_back_and_a_file_without_one_is_nobodys() {
        let dir = tempfile::tempdir().unwrap();
        let marks = Marks::new(dir.path().join("notes"));
        let (ours, other) = (tempfile::tempfile_in(dir.path()).unwrap(), tempfile::tempfile_in(dir.path()).unwrap());
        marks.set(&ours, "one").unwrap();
        assert_eq!(marks.get(&ours).unwrap().as_deref(), Some("one"));
        assert_eq!(marks.get(&other).unwrap(), None);
        assert!(!dir.path().join("notes").exists(), "the file system has attributes");
    }

    #[test]
    fn a_note_is_about_one_inode_and_goes_with_it() {
        let dir = tempfile::tempdir().unwrap();
        let notes = dir.path().join("notes");
        let marks = Marks::new(&notes);
        let (ours, other) = (tempfile::tempfile_in(dir.path()).unwrap(), tempfile::tempfile_in(dir.path()).unwrap());
        note(&notes, ours.as_fd(), "one").unwrap();
        assert_eq!(marks.noted(ours.as_fd()).unwrap().as_deref(), Some("one"));
        assert_eq!(marks.noted(other.as_fd()).unwrap(), None);
        marks.forget(&ours).unwrap();
        marks.forget(&ours).unwrap();
        assert_eq!(marks.noted(ours.as_fd()).unwrap(), None);
        assert_eq!(fs::read_dir(&notes).unwrap().count(), 0);
    }
}
