//! The node's container logs: makes room for them, streams them, removes them.
//!
//! Answers [`OpenLog`], [`RemoveLog`], [`StreamLog`]. Never writes output: the shims do. Reading is in threads, sending is
//! not, so that a slow reader holds neither a thread nor an arbiter.
//!
//! Following looks again every [`FOLLOW_MIN`] while output comes and up to every [`FOLLOW_MAX`] while none does; the
//! container's end wakes it at once. A shim announces an exit after the last byte is in the log, so a reader that first
//! saw the end and then read to the end of the file has everything.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use actix::{Actor, Context, Handler, ResponseFuture};
use contd_logs::{LogError, LogReader, Stream, Tail};
use contd_protocol::api::{LogItem, LogStream, MAX_LOG_ITEM_BYTES};
use contd_types::{ApiError, Clock, ContainerId, ContainerInfo, ErrorKind, Explain, Shortage, State};
use tokio::sync::{mpsc, watch};

use crate::error::StepError;
use crate::flist::UNDO_GRACE;
use crate::lineage::Lineage;
use crate::messages::LogStreamReceiver;
use crate::messages::node::{OpenLog, RemoveLog, StreamLog, Undone};
use crate::pool::{JobLost, Pool};

/// Log files read, made or removed at once.
const THREADS: usize = 16;
/// Items read ahead of the receiver: a screen full, and at most 2 MiB.
const STREAM_ITEMS: usize = 64;
/// Bytes read from a log at once.
const READ_BYTES: usize = 256 * 1024;
/// How soon a follower looks again while output comes.
const FOLLOW_MIN: Duration = Duration::from_millis(5);
/// How soon a follower looks again while none comes: what a person does not notice.
const FOLLOW_MAX: Duration = Duration::from_millis(50);
/// Logs may hold secrets: for the owner and the group of the logs.
const DIR_MODE: u32 = 0o750;
/// As [`DIR_MODE`].
const FILE_MODE: u32 = 0o640;
/// What a reader gets where rotation was faster.
const GAP_TEXT: &[u8] = b"[contd: older output was rotated away before it could be read]\n";

/// Why a log could not be made, read or removed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LogActorError {
    #[error("make log directory {}", path.display())]
    Directory { path: PathBuf, source: io::Error },
    #[error("make log {}", path.display())]
    Open { path: PathBuf, source: io::Error },
    #[error("remove log {}", path.display())]
    Remove { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Read(LogError),
    #[error(transparent)]
    Job(JobLost),
}

impl Explain for LogActorError {
    fn kind(&self) -> ErrorKind {
        match self {
            _ if Shortage::behind(self).is_some() => ErrorKind::OutOfResources,
            Self::Directory { .. } | Self::Open { .. } | Self::Remove { .. } => ErrorKind::Internal,
            Self::Read(source) => source.kind(),
            Self::Job(source) => source.kind(),
        }
    }

    fn hint(&self) -> Option<String> {
        if let Some(shortage) = Shortage::behind(self) {
            return Some(shortage.hint().to_owned());
        }
        match self {
            Self::Read(source) => source.hint(),
            Self::Job(source) => source.hint(),
            _ => Some("check space and rights of the log directory".to_owned()),
        }
    }
}

/// What outlives the actor.
#[derive(Debug)]
pub(crate) struct LogWork {
    pool: Pool,
    clock: Arc<dyn Clock>,
    /// Whose a log file is: a late removal must not take that of the next container of the name.
    owners: Mutex<HashMap<PathBuf, Arc<Mutex<Option<ContainerId>>>>>,
}

impl LogWork {
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Self {
        Self { pool: Pool::new(THREADS), clock, owners: Mutex::default() }
    }

    /// Returns the place where it stands whose a log is; whoever makes or removes its files holds it meanwhile.
    fn owner_of(&self, path: &Path) -> Arc<Mutex<Option<ContainerId>>> {
        let mut owners = self.owners.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(owners.entry(path.to_owned()).or_default())
    }

    /// Forgets the place of a log that nobody owns or waits for.
    fn forget_owner(&self, path: &Path) {
        let mut owners = self.owners.lock().unwrap_or_else(PoisonError::into_inner);
        if owners.get(path).is_some_and(|owner| Arc::strong_count(owner) == 1) {
            owners.remove(path);
        }
    }

