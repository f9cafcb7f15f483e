//! The way of a fuzzer to what reads files that another process left. Feature `testing`.

use std::io;
use std::path::PathBuf;

use contd_logs::Position;
use contd_types::Timestamp;

use crate::spool::Spool;

/// Opens a spool as a successor does, and gives out what it would write to the log.
///
/// # Errors
/// The disk's error.
pub fn drain_spool(path: PathBuf) -> io::Result<Vec<u8>> {
    let mut spool = Spool::open(path)?;
    let (mut all, mut buffer) = (Vec::new(), Vec::new());
    while spool.has_waiting() {
        spool.read(&mut buffer)?;
        all.extend_from_slice(&buffer);
        if spool.unfinished().is_none() {
            spool.note(Timestamp(0), Position { device: 0, inode: 0, offset: 0, begins_anew: false })?;
        }
        spool.finish()?;
    }
    Ok(all)
}
