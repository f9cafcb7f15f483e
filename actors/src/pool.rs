//! Bounded pools of threads for work that blocks: mounts, fsync, files. No arbiter ever does it itself.
//!
//! Work that touches a root may hang for as long as its store does, and no time-out ends it: such work has threads of its
//! namespace's own ([`NamespacePools`]). The runtime below has room for all of them ([`runtime`]).

use std::sync::Arc;

use contd_types::{ErrorKind, Explain, NamespaceId, Shortage};
use tokio::sync::{Mutex, OwnedMutexGuard, Semaphore};

use crate::locks::PerNamespace;

/// Why a job has no result; the arbiter and everyone else live on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum JobLost {
    #[error("{what}: the thread panicked or the node is going down")]
    Panicked { what: &'static str },
    /// There is no thread and none can be made. The job may still be done, with the next thread that can be made.
    #[error("{what}: there is no thread for it")]
    NoThread { what: &'static str },
}

impl Explain for JobLost {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Panicked { .. } => ErrorKind::Internal,
            Self::NoThread { .. } => ErrorKind::OutOfResources,
        }
    }

    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Panicked { .. } => "this is a bug: report the daemon's log".to_owned(),
            Self::NoThread { .. } => Shortage::Processes.hint().to_owned(),
        })
    }
}

/// Runs a job in a thread where it may block, to its end even when nobody waits for it any more.
async fn in_thread<T: Send + 'static>(
    what: &'static str,
    job: impl FnOnce() -> T + Send + 'static,
) -> Result<T, JobLost> {
    let panicked = |_error: tokio::task::JoinError| JobLost::Panicked { what };
    #[cfg(test)]
    crate::tests::cost::job(what);
    #[cfg(test)]
    if crate::tests::replay::is_on() {
        return crate::tests::replay::run(job).await.map_err(panicked);
    }
    // tokio panics when there is no thread and none can be made.
    let spawned = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| tokio::task::spawn_blocking(job)));
    spawned.map_err(|_no_thread| JobLost::NoThread { what })?.await.map_err(panicked)
}

/// The most threads of one runtime for work that blocks: far more than namespaces with hanging stores may take together, so
/// that what bounds them is always a pool of ours. A thread that nobody needs is not made.
const MAX_BLOCKING_THREADS: usize = 16 * 1024;

/// Makes the runtime of one arbiter.
///
/// # Errors
/// Out of descriptors or memory.
pub fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(MAX_BLOCKING_THREADS).build()
}

/// How long a release waits for the preparation in its way before it is put off: a healthy one is over by then.
pub(crate) const UNDO_GRACE: std::time::Duration = std::time::Duration::from_secs(2);

/// Threads for one kind of work, so that one kind cannot starve another.
#[derive(Debug, Clone)]
pub(crate) struct Pool {
    permits: Arc<Semaphore>,
}

impl Pool {
    /// Makes a pool of at most `threads` at once; further jobs wait in order.
    pub(crate) fn new(threads: usize) -> Self {
        Self { permits: Arc::new(Semaphore::new(threads.max(1))) }
    }

    /// Waits until the jobs that have begun, or wait for a thread, have ended.
    pub(crate) async fn come_to_rest(&self, threads: usize) {
        let all = u32::try_from(threads.max(1)).unwrap_or(u32::MAX);
        // The queue is fair: this comes behind all who wait. It is never closed.
        let _all = self.permits.acquire_many(all).await;
    }

    /// Runs a job alone under `lock`. The lock and the thread are given back when the job has ended, not when the caller
    /// stops waiting.
    pub(crate) async fn run_locked<T: Send + 'static>(
        &self,
        lock: &Arc<Mutex<()>>,
        what: &'static str,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, JobLost> {
        let guard = Arc::clone(lock).lock_owned().await;
        let permit = Arc::clone(&self.permits).acquire_owned().await.map_err(|_closed| JobLost::Panicked { what })?;
        let guarded = move || {
            let _kept_until_the_end = (guard, permit);
            job()
        };
        in_thread(what, guarded).await
    }

    /// Runs a job alone under two locks. The second is taken last, when the job has its thread, and is the job's to give back.
    pub(crate) async fn run_locked_twice<T: Send + 'static>(
        &self,
        first: &Arc<Mutex<()>>,
        second: &Arc<Mutex<()>>,
        what: &'static str,
        job: impl FnOnce(OwnedMutexGuard<()>) -> T + Send + 'static,
    ) -> Result<T, JobLost> {
        let guard = Arc::clone(first).lock_owned().await;
        let permit = Arc::clone(&self.permits).acquire_owned().await.map_err(|_closed| JobLost::Panicked { what })?;
        let second = Arc::clone(second).lock_owned().await;
        let guarded = move || {
            let _kept_until_the_end = (guard, permit);
            job(second)
        };
        in_thread(what, guarded).await
    }

    /// Runs a job.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        what: &'static str,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, JobLost> {
        let permit = Arc::clone(&self.permits).acquire_owned().await.map_err(|_closed| JobLost::Panicked { what })?;
        let guarded = move || {
            let _kept_until_the_end = permit;
            job()
        };
        in_thread(what, guarded).await
    }
}

/// Threads of its own for each namespace, for work that may hang on what is the namespace's: then it holds up nobody else.
#[derive(Debug)]
pub(crate) struct NamespacePools {
    threads: usize,
    permits: PerNamespace<Semaphore>,
}

impl NamespacePools {
    /// Makes pools of at most `threads` at once for each namespace.
    pub(crate) fn new(threads: usize) -> Self {
        Self { threads: threads.max(1), permits: PerNamespace::default() }
    }

    /// Returns the pool of a namespace.
    pub(crate) fn of(&self, namespace: &NamespaceId) -> Pool {
        Pool { permits: self.permits.of(namespace, || Semaphore::new(self.threads)) }
    }
}

/// The fate of an undo whose way stays blocked by a call that hangs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WhenBlocked {
    /// It waits, and runs as soon as that call returns: nobody will ask again.
    Queue,
    /// It is dropped: it will be asked for again, and queues must not grow with every time.
    Drop,
}

impl Pool {
    /// Runs a job that undoes another one, alone under `lock`. When the lock stays taken for `grace`, answers `None`;
    /// whether the job then runs as soon as the lock is free, says `when_blocked`.
    pub(crate) async fn undo_locked<T: Send + 'static>(
        &self,
        lock: &Arc<Mutex<()>>,
        grace: std::time::Duration,
        what: &'static str,
        when_blocked: WhenBlocked,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Result<Option<T>, JobLost> {
        let (pool, lock) = (self.clone(), Arc::clone(lock));
        let is_begun = Arc::new(tokio::sync::Notify::new());
        let begun = Arc::clone(&is_begun);
        let mut task = actix_rt::spawn(async move {
            let guard = lock.lock_owned().await;
            begun.notify_one();
            let permit = pool.permits.acquire_owned().await.map_err(|_closed| JobLost::Panicked { what })?;
            let guarded = move || {
                let _kept_until_the_end = (guard, permit);
                job()
            };
            in_thread(what, guarded).await
        });
        tokio::select! {
            biased;
            () = is_begun.notified() => {}
            () = tokio::time::sleep(grace) => {
                if when_blocked == WhenBlocked::Drop {
                    task.abort();
                }
                return Ok(None);
            }
        }
        (&mut task).await.map_err(|_panicked| JobLost::Panicked { what })?.map(Some)
    }
}
