//! The node's container logs: makes room for them, streams them, removes them or keeps them for a while.
//!
//! Answers [`OpenLog`], [`RemoveLog`], [`FindRemovedLog`], [`StreamLog`]. Never writes output: the shims do. Reading is in
//! threads, sending is not, so that a slow reader holds neither a thread nor an arbiter; each namespace has threads of its own,
//! so that a disk that hangs under one holds nobody else.
//!
//! Following looks again every few milliseconds while output comes, and less often while none does; the
//! container's end wakes it at once. A shim announces an exit after the last byte is in the log, so a reader that first
//! saw the end and then read to the end of the file has everything.
//!
//! Owns the count of what the logs take; a successor counts it again, on the disk.
//!
//! - here: the actor, making and removing. `stream`: reading. `retention`: what goes when there is too much.

mod retention;
mod stream;

use std::fmt::Debug;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use actix::{Actor, AsyncContext, Context, Handler, ResponseFuture, WrapFuture};
use contd_failpoint::Failpoint;
use contd_logs::{LogError, LogFiles, LogReader, RunStart, Tail};
use contd_per_key::PerKey;
use contd_types::ContainerId;
use futures_util::future::BoxFuture;
use tokio::sync::mpsc;
use tracing::warn;

use crate::config::LogRetention;
use crate::error::{ContainerError, LogJobError, StepError, one_line};
use crate::messages::LogStreamReceiver;
use crate::messages::node::{FindRemovedLog, OpenLog, RemoveLog, StreamLog, Undone};
use crate::pool::{NamespacePools, Pool, UNDO_GRACE};
use crate::shared::Shared;
use crate::supervision::ParentLink;
use retention::Retention;
use stream::{STREAM_ITEMS, Whose};

/// Log files of one namespace that are read, made or removed at once.
const THREADS_PER_NAMESPACE: usize = 8;

/// The way to the shims that write the logs.
pub(crate) trait Writers: Send + Sync + Debug {
    /// Has the shim of a container begin the next file of its log.
    fn rotate(self: Arc<Self>, id: ContainerId) -> BoxFuture<'static, Result<(), ContainerError>>;
}

/// The threads and the locks of the files, which outlive the actor: a job that hangs keeps both when the actor is lost.
#[derive(Debug)]
pub(crate) struct LogParts {
    pools: NamespacePools,
    /// For the looks at which namespaces have logs, and at their file system, which come one after the other.
    looks: Pool,
    shared: Arc<Shared>,
    writers: Arc<dyn Writers>,
    /// Held by whoever makes or removes the files of a log: of two containers of one name, one may still be leaving.
    locks: PerKey<PathBuf, Mutex<()>>,
}

impl LogParts {
    pub(crate) fn new(shared: Arc<Shared>, writers: Arc<dyn Writers>) -> Self {
        let pools = NamespacePools::new(THREADS_PER_NAMESPACE);
        Self { pools, looks: Pool::new(1), shared, writers, locks: PerKey::default() }
    }

    /// Does something alone with the files of a log.
    fn alone<T>(&self, path: &PathBuf, work: impl FnOnce() -> T) -> T {
        let lock = self.locks.of(path, Mutex::default);
        let _alone = lock.lock().unwrap_or_else(PoisonError::into_inner);
        work()
    }

    fn open(&self, files: &LogFiles, is_new: bool, retention: &Retention) -> Result<RunStart, LogJobError> {
        let take_away = |left: &LogFiles| self.put_away(left, retention);
        // Twice: between making the directory and the file, a removal of the namespace's last log may come.
        let max_files = self.shared.settings().log_rotation.max_files;
        let prepare = || files.prepare(is_new, max_files, take_away);
        let made = self.alone(&files.path(), || match prepare() {
            Err(error @ LogError::Foreign { .. }) => Err(error),
            made => made.or_else(|_first| prepare()),
        });
        made.map_err(|source| LogJobError::Make { source })
    }

    fn remove(&self, files: &LogFiles, retention: &Retention) -> Result<(), LogJobError> {
        let gone = self.alone(&files.path(), || self.put_away(files, retention).and_then(|()| files.clear_up()));
        gone.map_err(|source| LogJobError::Remove { source })
    }

    /// Puts a log to those of removed containers, or removes it when none are kept.
    fn put_away(&self, files: &LogFiles, retention: &Retention) -> Result<(), LogError> {
        if self.shared.settings().log_retention.is_some_and(LogRetention::keeps) {
            match files.keep() {
                Ok(bytes) => {
                    retention.grow(bytes);
                    return Ok(());
                }
                // A log that is asked to go must go, above all when the disk is full.
                Err(failure) => {
                    warn!(log = %files.path().display(), error = one_line(&failure), "log of a removed container not kept");
                }
            }
        }
        files.remove()
    }
}

