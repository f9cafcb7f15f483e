//! Reads a log from its files to a receiver, at the receiver's pace.

use std::sync::Arc;
use std::time::Duration;

use contd_logs::{LogReader, Stream};
use contd_protocol::api::{LogItem, LogStream, MAX_LOG_ITEM_BYTES};
use contd_types::{ApiError, Clock, ContainerInfo, Exit, State};
use tokio::sync::{mpsc, watch};

use crate::error::LogJobError;
use crate::pool::Pool;

/// Items read ahead of the receiver: a screen full, and at most 2 MiB.
pub(super) const STREAM_ITEMS: usize = 64;
/// Bytes read from a log at once.
const READ_BYTES: usize = 256 * 1024;
/// How soon a follower looks again while output comes.
const FOLLOW_MIN: Duration = Duration::from_millis(5);
/// How soon a follower looks again while none comes: what a person does not notice.
const FOLLOW_MAX: Duration = Duration::from_millis(50);
/// A reader gets this where rotation was faster.
const GAP_TEXT: &[u8] = b"[contd: older output was rotated away before it could be read]\n";
/// A reader gets this behind the output of a run that the log could not take to its end.
const LOST_TEXT: &[u8] = b"[contd: output after this was lost: the log could not be written]\n";

/// The owner of the log that is read.
#[derive(Debug)]
pub(super) struct Whose {
    /// Its threads.
    pub(super) pool: Pool,
    /// The container, unless it was removed.
    pub(super) container: Option<watch::Receiver<Arc<ContainerInfo>>>,
    /// Whether more may come until that container has ended for good.
    pub(super) is_following: bool,
    /// Gives the time to a line that has none.
    pub(super) clock: Arc<dyn Clock>,
}

impl Whose {
    /// Reads to the end. Holds nothing of the node: a follower ends with it, because the container's state goes then.
    pub(super) async fn stream(mut self, mut reader: LogReader, sender: mpsc::Sender<Result<LogItem, ApiError>>) {
        let mut delay = FOLLOW_MIN;
        loop {
            // First the end, then the file: what is read after the end was seen is all there will be.
            let has_ended = !self.is_following || self.container.as_mut().is_none_or(has_ended);
            let job = move || {
                let read = reader.read_records(READ_BYTES);
                (reader, read)
            };
            let (back, read) = match self.pool.run("read a log", job).await {
                Ok(done) => done,
                Err(lost) => return send_error(&sender, &LogJobError::Job(lost)).await,
            };
            reader = back;
            let items = match read {
                Ok(items) => items,
                Err(failure) => return send_error(&sender, &LogJobError::Read(failure)).await,
            };
            let is_idle = items.is_empty();
            for item in items.into_iter().flat_map(|item| self.to_api(item)) {
                if sender.send(Ok(item)).await.is_err() {
                    return;
                }
            }
            match &mut self.container {
                _ if !is_idle => delay = FOLLOW_MIN,
                Some(state) if !has_ended => {
                    tokio::select! {
                        () = sender.closed() => return,
                        _changed = state.changed() => {}
                        () = tokio::time::sleep(delay) => delay = (delay * 2).min(FOLLOW_MAX),
                    }
                }
                container => {
                    if container.as_ref().is_some_and(has_lost_output) {
                        let item =
                            LogItem { at: self.clock.now(), stream: LogStream::Stderr, content: LOST_TEXT.to_vec() };
                        // A receiver that is gone need not know.
                        let _gone = sender.send(Ok(item)).await;
                    }
                    return;
                }
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

/// Tells whether the log cannot have all that the container has said before its end. Once it runs again, the log says so.
fn has_lost_output(container: &watch::Receiver<Arc<ContainerInfo>>) -> bool {
    let info = container.borrow();
    let is_over = matches!(info.state, State::Stopped { .. } | State::Backoff { .. } | State::Deleting);
    is_over && info.last_exit.as_ref().is_some_and(Exit::has_lost_output)
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

async fn send_error(sender: &mpsc::Sender<Result<LogItem, ApiError>>, failure: &LogJobError) {
    // A receiver that is gone needs no error.
    let _gone = sender.send(Err(ApiError::from_error(failure))).await;
}
