//! The store on disk: one directory per container, with one file of the store in it.
//!
//! An intent has a name of its own, since it is not synced: a file system that allocates late may keep the name without the
//! content when the power is lost. One that cannot be decoded counts as none, as if its name had been lost too: nobody was told of
//! it. A record that cannot be decoded was, so that one is set aside.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use contd_durable::{
    DurableError, Fs, create_dirs_volatile, remove, remove_volatile, replace, replace_volatile, sweep_temps, sync_dirs,
};
use contd_types::{ContainerId, NamespaceId, StateName};
use serde::Deserialize;
use tracing::warn;

use crate::error::StoreError;
use crate::record::{ContainerRecord, RECORD_VERSION};
use crate::sequencer::{Sequencer, Slot, lock};
use crate::store::{Damaged, Loaded, Store};

const RECORD_FILE: &str = "record.json";
/// Counts while there is no record.
const INTENT_FILE: &str = "intent.json";

/// Larger than any record: a spec is at most 256 KiB of text, and JSON escapes some of it.
const MAX_RECORD_BYTES: u64 = 4 * 1024 * 1024;

/// How many damaged records of one container are kept beside each other.
const MAX_SET_ASIDE: u32 = 100;

/// Records as files, `<root>/<namespace>/<id>/record.json`, or `intent.json` before anybody was told of the container.
#[derive(Debug)]
pub struct DirStore {
    fs: Arc<dyn Fs>,
    root: PathBuf,
    sequencer: Sequencer,
}

