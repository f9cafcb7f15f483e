//! The bounded way to work that blocks: mounts, fsync, files. No arbiter ever does it itself.

use std::sync::Arc;

use tokio::sync::{Mutex, Semaphore};

/// A job panicked in its thread; the arbiter and everyone else live on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{what}: the thread panicked or the node is going down")]
pub(crate) struct JobLost {
    /// What was tried.
    pub(crate) what: &'static str,
}

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

    /// Runs a job alone under `lock`. The lock and the thread are given back when the job has ended, not when the caller
    /// stops waiting.
    pub(crate) async fn run_locked<T: Send + 'static>(
        &self,
        lock: &Arc<Mutex<()>>,
        what: &'static str,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, JobLost> {
        let guard = Arc::clone(lock).lock_owned().await;
        let permit = Arc::clone(&self.permits).acquire_owned().await.map_err(|_closed| JobLost { what })?;
        let guarded = move || {
            let _kept_until_the_end = (guard, permit);
            job()
        };
        in_thread(guarded).await.map_err(|_panicked| JobLost { what })
    }

    /// Runs a job.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        what: &'static str,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, JobLost> {
        let permit = Arc::clone(&self.permits).acquire_owned().await.map_err(|_closed| JobLost { what })?;
        let guarded = move || {
            let _kept_until_the_end = permit;
            job()
        };
        in_thread(guarded).await.map_err(|_panicked| JobLost { what })
    }
}

impl Pool {
    /// Runs a job that undoes another one, alone under `lock`. When the lock stays taken for `grace`, answers `None` and
    /// runs the job as soon as it is free.
    pub(crate) async fn undo_locked<T: Send + 'static>(
        &self,
        lock: &Arc<Mutex<()>>,
        grace: std::time::Duration,
        what: &'static str,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Result<Option<T>, JobLost> {
        let (pool, lock) = (self.clone(), Arc::clone(lock));
        let is_begun = Arc::new(tokio::sync::Notify::new());
        let begun = Arc::clone(&is_begun);
        let mut task = actix_rt::spawn(async move {
            let guard = lock.lock_owned().await;
            begun.notify_one();
            let permit = pool.permits.acquire_owned().await.map_err(|_closed| JobLost { what })?;
            let guarded = move || {
                let _kept_until_the_end = (guard, permit);
                job()
            };
            in_thread(guarded).await.map_err(|_panicked| JobLost { what })
        });
        tokio::select! {
            biased;
            () = is_begun.notified() => {}
            () = tokio::time::sleep(grace) => return Ok(None),
        }
        (&mut task).await.map_err(|_panicked| JobLost { what })?.map(Some)
    }
}

/// Runs a job in a thread where it may block, to its end even when nobody waits for it any more.
async fn in_thread<T: Send + 'static>(job: impl FnOnce() -> T + Send + 'static) -> Result<T, tokio::task::JoinError> {
    #[cfg(test)]
    if crate::tests::replay::is_on() {
        return crate::tests::replay::run(job).await;
    }
    tokio::task::spawn_blocking(job).await
}
