//! The logs of removed containers, kept for a while: `<ns>/.removed/<name>.<id>.log`, with their rotated files.

use std::ffi::OsString;
use std::io;

use crate::error::LogError;
use crate::files::{LogFiles, rename_to_free};
use crate::stored::LOG;

/// The directory of these logs in their namespace's. No name of a container or namespace begins with a dot.
pub(crate) const REMOVED_DIR: &str = ".removed";
/// How many digits of a container's id are in the name: as many as people are shown.
const ID_DIGITS: usize = 12;

impl LogFiles {
    /// Moves the log and its rotated files to the logs of removed containers, and returns how many bytes they take. An
    /// empty log is removed.
    ///
    /// # Errors
    /// [`LogError`]; it may be repeated, or [`Self::remove`] may be called instead.
    pub fn keep(&self) -> Result<u64, LogError> {
        let Some(dir) = self.open_own_dir()? else { return Ok(0) };
        let files = self.own_files(&dir)?;
        let bytes = files.iter().map(|own| own.bytes).sum();
        let Some(owner) = self.owner().filter(|_| bytes > 0) else {
            self.remove()?;
            return Ok(0);
        };
        let name = self.aged(0);
        let stem = name.to_string_lossy();
        let stem = stem.strip_suffix(LOG).unwrap_or(&stem);
        let short = owner.get(..ID_DIGITS).unwrap_or(owner);
        let place = self.in_dir(self.dir().join(REMOVED_DIR), OsString::new());
        let to = place.make_dir()?;
        for own in files {
            self.mark(&own.name, &own.file)?;
            let kept = OsString::from(format!("{stem}.{short}{LOG}{}", own.suffix));
            match rename_to_free((&dir, &own.name), (&to, &kept)) {
                Ok(()) => {}
                // The file was removed meanwhile.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(source) => return Err(LogError::Remove { path: self.path_of(&own.name), source }),
            }
        }
        Ok(bytes)
    }
}
