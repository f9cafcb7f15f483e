//! A store in a directory: `<2 hex>/<64 hex>`, and for reading also `<64 hex>`.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use super::{BlockStore, StoreError};
use crate::atomic::TempFile;
use crate::block::MAX_STORED_LEN;
use crate::hash::BlockId;
use crate::regular;

/// Blocks in a local directory. Reading creates nothing; writing creates the directories it needs.
#[derive(Debug)]
pub struct DirStore {
    root: PathBuf,
    name: String,
}

impl DirStore {
    /// Makes the store. The directory need not exist yet.
    #[must_use]
    pub fn new(root: PathBuf) -> Self {
        let name = crate::url::redact(&format!("dir://{}", root.display()));
        Self { root, name }
    }

    fn read(&self, path: &Path, id: &BlockId) -> Result<Option<Vec<u8>>, StoreError> {
        let failed = |source| StoreError::Read { store: self.name.clone(), id: *id, source };
        let file = match regular::open_file(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        let mut stored = Vec::new();
        file.take(MAX_STORED_LEN as u64 + 1).read_to_end(&mut stored).map_err(failed)?;
        if stored.len() > MAX_STORED_LEN {
            return Err(StoreError::TooLarge { store: self.name.clone(), id: *id, limit: MAX_STORED_LEN });
        }
        Ok(Some(stored))
    }

    fn write(&self, id: &BlockId, stored: &[u8]) -> io::Result<()> {
        let folder = self.root.join(id.shard());
        let path = folder.join(id.to_hex());
        // Compare the content: a crash may have left a damaged copy under this name.
        if self.read(&path, id).is_ok_and(|present| present.is_some_and(|present| present == stored)) {
            return Ok(());
        }
        let mut temp = match TempFile::create_in(&folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                fs::create_dir_all(&folder)?;
                TempFile::create_in(&folder)?
            }
            other => other?,
        };
        temp.file().write_all(stored)?;
        temp.rename(&path)
    }
}

impl BlockStore for DirStore {
    fn get(&self, id: &BlockId) -> Result<Vec<u8>, StoreError> {
        let name = id.to_hex();
        for path in [self.root.join(id.shard()).join(&name), self.root.join(&name)] {
            if let Some(stored) = self.read(&path, id)? {
                return Ok(stored);
            }
        }
        if self.root.is_dir() {
            Err(StoreError::NotFound { store: self.name.clone(), id: *id })
        } else {
            Err(StoreError::NoStore { store: self.name.clone() })
        }
    }

    fn put(&self, id: &BlockId, stored: &[u8]) -> Result<(), StoreError> {
        self.write(id, stored).map_err(|source| StoreError::Write { store: self.name.clone(), id: *id, source })
    }

    fn flush(&self) -> Result<(), StoreError> {
        // One sync of the file system for all blocks: one for each would double the time of a pack.
        let synced = match File::open(&self.root) {
            Ok(root) => nix::unistd::syncfs(&root).map_err(io::Error::from),
            // No block was ever stored.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        };
        synced.map_err(|source| StoreError::Flush { store: self.name.clone(), source })
    }

    fn name(&self) -> &str {
        &self.name
    }
}
