//! How the images of flists are run, read once for each flist: starting the hundredth container of one must not open it a
//! hundredth time.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use contd_flist::ImageDefaults;

use crate::provider::RootfsError;

/// How many are remembered: far more flists than a node has in use. Above it all are forgotten, which costs a read each.
const MAX_KNOWN: usize = 4096;

/// By the hash of the flist, so that nothing is ever out of date.
#[derive(Debug, Default)]
pub(crate) struct Images(Mutex<HashMap<String, ImageDefaults>>);

impl Images {
    /// Gives what is known of the flist of this hash; otherwise reads it. A failure is not remembered.
    pub(crate) fn get(
        &self,
        hash: &str,
        read: impl FnOnce() -> Result<ImageDefaults, RootfsError>,
    ) -> Result<ImageDefaults, RootfsError> {
        if let Some(known) = self.known().get(hash) {
            return Ok(known.clone());
        }
        // Without the lock: a slow disk keeps only those who want this flist.
        let image = read()?;
        let mut known = self.known();
        if known.len() >= MAX_KNOWN {
            known.clear();
        }
        known.insert(hash.to_owned(), image.clone());
        Ok(image)
    }

    fn known(&self) -> MutexGuard<'_, HashMap<String, ImageDefaults>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_flist_is_read_once_and_again_only_after_a_failure() {
        let (images, mut reads) = (Images::default(), 0);
        let failure = || RootfsError::ServerSilent { flist: "a".to_owned(), waited: Duration::ZERO };
        assert!(images.get("a", || Err(failure())).is_err());
        for _ in 0..3 {
            let read = || {
                reads += 1;
                Ok(ImageDefaults::default())
            };
            assert_eq!(images.get("a", read).unwrap(), ImageDefaults::default());
        }
        assert_eq!(reads, 1);
        assert!(images.get("b", || Err(failure())).is_err(), "another flist is none of its business");
    }
}
