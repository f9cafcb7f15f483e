//! The boundary to a store of records, on disk or in memory.

use std::fmt::Debug;
use std::path::PathBuf;

use contd_types::{ContainerId, NamespaceId};

use crate::error::StoreError;
use crate::record::ContainerRecord;

/// Keeps the records of all containers. All calls block; calls for different containers do not wait for each other.
pub trait Store: Send + Sync + Debug {
    /// Writes a record durably in place of the older one. Repeating the same generation is allowed.
    ///
    /// # Errors
    /// [`StoreError::Stale`] and [`StoreError::Removed`] when a later call came first; otherwise the old or the new
    /// record is stored, and the call may be repeated.
    fn put(&self, record: &ContainerRecord) -> Result<(), StoreError>;

    /// Writes the first record of a container that no caller was told of yet. It survives the death of any process; a
    /// power loss may lose it, together with everything that it announces.
    ///
    /// # Errors
    /// As [`Self::put`].
    fn put_intent(&self, record: &ContainerRecord) -> Result<(), StoreError> {
        self.put(record)
    }

    /// Removes a record so that it stays removed. An absent record is no error.
    ///
    /// # Errors
    /// [`StoreError::Remove`]; the call may be repeated.
    fn remove(&self, namespace: &NamespaceId, id: &ContainerId) -> Result<(), StoreError>;

    /// Reads one record; `None` when there is none.
    ///
    /// # Errors
    /// The reason why it could not be read or decoded.
    fn get(&self, namespace: &NamespaceId, id: &ContainerId) -> Result<Option<ContainerRecord>, StoreError>;

    /// Reads all records, sorted by namespace and id, and cleans up what a crash left. Only legal at start, before any
    /// other call.
    ///
    /// # Errors
    /// Only when nothing can be read at all; the error of one record is in [`Loaded::damaged`].
    fn load_all(&self) -> Result<Loaded, StoreError>;
}

/// The result of [`Store::load_all`].
#[derive(Debug, Default)]
pub struct Loaded {
    /// The records.
    pub records: Vec<ContainerRecord>,
    /// The records and directories that could not be read.
    pub damaged: Vec<Damaged>,
}

/// A record, or a directory of records, that could not be read.
#[derive(Debug)]
pub struct Damaged {
    /// The path it was found at.
    pub path: PathBuf,
    /// The path it was moved to; `None` when it was left in place, because the disk and not the content failed, or
    /// because it could not be moved.
    pub set_aside: Option<PathBuf>,
    /// The error.
    pub why: StoreError,
}