impl DirStore {
    /// Opens a store, and makes its directory (0700) when it is absent.
    ///
    /// # Errors
    /// [`StoreError::Open`].
    pub fn open(fs: Arc<dyn Fs>, root: impl Into<PathBuf>) -> Result<Self, StoreError> {
        let root = root.into();
        let opened = fs.create_dir_all(&root, 0o700).and_then(|()| match root.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => fs.sync_dir(parent),
            _ => Ok(()),
        });
        match opened {
            Ok(()) => Ok(Self { fs, root, sequencer: Sequencer::default() }),
            Err(source) => Err(StoreError::Open { root, source }),
        }
    }

    /// Returns the directory of a container. Other crates keep files in it too.
    pub fn container_dir(&self, namespace: &NamespaceId, id: &ContainerId) -> PathBuf {
        self.root.join(namespace.as_str()).join(id.as_str())
    }

    /// Writes a record by the given steps, unless a later generation was written or the record was removed.
    fn write(
        &self,
        record: &ContainerRecord,
        steps: impl FnOnce(&dyn Fs, &Path, &Path, &[u8], &mut Slot) -> Result<(), DurableError>,
    ) -> Result<(), StoreError> {
        let (namespace, id) = (record.namespace.clone(), record.id.clone());
        let bytes = match serde_json::to_vec(record) {
            Ok(bytes) => bytes,
            Err(source) => return Err(StoreError::Encode { namespace, id, source }),
        };
        let key = (namespace.clone(), id.clone());
        let slot = self.sequencer.slot(&key);
        let mut slot = lock(&slot);
        if slot.is_removed {
            return Err(StoreError::Removed { namespace, id });
        }
        if record.generation < slot.generation {
            return Err(StoreError::Stale { namespace, id, given: record.generation, stored: slot.generation });
        }
        slot.generation = record.generation;
        let relative = Path::new(namespace.as_str()).join(id.as_str());
        let written = steps(self.fs.as_ref(), &self.root, &relative, &bytes, &mut slot);
        written.map_err(|source| StoreError::Write { namespace, id, source })
    }

    /// Reads the record, or the intent when there is none, and says which of the files it was.
    fn find(
        &self,
        namespace: &NamespaceId,
        id: &ContainerId,
    ) -> Result<Option<(ContainerRecord, &'static str)>, (&'static str, StoreError)> {
        let dir = self.container_dir(namespace, id);
        for file in [RECORD_FILE, INTENT_FILE] {
            let path = dir.join(file);
            let read = match self.fs.read(&path, MAX_RECORD_BYTES) {
                Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                    continue;
                }
                Err(source) => Err(StoreError::Read { path, source }),
                Ok(bytes) => decode(&path, &bytes, namespace, id),
            };
            match read {
                Ok(record) => return Ok(Some((record, file))),
                Err(StoreError::Decode { .. }) if file == INTENT_FILE => {}
                Err(why) => return Err((file, why)),
            }
        }
        Ok(None)
    }

    fn load_namespace(&self, namespace: &NamespaceId, loaded: &mut Loaded) {
        let dir = self.root.join(namespace.as_str());
        let names = match self.fs.list(&dir) {
            Ok(names) => names,
            // A file with a name like a namespace, for example the journal.
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => return,
            Err(source) => {
                let why = StoreError::List { path: dir.clone(), source };
                return loaded.damaged.push(Damaged { path: dir, set_aside: None, why });
            }
        };
        for name in names {
            if let Some(id) = name.to_str().and_then(|name| ContainerId::new(name).ok()) {
                self.load_container(namespace, &id, loaded);
            }
        }
        self.drop_if_empty(&dir);
    }

    fn load_container(&self, namespace: &NamespaceId, id: &ContainerId, loaded: &mut Loaded) {
        let dir = self.container_dir(namespace, id);
        if let Err(error) = sweep_temps(self.fs.as_ref(), &dir) {
            warn!(dir = %dir.display(), error = &error as &dyn std::error::Error, "temp files not removed");
        }
        match self.find(namespace, id) {
            Ok(Some((record, file))) => {
                let key = (namespace.clone(), id.clone());
                lock(&self.sequencer.slot(&key)).is_intent_gone = file == RECORD_FILE && self.drop_intent(&dir);
                loaded.records.push(record);
            }
            Ok(None) => {
                self.drop_intent(&dir);
                self.drop_if_empty(&dir);
            }
            Err((file, why)) => {
                let path = dir.join(file);
                let set_aside = if why.is_damage() { self.set_aside(&path) } else { None };
                loaded.damaged.push(Damaged { path, set_aside, why });
            }
        }
    }

    /// Removes an intent that counts no more; tells whether it is gone. A failure does no harm: a record goes before it, and the next
    /// start tries again.
    fn drop_intent(&self, dir: &Path) -> bool {
        let removed = remove_volatile(self.fs.as_ref(), &dir.join(INTENT_FILE));
        if let Err(error) = &removed {
            warn!(error = error as &dyn std::error::Error, "intent not removed");
        }
        removed.is_ok()
    }

    /// Removes an empty directory. A failure does no harm: the next start tries again.
    fn drop_if_empty(&self, dir: &Path) {
        match self.fs.remove_dir(dir) {
            Ok(()) => {}
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::DirectoryNotEmpty) => {}
            Err(error) => warn!(dir = %dir.display(), %error, "empty directory not removed"),
        }
    }

    /// Gives a damaged record another name, so that it is neither read again nor lost.
    fn set_aside(&self, path: &Path) -> Option<PathBuf> {
        for number in 1..=MAX_SET_ASIDE {
            let aside = path.with_file_name(format!("{RECORD_FILE}.damaged-{number}"));
            match self.fs.exists(&aside) {
                Ok(true) => {}
                Ok(false) => {
                    let moved = self.fs.rename(path, &aside).and_then(|()| match path.parent() {
                        Some(dir) => self.fs.sync_dir(dir),
                        None => Ok(()),
                    });
                    if let Err(error) = moved {
                        warn!(path = %path.display(), %error, "damaged record not set aside");
                    }
                    return self.fs.exists(&aside).unwrap_or(false).then_some(aside);
                }
                Err(_) => return None,
            }
        }
        None
    }
}

