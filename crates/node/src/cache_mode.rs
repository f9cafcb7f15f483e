//! The root of the cache is closed to others: what is in it was fetched with the rights of the node, for any of its namespaces.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use tracing::warn;

use crate::assembly::FILTERS_DIR;

/// Only the daemon's own user enters it.
const CLOSED: u32 = 0o700;

/// The entries at the top of a cache (docs/flist-cache.md); names with a dot are temporary files.
const OWN: [&str; 6] = ["blocks", "files", "fl", "turns", "usage", FILTERS_DIR];

/// Corrects the mode of a cache root that was there before, with another one. A directory that holds what is no cache is
/// another's, by a mistake in the configuration: it is told of, and left as it is.
pub(crate) fn close(root: &Path) {
    match correct(root) {
        Ok(None) => {}
        Ok(Some((mode, true))) => {
            warn!(dir = %root.display(), mode = %format!("{mode:04o}"), "cache directory was open to others, closed it");
        }
        Ok(Some((mode, false))) => warn!(
            dir = %root.display(),
            mode = %format!("{mode:04o}"),
            "cache directory is open to others and holds other things, left as it is: give the cache one of its own"
        ),
        Err(error) => warn!(dir = %root.display(), %error, "cannot close the cache directory to others"),
    }
}

/// Gives the mode that was wrong, and whether it was corrected.
fn correct(root: &Path) -> io::Result<Option<(u32, bool)>> {
    let metadata = fs::metadata(root)?;
    let mode = metadata.mode() & 0o7777;
    if mode & !CLOSED == 0 {
        return Ok(None);
    }
    for entry in fs::read_dir(root)? {
        let name = entry?.file_name();
        if !name.to_string_lossy().starts_with('.') && !OWN.iter().any(|own| name == *own) {
            return Ok(Some((mode, false)));
        }
    }
    fs::set_permissions(root, Permissions::from_mode(CLOSED))?;
    Ok(Some((mode, true)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cache_is_closed_and_a_directory_of_others_is_left_alone() {
        let folder = tempfile::tempdir().expect("temporary directory");
        let root = folder.path().join("cache");
        let mode = || fs::metadata(&root).expect("there").mode() & 0o7777;
        for dir in ["fl", FILTERS_DIR] {
            fs::create_dir_all(root.join(dir)).expect("made");
        }
        for file in ["usage", "turns", ".tmp-1-1"] {
            fs::write(root.join(file), "").expect("written");
        }
        for open in [0o755, 0o770, 0o1777] {
            fs::set_permissions(&root, Permissions::from_mode(open)).expect("set");
            assert_eq!(correct(&root).expect("read"), Some((open, true)));
            assert_eq!(mode(), CLOSED);
        }
        // A stricter one is the operator's wish.
        fs::set_permissions(&root, Permissions::from_mode(0o500)).expect("set");
        assert_eq!((correct(&root).expect("read"), mode()), (None, 0o500));
        fs::set_permissions(&root, Permissions::from_mode(0o755)).expect("set");
        fs::create_dir(root.join("man")).expect("made");
        assert_eq!((correct(&root).expect("read"), mode()), (Some((0o755, false)), 0o755));
    }
}