/// The actor; see the module.
#[derive(Debug)]
pub(crate) struct LogActor {
    parts: Arc<LogParts>,
    parent_link: ParentLink,
    /// A job that hangs may hold the one of an earlier actor; nobody reads that any more.
    retention: Arc<Retention>,
}

impl LogActor {
    pub(crate) fn new(parts: Arc<LogParts>, parent_link: ParentLink) -> Self {
        let retention = Arc::new(Retention::new(&parts.shared.config));
        Self { parts, parent_link, retention }
    }
}

impl Actor for LogActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.parent_link.follow(ctx);
        if self.parts.shared.settings().log_retention.is_some() {
            let pruning = retention::prune_for_ever(Arc::clone(&self.parts), Arc::clone(&self.retention));
            ctx.spawn(pruning.into_actor(self));
        }
    }

    fn stopped(&mut self, _ctx: &mut Self::Context) {
        self.parent_link.tell_parent();
    }
}

impl Handler<OpenLog> for LogActor {
    type Result = ResponseFuture<Result<RunStart, StepError>>;

    fn handle(&mut self, message: OpenLog, _ctx: &mut Self::Context) -> Self::Result {
        let (parts, retention) = (Arc::clone(&self.parts), Arc::clone(&self.retention));
        Box::pin(async move {
            let OpenLog { locks, wanted, namespace, intent, files, is_new } = message;
            let pool = parts.pools.of(&namespace);
            let job = move |record_lock| {
                if wanted.is_given_up() {
                    return Err(StepError::Cancelled);
                }
                intent.run().map_err(|failure| StepError::Record(Arc::new(failure)))?;
                // A log directory that hangs must not keep the record.
                drop(record_lock);
                contd_failpoint::hit(Failpoint::MakeRecorded);
                parts.open(&files, is_new, &retention).map_err(StepError::Log)
            };
            let made = pool.run_locked_twice(&locks.log, &locks.record, "write the intent and make the log", job);
            made.await.map_err(StepError::Job)?
        })
    }
}

impl Handler<RemoveLog> for LogActor {
    type Result = ResponseFuture<Result<Undone, StepError>>;

    fn handle(&mut self, message: RemoveLog, _ctx: &mut Self::Context) -> Self::Result {
        let (parts, retention) = (Arc::clone(&self.parts), Arc::clone(&self.retention));
        Box::pin(async move {
            let RemoveLog { locks, namespace, files, when_blocked } = message;
            let pool = parts.pools.of(&namespace);
            let job = move || parts.remove(&files, &retention);
            let done = pool.undo_locked(&locks.log, UNDO_GRACE, "remove the log", when_blocked, job).await;
            match done.map_err(StepError::Job)? {
                None => Ok(Undone::Later),
                Some(result) => result.map(|()| Undone::Now).map_err(StepError::Log),
            }
        })
    }
}

impl Handler<FindRemovedLog> for LogActor {
    type Result = ResponseFuture<Result<Option<LogFiles>, StepError>>;

    fn handle(&mut self, message: FindRemovedLog, _ctx: &mut Self::Context) -> Self::Result {
        let (parts, retention) = (Arc::clone(&self.parts), Arc::clone(&self.retention));
        Box::pin(async move {
            let FindRemovedLog { namespace, container } = message;
            let pool = parts.pools.of(&namespace);
            let job = move || retention.logs().find(namespace.as_str(), &container);
            let found = pool.run("find the log of a removed container", job).await.map_err(StepError::Job)?;
            found.map_err(|failure| StepError::Log(LogJobError::Read(failure)))
        })
    }
}

impl Handler<StreamLog> for LogActor {
    type Result = ResponseFuture<Result<LogStreamReceiver, StepError>>;

    fn handle(&mut self, message: StreamLog, _ctx: &mut Self::Context) -> Self::Result {
        let parts = Arc::clone(&self.parts);
        Box::pin(async move {
            let StreamLog { namespace, files, tail, container, is_following } = message;
            let tail = tail.map_or(Tail::All, Tail::Lines);
            let pool = parts.pools.of(&namespace);
            let opened = pool.run("open a log", move || LogReader::open(files, tail)).await;
            let reader = opened.map_err(StepError::Job)?.map_err(|error| StepError::Log(LogJobError::Read(error)))?;
            let (sender, receiver) = mpsc::channel(STREAM_ITEMS);
            let whose = Whose { pool, container, is_following, clock: Arc::clone(&parts.shared.clock) };
            actix_rt::spawn(whose.stream(reader, sender));
            Ok(receiver)
        })
    }
}

#[cfg(any(test, feature = "testing"))]
crate::supervision::panics_on_demand!(LogActor);
