//! Opens regular files and directories by path, and refuses other kinds without opening them.
//!
//! Opening a device can rewind a tape or reset a line, a FIFO waits for a writer, and a socket gives an unclear error. So the
//! path is resolved to an `O_PATH` descriptor, which has no effect, and checked; then that descriptor is reopened, which
//! guarantees the same file even if the path changes meanwhile.

use std::fs::{File, FileType, OpenOptions};
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};
use std::path::Path;

/// The file that a path leads to.
#[derive(Debug)]
pub enum Opened {
    /// A regular file, open for reading.
    File(File),
    /// A directory, open for reading.
    Directory(File),
    /// Another kind of file, not opened.
    Other(Odd),
}

/// A kind of file that is neither regular nor a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Odd {
    /// `mknod … b`
    BlockDevice,
    /// `mknod … c`
    CharDevice,
    /// `mkfifo`
    Fifo,
    /// `bind`
    Socket,
    /// A kind that this code does not know.
    Unknown,
}

impl std::fmt::Display for Odd {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::BlockDevice => "a block device",
            Self::CharDevice => "a character device",
            Self::Fifo => "a FIFO",
            Self::Socket => "a socket",
            Self::Unknown => "neither a file nor a directory",
        })
    }
}

impl Odd {
    fn of(kind: FileType) -> Self {
        if kind.is_block_device() {
            Self::BlockDevice
        } else if kind.is_char_device() {
            Self::CharDevice
        } else if kind.is_fifo() {
            Self::Fifo
        } else if kind.is_socket() {
            Self::Socket
        } else {
            Self::Unknown
        }
    }
}

/// Opens a regular file or a directory; symbolic links are followed.
///
/// # Errors
/// The errors of opening a file.
pub fn open(path: &Path) -> io::Result<Opened> {
    let found = OpenOptions::new().read(true).custom_flags(nix::libc::O_PATH).open(path)?;
    let kind = found.metadata()?.file_type();
    if kind.is_file() || kind.is_dir() {
        let file = again(&found)?;
        return Ok(if kind.is_dir() { Opened::Directory(file) } else { Opened::File(file) });
    }
    Ok(Opened::Other(Odd::of(kind)))
}

/// Reopens an `O_PATH` descriptor for reading; `None` if the file is not regular.
///
/// # Errors
/// The errors of opening a file.
pub fn reopen(found: &File) -> io::Result<Option<File>> {
    if found.metadata()?.is_file() { again(found).map(Some) } else { Ok(None) }
}

/// Opens a regular file. For another kind of file the error names the kind.
///
/// # Errors
/// The errors of opening a file, or the file is not regular.
pub fn open_file(path: &Path) -> io::Result<File> {
    let what = match open(path)? {
        Opened::File(file) => return Ok(file),
        Opened::Directory(_) => "a directory".to_owned(),
        Opened::Other(odd) => odd.to_string(),
    };
    Err(io::Error::other(format!("it is {what}, not a regular file")))
}

fn again(found: &File) -> io::Result<File> {
    let path = format!("/proc/self/fd/{}", found.as_raw_fd());
    OpenOptions::new().read(true).custom_flags(nix::libc::O_NONBLOCK | nix::libc::O_NOCTTY).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_files_and_directories_are_opened() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        std::fs::write(at("file"), "x").unwrap();
        std::os::unix::fs::symlink("file", at("link")).unwrap();
        nix::unistd::mkfifo(&at("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let _listening = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
        assert!(matches!(open(&at("file")).unwrap(), Opened::File(_)));
        assert!(matches!(open(&at("link")).unwrap(), Opened::File(_)));
        assert!(matches!(open(folder.path()).unwrap(), Opened::Directory(_)));
        assert!(matches!(open(&at("fifo")).unwrap(), Opened::Other(Odd::Fifo)));
        assert!(matches!(open(&at("socket")).unwrap(), Opened::Other(Odd::Socket)));
        assert!(matches!(open(Path::new("/dev/null")).unwrap(), Opened::Other(Odd::CharDevice)));
        assert_eq!(open(&at("none")).unwrap_err().kind(), io::ErrorKind::NotFound);
        assert!(open_file(&at("file")).is_ok() && open_file(&at("link")).is_ok());
        assert!(open_file(&at("fifo")).unwrap_err().to_string().contains("a FIFO"));
        assert!(open_file(folder.path()).unwrap_err().to_string().contains("a directory"));
    }
}
