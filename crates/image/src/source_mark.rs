//! Marks an output with its source, so that a repeated import updates it instead of refusing to replace it.
//!
//! The mark is an extended attribute of the output, because the bytes of a flist depend on the image alone. A copy or a
//! change of the file loses the mark. On file systems without such attributes each output counts as made of another source.

use std::fs::{self, OpenOptions};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use rustix::fs::{XattrFlags, fgetxattr, fsetxattr};

use contd_flist::hash::{HASH_LEN, blake2b_256};

const ATTRIBUTE: &str = "user.contd.source";

/// Returns the mark of a source: the hash of its path, which keeps the path itself private.
fn mark(source: &Path) -> Option<[u8; HASH_LEN]> {
    Some(blake2b_256(fs::canonicalize(source).ok()?.as_os_str().as_bytes()))
}

/// Tells whether `out` was made from `source`.
pub(super) fn matches(out: &Path, source: &Path) -> bool {
    let flags = nix::libc::O_NOFOLLOW | nix::libc::O_NONBLOCK;
    let Ok(file) = OpenOptions::new().read(true).custom_flags(flags).open(out) else { return false };
    let mut found = [0; HASH_LEN];
    let read = fgetxattr(&file, ATTRIBUTE, &mut found);
    file.metadata().is_ok_and(|metadata| metadata.is_file())
        && read.is_ok_and(|len| len == HASH_LEN)
        && mark(source).is_some_and(|expected| expected == found)
}

/// Marks `out` as made from `source`. Without the mark the next import asks for `--force`.
pub(super) fn set(out: &Path, source: &Path) {
    let Some(mark) = mark(source) else { return };
    let opened = OpenOptions::new().read(true).custom_flags(nix::libc::O_NOFOLLOW | nix::libc::O_NONBLOCK).open(out);
    if let Err(error) = opened.and_then(|file| Ok(fsetxattr(&file, ATTRIBUTE, &mark, XattrFlags::empty())?)) {
        tracing::debug!(%error, out = %out.display(), "source of flist not noted");
    }
}