    fn open(&self, path: &Path, id: &ContainerId, is_new: bool) -> Result<(), LogActorError> {
        let owner = self.owner_of(path);
        let mut owner = owner.lock().unwrap_or_else(PoisonError::into_inner);
        let previous = owner.replace(id.clone());
        if is_new && previous.as_ref() != Some(id) {
            remove_files(path)?;
        }
        let dir = path.parent().unwrap_or(Path::new("/"));
        let made = fs::DirBuilder::new().recursive(true).mode(DIR_MODE).create(dir);
        made.map_err(|source| LogActorError::Directory { path: dir.to_owned(), source })?;
        let mut options = OpenOptions::new();
        options.append(true).create(true).mode(FILE_MODE);
        options.open(path).map(drop).map_err(|source| LogActorError::Open { path: path.to_owned(), source })
    }

    fn remove(&self, path: &Path, id: &ContainerId) -> Result<(), LogActorError> {
        let owner = self.owner_of(path);
        {
            let mut owner = owner.lock().unwrap_or_else(PoisonError::into_inner);
            if owner.as_ref().is_some_and(|owner| owner != id) {
                return Ok(());
            }
            remove_files(path)?;
            if let Some(dir) = path.parent() {
                // The tenant's directory goes with its last log; when it is not empty, or gone, that is fine.
                let _not_the_last = fs::remove_dir(dir);
            }
            *owner = None;
        }
        drop(owner);
        self.forget_owner(path);
        Ok(())
    }

    async fn stream(
        self: Arc<Self>,
        mut reader: LogReader,
        mut follow: Option<watch::Receiver<Arc<ContainerInfo>>>,
        sender: mpsc::Sender<Result<LogItem, ApiError>>,
    ) {
        let mut delay = FOLLOW_MIN;
        loop {
            // First the end, then the file: what is read after the end was seen is all there will be.
            let has_ended = follow.as_mut().is_none_or(has_ended);
            let job = move || {
                let read = reader.read_records(READ_BYTES);
                (reader, read)
            };
            let (back, read) = match self.pool.run("read a log", job).await {
                Ok(done) => done,
                Err(lost) => return send_error(&sender, &LogActorError::Job(lost)).await,
            };
            reader = back;
            let items = match read {
                Ok(items) => items,
                Err(failure) => return send_error(&sender, &LogActorError::Read(failure)).await,
            };
            let is_idle = items.is_empty();
            for item in items.into_iter().flat_map(|item| self.to_api(item)) {
                if sender.send(Ok(item)).await.is_err() {
                    return;
                }
            }
            match &mut follow {
                _ if !is_idle => delay = FOLLOW_MIN,
                Some(state) if !has_ended => {
                    tokio::select! {
                        () = sender.closed() => return,
                        _changed = state.changed() => {}
                        () = tokio::time::sleep(delay) => delay = (delay * 2).min(FOLLOW_MAX),
                    }
                }
                _ => return,
            }
        }
    }

    /// Turns what stands in the file into what travels; a foreign line is shown as output of now.
    fn to_api(&self, item: contd_logs::LogItem) -> Vec<LogItem> {
        match item {
            contd_logs::LogItem::Record(record) => {
                let mut content = record.content;
                if !record.is_partial {
                    content.push(b'\n');
                }
                let stream = match record.stream {
                    Stream::Stdout => LogStream::Stdout,
                    Stream::Stderr => LogStream::Stderr,
                };
                vec![LogItem { at: record.time, stream, content }]
            }
            contd_logs::LogItem::Garbage(mut bytes) => {
                bytes.push(b'\n');
                let at = self.clock.now();
                let piece = |part: &[u8]| LogItem { at, stream: LogStream::Stdout, content: part.to_vec() };
                bytes.chunks(MAX_LOG_ITEM_BYTES).map(piece).collect()
            }
            contd_logs::LogItem::Gap => {
                vec![LogItem { at: self.clock.now(), stream: LogStream::Stderr, content: GAP_TEXT.to_vec() }]
            }
        }
    }
}

/// Tells whether no more output can come unless somebody starts the container again.
fn has_ended(state: &mut watch::Receiver<Arc<ContainerInfo>>) -> bool {
    let is_gone = state.has_changed().is_err();
    let is_over = matches!(
        state.borrow_and_update().state,
        State::Stopped { .. } | State::Failed { .. } | State::Deleting | State::Lingering { .. }
    );
    is_gone || is_over
}

async fn send_error(sender: &mpsc::Sender<Result<LogItem, ApiError>>, failure: &LogActorError) {
    // A receiver that is gone needs no error.
    let _gone = sender.send(Err(ApiError::from_error(failure))).await;
}

/// Removes a log and its rotated files.
fn remove_files(path: &Path) -> Result<(), LogActorError> {
    let (Some(dir), Some(name)) = (path.parent(), path.file_name().and_then(OsStr::to_str)) else { return Ok(()) };
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        // Where there is no directory, there is no log.
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => return Ok(()),
        Err(source) => return Err(LogActorError::Remove { path: path.to_owned(), source }),
    };
    for entry in entries {
        let entry = entry.map_err(|source| LogActorError::Remove { path: path.to_owned(), source })?;
        let is_ours = entry.file_name().to_str().is_some_and(|found| is_log_or_rotated(found, name));
        if !is_ours {
            continue;
        }
        match fs::remove_file(entry.path()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(LogActorError::Remove { path: entry.path(), source: error });
            }
            _ => {}
        }
    }
    Ok(())
}

