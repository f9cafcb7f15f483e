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
//! - here: the actor, making and removing. `stream`: reading. `removed`: what becomes of the logs of removed containers.

mod removed;
mod stream;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use actix::{Actor, AsyncContext, Context, Handler, ResponseFuture, WrapFuture};
use contd_logs::{LogError, LogFiles, LogReader, RunStart, Tail};
use contd_types::{ErrorKind, Explain};
use tokio::sync::mpsc;
use tracing::warn;

use crate::config::RemovedLogsRule;
use crate::error::{StepError, one_line};
use crate::flist::UNDO_GRACE;
use crate::locks::Held;
use crate::supervision::ParentLink;
use crate::messages::LogStreamReceiver;
use crate::messages::node::{FindRemovedLog, OpenLog, RemoveLog, StreamLog, Undone};
use crate::pool::{JobLost, NamespacePools, Pool};
use crate::shared::Shared;
use removed::Removed;
use stream::{STREAM_ITEMS, Whose};

/// Log files of one namespace that are read, made or removed at once.
const THREADS_PER_NAMESPACE: usize = 8;

/// Why a log could not be made, read or removed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LogActorError {
    #[error("make the log of the container")]
    Make { source: LogError },
    #[error("remove the log of the container")]
    Remove { source: LogError },
    #[error(transparent)]
    Read(LogError),
    #[error(transparent)]
    Job(JobLost),
}

impl Explain for LogActorError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Make { source } | Self::Remove { source } | Self::Read(source) => source.kind(),
            Self::Job(source) => source.kind(),
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Make { source } | Self::Remove { source } | Self::Read(source) => source.hint(),
            Self::Job(source) => source.hint(),
        }
    }
}

/// What outlives the actor.
#[derive(Debug)]
pub(crate) struct LogWork {
    pools: NamespacePools,
    /// For the looks at which namespaces have logs of removed containers, which come one after the other.
    looks: Pool,
    shared: Arc<Shared>,
    /// Held by whoever makes or removes the files of a log: of two containers of one name, one may still be leaving.
    locks: Held<PathBuf, Mutex<()>>,
    removed: Removed,
}

impl LogWork {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        let removed = Removed::new(&shared.config);
        let pools = NamespacePools::new(THREADS_PER_NAMESPACE);
        Self { pools, looks: Pool::new(1), shared, locks: Held::default(), removed }
    }

    /// Does something alone with the files of a log.
    fn alone<T>(&self, path: &PathBuf, work: impl FnOnce() -> T) -> T {
        let lock = self.locks.of(path, Mutex::default);
        let _alone = lock.lock().unwrap_or_else(PoisonError::into_inner);
        work()
    }

    fn open(&self, files: &LogFiles, is_new: bool) -> Result<RunStart, LogActorError> {
        let take_away = |left: &LogFiles| self.put_away(left);
        // Twice: between making the directory and the file, a removal of the namespace's last log may come.
        let max_files = self.shared.settings().log_rotation.max_files;
        let prepare = || files.prepare(is_new, max_files, take_away);
        let made = self.alone(&files.path(), || match prepare() {
            Err(error @ LogError::Foreign { .. }) => Err(error),
            made => made.or_else(|_first| prepare()),
        });
        made.map_err(|source| LogActorError::Make { source })
    }

    fn remove(&self, files: &LogFiles) -> Result<(), LogActorError> {
        let removed = self.alone(&files.path(), || self.put_away(files).and_then(|()| files.clear_up()));
        removed.map_err(|source| LogActorError::Remove { source })
    }

    /// Puts a log to those of removed containers, or removes it when none are kept.
    fn put_away(&self, files: &LogFiles) -> Result<(), LogError> {
        if self.shared.settings().removed_logs.is_some_and(RemovedLogsRule::keeps) {
            match files.keep() {
                Ok(bytes) => {
                    self.removed.grow(bytes);
                    return Ok(());
                }
                // What is asked to go must go, above all when the disk is full.
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
    pub(crate) work: Arc<LogWork>,
    pub(crate) parent_link: ParentLink,
}

impl Actor for LogActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.parent_link.follow(ctx);
        if self.work.shared.settings().removed_logs.is_some() {
            ctx.spawn(removed::prune_for_ever(Arc::clone(&self.work)).into_actor(self));
        }
    }

    fn stopped(&mut self, _ctx: &mut Self::Context) {
        self.parent_link.tell_parent();
    }
}

impl Handler<OpenLog> for LogActor {
    type Result = ResponseFuture<Result<RunStart, StepError>>;

    fn handle(&mut self, message: OpenLog, _ctx: &mut Self::Context) -> Self::Result {
        let work = Arc::clone(&self.work);
        Box::pin(async move {
            let OpenLog { locks, wanted, namespace, files, is_new } = message;
            let pool = work.pools.of(&namespace);
            let job = move || {
                if wanted.is_given_up() {
                    return Err(StepError::Cancelled);
                }
                work.open(&files, is_new).map_err(StepError::Log)
            };
            pool.run_locked(&locks.log, "make the log", job).await.map_err(StepError::Job)?
        })
    }
}

impl Handler<RemoveLog> for LogActor {
    type Result = ResponseFuture<Result<Undone, StepError>>;

    fn handle(&mut self, message: RemoveLog, _ctx: &mut Self::Context) -> Self::Result {
        let work = Arc::clone(&self.work);
        Box::pin(async move {
            let RemoveLog { locks, namespace, files, when_blocked } = message;
            let pool = work.pools.of(&namespace);
            let job = move || work.remove(&files);
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
        let work = Arc::clone(&self.work);
        Box::pin(async move {
            let FindRemovedLog { namespace, container } = message;
            let pool = work.pools.of(&namespace);
            let job = move || work.removed.logs().find(namespace.as_str(), &container);
            let found = pool.run("find the log of a removed container", job).await.map_err(StepError::Job)?;
            found.map_err(|failure| StepError::Log(LogActorError::Read(failure)))
        })
    }
}

impl Handler<StreamLog> for LogActor {
    type Result = ResponseFuture<Result<LogStreamReceiver, StepError>>;

    fn handle(&mut self, message: StreamLog, _ctx: &mut Self::Context) -> Self::Result {
        let work = Arc::clone(&self.work);
        Box::pin(async move {
            let StreamLog { namespace, files, tail, container, is_following } = message;
            let tail = tail.map_or(Tail::All, Tail::Lines);
            let pool = work.pools.of(&namespace);
            let opened = pool.run("open a log", move || LogReader::open(files, tail)).await;
            let reader = opened.map_err(StepError::Job)?.map_err(|error| StepError::Log(LogActorError::Read(error)))?;
            let (sender, receiver) = mpsc::channel(STREAM_ITEMS);
            let whose = Whose { pool, container, is_following, clock: Arc::clone(&work.shared.clock) };
            actix_rt::spawn(whose.stream(reader, sender));
            Ok(receiver)
        })
    }
}

#[cfg(any(test, feature = "testing"))]
crate::supervision::panics_on_demand!(LogActor);
