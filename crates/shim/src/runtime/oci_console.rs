//! The socket by which an OCI runtime gives the master of a terminal away (`--console-socket`).

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

/// Runtimes send the terminal's name with it.
const MAX_NAME_BYTES: usize = 4096;

/// A socket that waits for a master. Its file goes with it.
#[derive(Debug)]
pub(super) struct ConsoleSocket {
    path: PathBuf,
    listener: UnixListener,
}

impl ConsoleSocket {
    /// Listens at a path; a socket that a predecessor left there is replaced.
    pub(super) fn listen(path: PathBuf) -> io::Result<Self> {
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(&path)?;
        // A runtime may have ended without a word: it is not waited for.
        listener.set_nonblocking(true)?;
        Ok(Self { path, listener })
    }

    /// Returns where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Takes the master, which the runtime has sent before it ended.
    pub(super) fn take_master(&self) -> io::Result<OwnedFd> {
        let (stream, _) = self.listener.accept()?;
        let (mut name, mut fds) = ([0; MAX_NAME_BYTES], Vec::new());
        contd_descriptors::receive(&stream, &mut name, &mut fds)?;
        fds.into_iter().next().ok_or_else(|| io::ErrorKind::InvalidData.into())
    }
}

impl Drop for ConsoleSocket {
    fn drop(&mut self) {
        // It goes with the lease directory at the latest.
        let _gone_already = fs::remove_file(&self.path);
    }
}
