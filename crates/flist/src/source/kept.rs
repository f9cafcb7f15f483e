//! Flists in the cache: protects one from eviction until its server has it, and notes its origin.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::thread;
use std::time::Duration;

use crate::atomic::TempFile;
use crate::cache::{NAME_SUFFIX, name_of, note_use};

/// The most tries for the lock: eviction holds a flist for microseconds, and was stopped if it takes longer.
const MAX_TRIES: u32 = 20;
const PAUSE: Duration = Duration::from_millis(1);

/// Notes a use of a cached flist, which protects it from eviction for some minutes. `false` if it does not exist, or is
/// being evicted.
pub(super) fn claim(path: &Path) -> bool {
    let flags = nix::libc::O_NOFOLLOW | nix::libc::O_NONBLOCK;
    let Ok(file) = OpenOptions::new().read(true).custom_flags(flags).open(path) else { return false };
    if !lock_shared(&file) || !file.metadata().is_ok_and(|metadata| metadata.nlink() > 0) {
        return false;
    }
    note_use(&file);
    // Unlock explicitly: a child process that is being started has a copy of the descriptor until its exec.
    let _closed_anyway = file.unlock();
    true
}

fn lock_shared(file: &File) -> bool {
    (0..MAX_TRIES).any(|_| file.try_lock_shared().inspect_err(|_| thread::sleep(PAUSE)).is_ok())
}

/// Notes the origin of a flist, for display. `shown` has no password.
pub(super) fn note_name(flist: &Path, shown: &str) {
    if name_of(flist).is_some_and(|name| name == shown) {
        return;
    }
    if let Err(error) = write_name(flist, shown) {
        tracing::debug!(%error, flist = %flist.display(), "flist name not noted");
    }
}

fn write_name(flist: &Path, shown: &str) -> io::Result<()> {
    let folder = flist.parent().unwrap_or(Path::new("/"));
    let mut temp = TempFile::create_in(folder)?;
    temp.file().write_all(shown.as_bytes())?;
    temp.rename(&flist.with_extension(NAME_SUFFIX))
}

/// Returns the size of a flist in bytes; 0 if it does not exist.
pub(super) fn size(flist: &Path) -> u64 {
    fs::symlink_metadata(flist).map_or(0, |metadata| metadata.len())
}
