//! Reads and writes records in threads: one write of a container after the other, by its latest actor only.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use contd_store::{ContainerRecord, Loaded, Store, StoreError};
use contd_types::{ContainerId, ContainerInfo, ErrorKind, Explain, NamespaceId, State};

use crate::locks::ContainerLocks;
use crate::pool::{JobLost, Pool};

/// Writes at once; each is half a millisecond of fsync, and a disk gains nothing from more.
const THREADS: usize = 16;
/// How long a write may take: a disk that is slower than this is broken, and a caller waits.
const RECORD_TIMEOUT: Duration = Duration::from_secs(15);

/// Why a record could not be written, read or removed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RecordError {
    #[error(transparent)]
    Store(StoreError),
    #[error(transparent)]
    Job(JobLost),
    /// A later actor of the container writes now.
    #[error("write the record of container {id}: its actor was replaced")]
    Replaced { id: ContainerId },
    /// The node has come to rest; records are its successor's.
    #[error("write the record of container {id}: the node has ended")]
    Ended { id: ContainerId },
    #[error("reach the record of container {id}: the store did not answer within {waited:?}")]
    Deadline { id: ContainerId, waited: Duration },
}

impl RecordError {
    /// Tells whether the node has ended, which is no failure: its successor does what is to be done.
    pub(crate) fn is_end_of_node(&self) -> bool {
        matches!(self, Self::Ended { .. })
    }
}

impl Explain for RecordError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Store(source) => source.kind(),
            Self::Job(source) => source.kind(),
            Self::Replaced { .. } | Self::Ended { .. } => ErrorKind::Unavailable,
            Self::Deadline { .. } => ErrorKind::Timeout,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Store(source) => source.hint(),
            Self::Job(source) => source.hint(),
            Self::Replaced { .. } | Self::Ended { .. } => Some("retry".to_owned()),
            Self::Deadline { .. } => Some("look at the disk of the state directory".to_owned()),
        }
    }
}

/// Makes what is shown of a container of what is stored of it. Its state may be newer.
pub(crate) fn info_of(record: &ContainerRecord, state: State) -> ContainerInfo {
    let (id, namespace) = (record.id.clone(), record.namespace.clone());
    let mut info = ContainerInfo::new(id, namespace, record.complete_spec(), state, record.created_at);
    info.started_at = record.started_at;
    info.finished_at = record.finished_at;
    info.last_exit.clone_from(&record.exit);
    info.restart_count = record.restart_count;
    info.log_path = record.log_path.to_string_lossy().into_owned();
    info.in_force.clone_from(&record.in_force);
    info
}

/// Makes what is shown of a container that is found in the store, until its actor knows better.
pub(crate) fn found_info(record: &ContainerRecord) -> ContainerInfo {
    info_of(record, if record.state.may_have_shim() { State::Recovering } else { record.state.clone() })
}

/// The store, as actors use it.
#[derive(Debug, Clone)]
pub(crate) struct Records {
    store: Arc<dyn Store>,
    pool: Pool,
    has_ended: Arc<AtomicBool>,
}

impl Records {
    pub(crate) fn new(store: Arc<dyn Store>) -> Self {
        Self { store, pool: Pool::new(THREADS), has_ended: Arc::default() }
    }

    /// Lets nothing be written or removed any more, and waits for what has begun: from then on the records are the next
    /// node's, also while actors of this one still end.
    pub(crate) async fn end(&self) {
        self.has_ended.store(true, Ordering::SeqCst);
        self.pool.come_to_rest(THREADS).await;
    }

    /// Reads everything; only at the start.
    pub(crate) async fn load_all(&self) -> Result<Loaded, RecordError> {
        let store = Arc::clone(&self.store);
        let loaded = self.pool.run("load all records", move || store.load_all()).await.map_err(RecordError::Job)?;
        loaded.map_err(RecordError::Store)
    }

    /// Reads one record, behind every write of it that has begun: also one that nobody waits for any more.
    pub(crate) async fn get(
        &self,
        locks: &ContainerLocks,
        namespace: NamespaceId,
        id: ContainerId,
    ) -> Result<Option<ContainerRecord>, RecordError> {
        let (store, lost) = (Arc::clone(&self.store), id.clone());
        let read = move || store.get(&namespace, &id).map_err(RecordError::Store);
        let work = self.pool.run_locked(&locks.record, "read a record", read);
        bounded(lost, work).await
    }

    /// Prepares a write; `writer` is the number of the actor.
    pub(crate) fn write_of(&self, locks: &Arc<ContainerLocks>, writer: u64, record: ContainerRecord) -> RecordWrite {
        let (store, has_ended) = (Arc::clone(&self.store), Arc::clone(&self.has_ended));
        RecordWrite { store, has_ended, locks: Arc::clone(locks), writer, record: Arc::new(record) }
    }

    /// Writes a record.
    pub(crate) async fn write(&self, write: RecordWrite) -> Result<(), RecordError> {
        let (lock, id) = (Arc::clone(&write.locks.record), write.record.id.clone());
        let work = self.pool.run_locked(&lock, "write a record", move || write.run());
        match tokio::time::timeout(RECORD_TIMEOUT, work).await {
            Ok(done) => done.map_err(RecordError::Job)?,
            Err(_elapsed) => Err(RecordError::Deadline { id, waited: RECORD_TIMEOUT }),
        }
    }

    /// Removes a record; the last thing that is done to a container.
    pub(crate) async fn remove(
        &self,
        locks: Arc<ContainerLocks>,
        namespace: NamespaceId,
        id: ContainerId,
    ) -> Result<(), RecordError> {
        let (store, has_ended, lost) = (Arc::clone(&self.store), Arc::clone(&self.has_ended), id.clone());
        let lock = Arc::clone(&locks.record);
        let work = self.pool.run_locked(&lock, "remove a record", move || {
            if has_ended.load(Ordering::SeqCst) {
                return Err(RecordError::Ended { id });
            }
            store.remove(&namespace, &id).map_err(RecordError::Store)
        });
        bounded(lost, work).await
    }
}

/// One write of a record, to be done in a thread.
#[derive(Debug, Clone)]
pub(crate) struct RecordWrite {
    store: Arc<dyn Store>,
    has_ended: Arc<AtomicBool>,
    locks: Arc<ContainerLocks>,
    writer: u64,
    record: Arc<ContainerRecord>,
}

impl RecordWrite {
    /// Writes it. Blocks; only legal under the lock of the record. One that a later write has overtaken counts as written:
    /// records are cumulative.
    pub(crate) fn run(&self) -> Result<(), RecordError> {
        let record = &*self.record;
        if self.has_ended.load(Ordering::SeqCst) {
            return Err(RecordError::Ended { id: record.id.clone() });
        }
        if self.locks.is_replaced(self.writer) {
            return Err(RecordError::Replaced { id: record.id.clone() });
        }
        let written = if record.is_acknowledged {
            self.store.put(record)
        } else {
            // No caller was told of it: a record that the disk has not got was as if never asked for.
            self.store.put_intent(record)
        };
        match written {
            Ok(()) | Err(StoreError::Stale { .. }) => Ok(()),
            Err(source) => Err(RecordError::Store(source)),
        }
    }
}

async fn bounded<T>(
    id: ContainerId,
    work: impl Future<Output = Result<Result<T, RecordError>, JobLost>>,
) -> Result<T, RecordError> {
    match tokio::time::timeout(RECORD_TIMEOUT, work).await {
        Ok(done) => done.map_err(RecordError::Job)?,
        Err(_elapsed) => Err(RecordError::Deadline { id, waited: RECORD_TIMEOUT }),
    }
}
