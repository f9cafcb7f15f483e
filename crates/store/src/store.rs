//! The boundary: what a store of records does, whatever it is made of.

use std::fmt::Debug;
use std::path::PathBuf;

use contd_types::{ContainerId, NamespaceId};

use crate::error::StoreError;
use crate::record::ContainerRecord;

/// Keeps the records of all containers. All calls block; calls for different containers do not wait for each other.
pub trait Store: Send + Sync + Debug {
    /// Writes a record, durably, in the place of the older one. A repetition of the same generation is fine.
    ///
    /// # Errors
    /// [`StoreError::Stale`] and [`StoreError::Removed`] when a later call was faster; otherwise the old or the new
    /// record stands, and the call may be repeated.
    fn put(&self, record: &ContainerRecord) -> Result<(), StoreError>;

    /// Writes the first record of a container that nobody was told of yet. It is there after the death of any process; a
    /// power loss may take it, with all that it announces.
    ///
    /// # Errors
    /// As [`Self::put`].
    fn put_intent(&self, record: &ContainerRecord) -> Result<(), StoreError> {
        self.put(record)
    }

    /// Removes a record so that it stays removed. It is fine when there is none.
    ///
    /// # Errors
    /// [`StoreError::Remove`]; the call may be repeated.
    fn remove(&self, namespace: &NamespaceId, id: &ContainerId) -> Result<(), StoreError>;

    /// Reads one record; `None` when there is none.
    ///
    /// # Errors
    /// Why it could not be read or understood.
    fn get(&self, namespace: &NamespaceId, id: &ContainerId) -> Result<Option<ContainerRecord>, StoreError>;

    /// Reads all records, sorted by namespace and id, and cleans up what a crash left. Only legal at start, before any
    /// other call.
    ///
    /// # Errors
    /// Only when nothing can be read at all: what is wrong with one record stands in [`Loaded::damaged`].
    fn load_all(&self) -> Result<Loaded, StoreError>;
}

/// What was found at start.
#[derive(Debug, Default)]
pub struct Loaded {
    /// The records.
    pub records: Vec<ContainerRecord>,
    /// What could not be read.
    pub damaged: Vec<Damaged>,
}

/// A record, or a directory of records, that could not be read.
#[derive(Debug)]
pub struct Damaged {
    /// Where it was.
    pub path: PathBuf,
    /// Where it is now; `None` when it stayed, because the disk and not the content is at fault, or did not let it go.
    pub set_aside: Option<PathBuf>,
    /// Why.
    pub why: StoreError,
}