impl Store for DirStore {
    fn put(&self, record: &ContainerRecord) -> Result<(), StoreError> {
        self.write(record, |fs, root, relative, bytes, slot| {
            slot.is_removal_announced = false;
            let dir = root.join(relative);
            let had_directory = std::mem::take(&mut slot.has_directory);
            if !had_directory {
                create_dirs_volatile(fs, root, relative, 0o700)?;
            }
            replace(fs, &dir.join(RECORD_FILE), bytes, 0o600)?;
            if !had_directory {
                // The file was synced first: the file system has committed the new directories with it, and syncing them
                // costs nothing.
                sync_dirs(fs, root, relative)?;
            }
            slot.has_directory = true;
            slot.is_intent_gone = slot.is_intent_gone || self.drop_intent(&dir);
            slot.is_removal_announced = record.state.name() == StateName::Deleting;
            Ok(())
        })
    }

    fn put_intent(&self, record: &ContainerRecord) -> Result<(), StoreError> {
        self.write(record, |fs, root, relative, bytes, slot| {
            (slot.has_directory, slot.is_intent_gone) = (false, false);
            create_dirs_volatile(fs, root, relative, 0o700)?;
            replace_volatile(fs, &root.join(relative).join(INTENT_FILE), bytes, 0o600)
        })
    }

    fn remove(&self, namespace: &NamespaceId, id: &ContainerId) -> Result<(), StoreError> {
        let failed = |source| StoreError::Remove { namespace: namespace.clone(), id: id.clone(), source };
        let key = (namespace.clone(), id.clone());
        let slot = self.sequencer.slot(&key);
        let mut slot = lock(&slot);
        let fs = self.fs.as_ref();
        let dir = self.container_dir(namespace, id);
        let path = dir.join(RECORD_FILE);
        // Before the record, which goes before it while it is there.
        if !slot.is_intent_gone {
            remove_volatile(fs, &dir.join(INTENT_FILE)).map_err(failed)?;
        }
        if slot.is_removal_announced {
            // No sync: if a power loss brings the record back, its state is `Deleting`, and the deletion is finished
            // then.
            remove_volatile(fs, &path).map_err(failed)?;
        } else {
            remove(fs, &path).map_err(failed)?;
        }
        sweep_temps(fs, &dir).map_err(failed)?;
        // The record's removal is durable. An empty directory may come back after a power loss; it does no harm.
        self.drop_if_empty(&dir);
        slot.has_directory = false;
        if !std::mem::replace(&mut slot.is_removed, true) {
            self.sequencer.note_removed(&key);
        }
        Ok(())
    }

    fn get(&self, namespace: &NamespaceId, id: &ContainerId) -> Result<Option<ContainerRecord>, StoreError> {
        self.find(namespace, id).map(|found| found.map(|(record, _)| record)).map_err(|(_, why)| why)
    }

    fn load_all(&self) -> Result<Loaded, StoreError> {
        let names = self.fs.list(&self.root).map_err(|source| StoreError::List { path: self.root.clone(), source })?;
        let mut loaded = Loaded::default();
        for name in names {
            if let Some(namespace) = name.to_str().and_then(|name| NamespaceId::new(name).ok()) {
                self.load_namespace(&namespace, &mut loaded);
            }
        }
        loaded.records.sort_by(|a, b| (&a.namespace, &a.id).cmp(&(&b.namespace, &b.id)));
        Ok(loaded)
    }
}

fn decode(path: &Path, bytes: &[u8], namespace: &NamespaceId, id: &ContainerId) -> Result<ContainerRecord, StoreError> {
    #[derive(Deserialize)]
    struct OnlyVersion {
        version: u32,
    }
    let failed = |source| StoreError::Decode { path: path.to_owned(), source };
    // Decode the version alone first: the other fields of a newer version may not decode.
    let OnlyVersion { version: found } = serde_json::from_slice(bytes).map_err(failed)?;
    if found > RECORD_VERSION {
        return Err(StoreError::NewerVersion { path: path.to_owned(), found });
    }
    let record: ContainerRecord = serde_json::from_slice(bytes).map_err(failed)?;
    if record.namespace == *namespace && record.id == *id {
        Ok(record)
    } else {
        Err(StoreError::Misfiled { path: path.to_owned(), namespace: record.namespace, id: record.id })
    }
}
