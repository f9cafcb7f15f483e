//! The container's standard input: a FIFO, which callers write into themselves.
//!
//! ```text
//! attached callers ──┐
//! daemon ────────────┼── writing ends ──► FIFO ──► descriptor 0 of the container, or its terminal ([`crate::console`])
//! this process ──────┘
//! ```
//!
//! As long as one of the writing ends is open the container does not read the end, and the bytes in the pipe stay. So neither our
//! death nor the daemon's ends its input. Closing it removes the FIFO first: from then on nobody can open it, also not a successor.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use contd_protocol::shim::files;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::stat::Mode;

/// The standard input of a container.
#[derive(Debug)]
pub(crate) struct Input {
    path: PathBuf,
    /// Keeps it from its end: a writing end, for a terminal both, since nobody else reads that.
    held: Option<File>,
}

impl Input {
    /// Makes the FIFO for a new container; whoever still has that of an earlier one does not reach this one. Returns the reading
    /// end too, which blocks.
    pub(crate) fn make(dir: &Path, has_terminal: bool) -> io::Result<(Self, File)> {
        let path = dir.join(files::STDIN);
        remove(&path)?;
        nix::unistd::mkfifo(&path, Mode::S_IRUSR | Mode::S_IWUSR)?;
        let reader = open_reader(&path)?;
        let held = hold(&path, has_terminal)?;
        fcntl(&reader, FcntlArg::F_SETFL(OFlag::empty()))?;
        Ok((Self { path, held: Some(held) }, reader))
    }

    /// Takes over what a predecessor has made; `None` when it was closed.
    pub(crate) fn adopt(dir: &Path, has_terminal: bool) -> io::Result<Option<Self>> {
        let path = dir.join(files::STDIN);
        match hold(&path, has_terminal) {
            Ok(held) => Ok(Some(Self { path, held: Some(held) })),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            // The container has closed its end: nobody reads any more.
            Err(error) if error.raw_os_error() == Some(nix::libc::ENXIO) => Ok(Some(Self { path, held: None })),
            Err(error) => Err(error),
        }
    }

    /// Lets the container read the end once all others have let go.
    pub(crate) fn close(&mut self) -> io::Result<()> {
        remove(&self.path)?;
        self.held = None;
        Ok(())
    }
}

/// Removes the FIFO of a container that is gone.
pub(crate) fn remove_from(dir: &Path) -> io::Result<()> {
    remove(&dir.join(files::STDIN))
}

/// Opens the reading end; it does not block.
pub(crate) fn open_reader(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(flags()).open(path)
}

fn hold(path: &Path, has_terminal: bool) -> io::Result<File> {
    OpenOptions::new().read(has_terminal).write(true).custom_flags(flags()).open(path)
}

fn flags() -> i32 {
    OFlag::O_NONBLOCK.bits() | OFlag::O_NOFOLLOW.bits()
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};

    #[test]
    fn the_end_is_read_once_all_writers_have_let_go_and_a_successor_keeps_it_off() {
        let dir = tempfile::tempdir().expect("scratch");
        let (mut first, mut reader) = Input::make(dir.path(), false).expect("a FIFO");
        let mut caller = hold(&dir.path().join(files::STDIN), false).expect("it is open");
        caller.write_all(b"one\n").expect("room");
        let second = Input::adopt(dir.path(), false).expect("there").expect("open");
        drop(first.held.take());
        drop(caller);
        let mut bytes = [0; 16];
        assert_eq!(reader.read(&mut bytes).expect("what was written"), 4);
        fcntl(&reader, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).expect("set");
        assert_eq!(reader.read(&mut bytes).expect_err("no end yet").kind(), io::ErrorKind::WouldBlock);
        let mut second = second;
        second.close().expect("removed");
        assert_eq!(reader.read(&mut bytes).expect("the end"), 0);
        assert!(Input::adopt(dir.path(), false).expect("no error").is_none(), "it stays closed");
    }

    #[test]
    fn a_new_container_does_not_read_what_was_for_the_one_before() {
        let dir = tempfile::tempdir().expect("scratch");
        let (_first, _reader) = Input::make(dir.path(), false).expect("a FIFO");
        let mut late = hold(&dir.path().join(files::STDIN), false).expect("it is open");
        let (mut second, mut reader) = Input::make(dir.path(), false).expect("another FIFO");
        late.write_all(b"for the first\n").expect("room");
        second.close().expect("removed");
        assert_eq!(reader.read(&mut [0; 16]).expect("the end"), 0);
    }
}