/// Tells whether `found` is `name` or `name.<number>`.
fn is_log_or_rotated(found: &str, name: &str) -> bool {
    match found.strip_prefix(name) {
        Some("") => true,
        Some(rest) => rest
            .strip_prefix('.')
            .is_some_and(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())),
        None => false,
    }
}

/// The actor; see the module.
#[derive(Debug)]
pub(crate) struct LogActor {
    pub(crate) work: Arc<LogWork>,
    pub(crate) lineage: Lineage,
}

impl Actor for LogActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.lineage.follow(ctx);
    }

    fn stopped(&mut self, _ctx: &mut Self::Context) {
        self.lineage.tell_parent();
    }
}

impl Handler<OpenLog> for LogActor {
    type Result = ResponseFuture<Result<(), StepError>>;

    fn handle(&mut self, message: OpenLog, _ctx: &mut Self::Context) -> Self::Result {
        let work = Arc::clone(&self.work);
        Box::pin(async move {
            let OpenLog { lane, wanted, id, path, is_new } = message;
            let pool = work.pool.clone();
            // Twice: between making the directory and the file, a removal of the tenant's last log may come.
            let job = move || {
                if wanted.is_given_up() {
                    return Err(StepError::Cancelled);
                }
                work.open(&path, &id, is_new).or_else(|_first| work.open(&path, &id, is_new)).map_err(StepError::Log)
            };
            pool.run_locked(&lane.log, "make the log", job).await.map_err(StepError::Job)?
        })
    }
}

impl Handler<RemoveLog> for LogActor {
    type Result = ResponseFuture<Result<Undone, StepError>>;

    fn handle(&mut self, message: RemoveLog, _ctx: &mut Self::Context) -> Self::Result {
        let work = Arc::clone(&self.work);
        Box::pin(async move {
            let RemoveLog { lane, id, path, when_blocked } = message;
            let pool = work.pool.clone();
            let job = move || work.remove(&path, &id);
            let done = pool.undo_locked(&lane.log, UNDO_GRACE, "remove the log", when_blocked, job).await;
            match done.map_err(StepError::Job)? {
                None => Ok(Undone::Later),
                Some(result) => result.map(|()| Undone::Now).map_err(StepError::Log),
            }
        })
    }
}

impl Handler<StreamLog> for LogActor {
    type Result = ResponseFuture<Result<LogStreamReceiver, StepError>>;

    fn handle(&mut self, message: StreamLog, _ctx: &mut Self::Context) -> Self::Result {
        let work = Arc::clone(&self.work);
        Box::pin(async move {
            let StreamLog { path, tail, follow } = message;
            let tail = tail.map_or(Tail::All, Tail::Lines);
            let opened = work.pool.run("open a log", move || LogReader::open(path, tail)).await;
            let reader = opened.map_err(StepError::Job)?.map_err(|error| StepError::Log(LogActorError::Read(error)))?;
            let (sender, receiver) = mpsc::channel(STREAM_ITEMS);
            actix_rt::spawn(work.stream(reader, follow, sender));
            Ok(receiver)
        })
    }
}

#[cfg(any(test, feature = "testing"))]
crate::lineage::panics_on_demand!(LogActor);

#[cfg(test)]
mod tests {
    use super::*;
    use contd_types::SystemClock;

    #[test]
    fn only_a_log_and_its_rotated_files_belong_together() {
        assert!(is_log_or_rotated("web.log", "web.log"));
        assert!(is_log_or_rotated("web.log.12", "web.log"));
        for other in ["web.log.", "web.log.1.log", "web.log.x", "web.logs", "eb.log"] {
            assert!(!is_log_or_rotated(other, "web.log"), "{other} would be removed");
        }
    }

    #[test]
    fn a_late_removal_spares_the_log_of_the_next_container_of_the_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ns").join("web.log");
        let (old, new) = (ContainerId::from_random([1; 16]), ContainerId::from_random([2; 16]));
        let work = LogWork::new(Arc::new(SystemClock));
        work.open(&path, &old, true).unwrap();
        work.open(&path, &new, true).unwrap();
        work.remove(&path, &old).unwrap();
        assert!(path.exists());
        work.remove(&path, &new).unwrap();
        work.remove(&path, &new).unwrap();
        assert!(!path.exists() && !dir.path().join("ns").exists());
    }
}
