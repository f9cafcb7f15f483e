//! The one door to the disk for state, small enough that a test can stand in it.

use std::ffi::OsString;
use std::fmt::Debug;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use contd_failpoint::Failpoint;

/// Which file it is, whatever its name: device and inode. Another file has the same only after this one is closed and gone.
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

/// A file that is open for reading, at any place, also after it was renamed or removed.
pub trait ReadFile: Send + Debug {
    /// Reads at most as much as the buffer takes from this place on, and returns how much that was; 0 at the end.
    ///
    /// # Errors
    /// What the system says.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Tells which file it is.
    ///
    /// # Errors
    /// What the system says.
    fn id(&self) -> io::Result<FileId>;

    /// Returns its size in bytes.
    ///
    /// # Errors
    /// What the system says.
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

/// What the sequences of this crate need from a file system; each method is one step that can fail.
///
/// Paths are taken as they are: whoever builds them out of names has checked the names.
pub trait Fs: Send + Sync + Debug {
    /// Reads a whole file.
    ///
    /// # Errors
    /// [`io::ErrorKind::FileTooLarge`] when it has more than `max_bytes`, otherwise what the system says.
    fn read(&self, path: &Path, max_bytes: u64) -> io::Result<Vec<u8>>;

    /// Opens a file for reading.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotFound`], otherwise what the system says.
    fn open(&self, path: &Path) -> io::Result<Box<dyn ReadFile>>;

    /// Tells which file has a name now.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotFound`], otherwise what the system says.
    fn id(&self, path: &Path) -> io::Result<FileId>;

    /// Lists the names in a directory, sorted.
    ///
    /// # Errors
    /// What the system says.
    fn list(&self, dir: &Path) -> io::Result<Vec<OsString>>;

    /// Makes a directory and its parents, each new one with this mode (and the umask); an existing one stays as it is.
    ///
    /// # Errors
    /// What the system says.
    fn create_dir_all(&self, path: &Path, mode: u32) -> io::Result<()>;

    /// Makes a file that must not exist yet and writes all bytes to it. On an error a part of it may be there.
    ///
    /// # Errors
    /// [`io::ErrorKind::AlreadyExists`], otherwise what the system says.
    fn write_new(&self, path: &Path, bytes: &[u8], mode: u32) -> io::Result<()>;

    /// Adds bytes to the end of a file, which is made (0600) if absent. On an error a part of them may be there.
    ///
    /// # Errors
    /// What the system says.
    fn append(&self, path: &Path, bytes: &[u8]) -> io::Result<()>;

    /// Waits until the content of a file is on the disk.
    ///
    /// # Errors
    /// What the system says; the content must then be taken as lost.
    fn sync_file(&self, path: &Path) -> io::Result<()>;

    /// Waits until the names in a directory are on the disk.
    ///
    /// # Errors
    /// What the system says.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;

    /// Renames, replacing what `to` was, in one step.
    ///
    /// # Errors
    /// What the system says.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotFound`], otherwise what the system says.
    fn remove_file(&self, path: &Path) -> io::Result<()>;

    /// Removes an empty directory.
    ///
    /// # Errors
    /// [`io::ErrorKind::DirectoryNotEmpty`], [`io::ErrorKind::NotFound`], otherwise what the system says.
    fn remove_dir(&self, path: &Path) -> io::Result<()>;

    /// Removes a directory with all that is in it; symlinks are removed, not followed.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotFound`], otherwise what the system says.
    fn remove_dir_all(&self, path: &Path) -> io::Result<()>;

    /// Tells whether there is something at the path, a dangling symlink included.
    ///
    /// # Errors
    /// What the system says when it cannot tell.
    fn exists(&self, path: &Path) -> io::Result<bool>;

    /// Returns the size of a file in bytes.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotFound`], otherwise what the system says.
    fn len(&self, path: &Path) -> io::Result<u64>;
}

/// The kernel's file system.
#[derive(Debug, Clone, Copy, Default)]
pub struct RealFs;

impl Fs for RealFs {
    fn read(&self, path: &Path, max_bytes: u64) -> io::Result<Vec<u8>> {
        operation()?;
        let file = File::open(path)?;
        // What it says of its length saves reads in tiny pieces; what counts is what comes.
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

/// Each operation begins here: in a test, any of them may be told to fail.
fn operation() -> io::Result<()> {
    contd_failpoint::check(Failpoint::FsOperation)
}
