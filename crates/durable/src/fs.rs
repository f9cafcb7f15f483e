//! The boundary to the disk: [`Fs`] with one method per operation, so that a test can make each of them fail.

use std::ffi::OsString;
use std::fmt::Debug;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use contd_failpoint::Failpoint;

/// The identity of a file, whatever its name: device and inode. Another file can have the same only after this one is
/// closed and removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FileId {
    device: u64,
    inode: u64,
}

impl FileId {
    fn of(metadata: &std::fs::Metadata) -> Self {
        Self { device: metadata.dev(), inode: metadata.ino() }
    }
}

/// A file open for reading at any offset, also after it was renamed or removed.
pub trait ReadFile: Send + Debug {
    /// Reads at most `buffer.len()` bytes from `offset` on and returns how many it read; 0 at the end of the file.
    ///
    /// # Errors
    /// The system's error.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Returns the identity of the file.
    ///
    /// # Errors
    /// The system's error.
    fn id(&self) -> io::Result<FileId>;

    /// Returns its size in bytes.
    ///
    /// # Errors
    /// The system's error.
    fn size(&self) -> io::Result<u64>;
}

impl ReadFile for File {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        operation()?;
        FileExt::read_at(self, buffer, offset)
    }

    fn id(&self) -> io::Result<FileId> {
        operation()?;
        self.metadata().map(|metadata| FileId::of(&metadata))
    }

    fn size(&self) -> io::Result<u64> {
        operation()?;
        self.metadata().map(|metadata| metadata.len())
    }
}

/// The file operations that the sequences of this crate are made of; each method is one step that can fail.
///
/// Paths are used as given: the caller has checked the names that it builds them from.
pub trait Fs: Send + Sync + Debug {
    /// Reads a whole file.
    ///
    /// # Errors
    /// [`io::ErrorKind::FileTooLarge`] when it has more than `max_bytes`, otherwise the system's error.
    fn read(&self, path: &Path, max_bytes: u64) -> io::Result<Vec<u8>>;

    /// Opens a file for reading.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotFound`], otherwise the system's error.
    fn open(&self, path: &Path) -> io::Result<Box<dyn ReadFile>>;

    /// Returns the identity of the file that has this name now.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotFound`], otherwise the system's error.
    fn id(&self, path: &Path) -> io::Result<FileId>;

    /// Lists the names in a directory, sorted.
    ///
    /// # Errors
    /// The system's error.
    fn list(&self, dir: &Path) -> io::Result<Vec<OsString>>;

    /// Makes a directory and its parents, each new one with this mode (less the umask); an existing one is not changed.
    ///
    /// # Errors
    /// The system's error.
    fn create_dir_all(&self, path: &Path, mode: u32) -> io::Result<()>;

    /// Makes a file that must not exist yet and writes all bytes to it. After an error a part of them may be there.
    ///
    /// # Errors
    /// [`io::ErrorKind::AlreadyExists`], otherwise the system's error.
    fn write_new(&self, path: &Path, bytes: &[u8], mode: u32) -> io::Result<()>;

    /// Adds bytes to the end of a file, which is made (0600) if absent. After an error a part of them may be there.
    ///
    /// # Errors
    /// The system's error.
    fn append(&self, path: &Path, bytes: &[u8]) -> io::Result<()>;

    /// Waits until the content of a file is on the disk.
    ///
    /// # Errors
    /// The system's error; the content must then be taken as lost.
    fn sync_file(&self, path: &Path) -> io::Result<()>;

    /// Waits until the names in a directory are on the disk.
    ///
    /// # Errors
    /// The system's error.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;

    /// Renames a file and replaces an existing `to`, in one step.
    ///
    /// # Errors
    /// The system's error.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotFound`], otherwise the system's error.
    fn remove_file(&self, path: &Path) -> io::Result<()>;

    /// Removes an empty directory.
    ///
    /// # Errors
    /// [`io::ErrorKind::DirectoryNotEmpty`], [`io::ErrorKind::NotFound`], otherwise the system's error.
    fn remove_dir(&self, path: &Path) -> io::Result<()>;

    /// Removes a directory with all that is in it; symlinks are removed, not followed.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotFound`], otherwise the system's error.
    fn remove_dir_all(&self, path: &Path) -> io::Result<()>;

    /// Tells whether a file of any kind has this path, a dangling symlink included.
    ///
    /// # Errors
    /// The system's error, when it cannot tell.
    fn exists(&self, path: &Path) -> io::Result<bool>;

    /// Returns the size of a file in bytes.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotFound`], otherwise the system's error.
    fn len(&self, path: &Path) -> io::Result<u64>;
}

/// The kernel's file system.
#[derive(Debug, Clone, Copy, Default)]
pub struct RealFs;

impl Fs for RealFs {
    fn read(&self, path: &Path, max_bytes: u64) -> io::Result<Vec<u8>> {
        operation()?;
        let file = File::open(path)?;
        // The reported size is only a hint that avoids many small reads; the bytes that are read decide.
        let hint = file.metadata().map_or(0, |metadata| metadata.len()).min(max_bytes);
        let mut bytes = Vec::with_capacity(usize::try_from(hint).unwrap_or_default().saturating_add(1));
        file.take(max_bytes.saturating_add(1)).read_to_end(&mut bytes)?;
        if u64::try_from(bytes.len()).is_ok_and(|len| len <= max_bytes) {
            Ok(bytes)
        } else {
            Err(io::ErrorKind::FileTooLarge.into())
        }
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn ReadFile>> {
        operation()?;
        Ok(Box::new(File::open(path)?))
    }

    fn id(&self, path: &Path) -> io::Result<FileId> {
        operation()?;
        std::fs::metadata(path).map(|metadata| FileId::of(&metadata))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<OsString>> {
        operation()?;
        let mut names =
            std::fs::read_dir(dir)?.map(|entry| entry.map(|e| e.file_name())).collect::<io::Result<Vec<_>>>()?;
        names.sort();
        Ok(names)
    }

    fn create_dir_all(&self, path: &Path, mode: u32) -> io::Result<()> {
        operation()?;
        DirBuilder::new().recursive(true).mode(mode).create(path)
    }

    fn write_new(&self, path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
        operation()?;
        OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?.write_all(bytes)
    }

    fn append(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        operation()?;
        OpenOptions::new().append(true).create(true).mode(0o600).open(path)?.write_all(bytes)
    }

    fn sync_file(&self, path: &Path) -> io::Result<()> {
        operation()?;
        // fsync works on any descriptor of the file: the dirty pages belong to the inode.
        File::open(path)?.sync_all()
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        operation()?;
        File::open(path)?.sync_all()
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        operation()?;
        std::fs::rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        operation()?;
        std::fs::remove_file(path)
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        operation()?;
        std::fs::remove_dir(path)
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        operation()?;
        std::fs::remove_dir_all(path)
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        operation()?;
        match std::fs::symlink_metadata(path) {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn len(&self, path: &Path) -> io::Result<u64> {
        operation()?;
        std::fs::metadata(path).map(|metadata| metadata.len())
    }
}

/// Runs at the beginning of each operation; the failpoint in it lets a test fail any of them.
fn operation() -> io::Result<()> {
    contd_failpoint::check(Failpoint::FsOperation)
}
