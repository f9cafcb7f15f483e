//! Whether an output is there because the same source was imported to it before: then it is brought up to date, not replaced.
//!
//! The mark is an extended attribute of the output, since its bytes are those of the image alone. It is lost with every
//! copy and change; where a file system has no such attributes, the output just counts as another's.

use std::fs::{self, OpenOptions};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use rustix::fs::{XattrFlags, fgetxattr, fsetxattr};

use contd_flist::hash::{HASH_LEN, blake2b_256};

const ATTRIBUTE: &str = "user.contd.source";

/// The mark of a source: the hash of its path. A path may be nobody else's business.
fn mark(source: &Path) -> Option<[u8; HASH_LEN]> {
    Some(blake2b_256(fs::canonicalize(source).ok()?.as_os_str().as_bytes()))
}

/// Tells whether `out` was made of `source`.
pub(super) fn is_made_of(out: &Path, source: &Path) -> bool {
    let flags = nix::libc::O_NOFOLLOW | nix::libc::O_NONBLOCK;
    let Ok(file) = OpenOptions::new().read(true).custom_flags(flags).open(out) else { return false };
    let mut found = [0; HASH_LEN];
    let read = fgetxattr(&file, ATTRIBUTE, &mut found);
    file.metadata().is_ok_and(|metadata| metadata.is_file())
        && read.is_ok_and(|len| len == HASH_LEN)
        && mark(source).is_some_and(|expected| expected == found)
}

/// Marks `out` as made of `source`. Without the mark the next import asks for `--force`.
pub(super) fn note(out: &Path, source: &Path) {
    let Some(mark) = mark(source) else { return };
    let opened = OpenOptions::new().read(true).custom_flags(nix::libc::O_NOFOLLOW | nix::libc::O_NONBLOCK).open(out);
    if let Err(error) = opened.and_then(|file| Ok(fsetxattr(&file, ATTRIBUTE, &mark, XattrFlags::empty())?)) {
        tracing::debug!(%error, out = %out.display(), "the source of a flist could not be noted");
    }
}
