//! Terminals, by a descriptor of either end.

use std::io;
use std::os::fd::AsFd;

use rustix::termios::{Winsize, tcsetwinsize};

/// Gives a terminal a size in characters; the processes in its foreground hear of it (SIGWINCH).
///
/// # Errors
/// The system's: it is no terminal, or is gone.
pub fn resize(fd: impl AsFd, rows: u16, columns: u16) -> io::Result<()> {
    Ok(tcsetwinsize(fd, Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 })?)
}
