//! Stores the content of the layers in one unnamed file until it is known which of it the image needs.
//!
//! Layers are read once. A second reading would save the space, but would decompress everything twice, and read one block at
//! a time on one thread; from this file all cores seal blocks in parallel. An unnamed file needs no cleanup after a crash.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::sync::Arc;

use contd_flist::atomic::TempFile;

/// The position of one file's content in the scratch file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Extent {
    pub(super) offset: u64,
    pub(super) len: u64,
}

/// The scratch file.
#[derive(Debug)]
pub(super) struct Scratch {
    file: Arc<File>,
    end: u64,
}

impl Scratch {
    /// Makes an unnamed file on the file system of `folder`.
    pub(super) fn create_in(folder: &Path) -> io::Result<Self> {
        Ok(Self { file: Arc::new(nameless(folder)?), end: 0 })
    }

    /// Reserves space for a file; unwritten parts read as zeros.
    pub(super) fn reserve(&mut self, len: u64) -> io::Result<Extent> {
        let offset = self.end;
        let end = offset.checked_add(len).ok_or(io::ErrorKind::FileTooLarge)?;
        self.file.set_len(end)?;
        self.end = end;
        Ok(Extent { offset, len })
    }

    /// Writes a part of the reserved space. Zeros are skipped: they are there already, and take no space.
    pub(super) fn write(&self, extent: Extent, at: u64, bytes: &[u8]) -> io::Result<()> {
        if bytes.iter().all(|byte| *byte == 0) {
            return Ok(());
        }
        self.file.write_all_at(bytes, extent.offset.saturating_add(at))
    }

    /// Returns the file, for reading.
    pub(super) fn file(&self) -> Arc<File> {
        Arc::clone(&self.file)
    }
}

fn nameless(folder: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(0o600);
    match options.clone().custom_flags(nix::libc::O_TMPFILE).open(folder) {
        // File systems without O_TMPFILE: make a named file and remove its name at once.
        Err(error) if matches!(error.raw_os_error(), Some(nix::libc::EOPNOTSUPP | nix::libc::EISDIR)) => {
            let mut temp = TempFile::create_in(folder)?;
            let file = temp.file().try_clone()?;
            fs::remove_file(temp.path())?;
            Ok(file)
        }
        opened => opened,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_has_no_name_and_holes_are_zeros() {
        let folder = tempfile::tempdir().unwrap();
        let mut scratch = Scratch::create_in(folder.path()).unwrap();
        let (first, second) = (scratch.reserve(10).unwrap(), scratch.reserve(3).unwrap());
        scratch.write(second, 1, b"x").unwrap();
        scratch.write(first, 4, b"abc").unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        let mut all = vec![1; 13];
        scratch.file().read_exact_at(&mut all, 0).unwrap();
        assert_eq!(all, b"\0\0\0\0abc\0\0\0\0x\0");
    }
}
