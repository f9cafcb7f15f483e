//! Calls that outlast a daemon: wait, logs, events, stop and attached runs, made again of its successor.
//!
//! They may be made twice: the first three change nothing, and a stop that is under way goes on under the next daemon, where
//! a second one joins it. A stream goes on behind the last item that was seen.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use contd_protocol::Refusal;
use contd_protocol::api::{LogItem, RunRequest, Target};
use contd_types::{Backoff, ContainerId, ContainerInfo, ContainerRef, ErrorKind, ExecId, Exit, NamespaceId, Timestamp};
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::deadline::Deadline;
use crate::error::ClientError;
use crate::requests::{Client, LogsOptions};
use crate::stream::{EventItem, EventStream, LogStream, RunItem, RunStream};

/// How long the daemon may be away: a restart by its service manager takes a second or two, a handover a fraction of one.
pub const PATIENCE: Duration = Duration::from_secs(15);
/// Between two tries: the first one comes at once, since a successor has the socket already.
const PAUSE_MIN: Duration = Duration::from_millis(10);
/// A daemon that has just come up shall not be kept waiting for.
const PAUSE_MAX: Duration = Duration::from_millis(500);

/// Pieces of output that may wait for a reader.
const REST_QUEUED: usize = 16;

/// A connection that is made again when the daemon was replaced or restarted. Clones share it.
#[derive(Debug, Clone)]
pub struct Follower {
    path: PathBuf,
    current: Arc<Mutex<Client>>,
}

impl Follower {
    /// Connects, as [`Client::connect`] does: a daemon that is not there at the beginning is an error at once.
    ///
    /// # Errors
    /// Those of [`Client::connect`].
    pub async fn connect(path: &Path, deadline: Deadline) -> Result<Self, ClientError> {
        let client = Client::connect(path, deadline).await?;
        Ok(Self { path: path.to_owned(), current: Arc::new(Mutex::new(client)) })
    }

    /// Waits until a container has ended, without a deadline.
    ///
    /// # Errors
    /// Those of [`Client::wait`], and of connecting when the daemon stays away for longer than [`PATIENCE`].
    pub async fn wait(&self, target: Target) -> Result<Exit, ClientError> {
        let mut line = self.line().await;
        loop {
            match line.client.wait(target.clone(), Deadline::Never).await {
                Err(error) => line.again(error).await?,
                exit => return exit,
            }
        }
    }

    /// Waits until an executed process has ended, without a deadline.
    ///
    /// # Errors
    /// As [`Self::wait`], and those of [`Client::wait_exec`].
    pub async fn wait_exec(&self, target: Target, exec: ExecId) -> Result<Exit, ClientError> {
        let mut line = self.line().await;
        loop {
            match line.client.wait_exec(target.clone(), exec, Deadline::Never).await {
                Err(error) => line.again(error).await?,
                exit => return exit,
            }
        }
    }

    /// Asks for all about a container; each daemon that is asked has the usual deadline of [`Client::inspect`].
    ///
    /// # Errors
    /// As [`Self::wait`], and those of [`Client::inspect`].
    pub async fn inspect(&self, target: Target) -> Result<ContainerInfo, ClientError> {
        let mut line = self.line().await;
        loop {
            match line.client.inspect(target.clone(), Deadline::Usual).await {
                Err(error) => line.again(error).await?,
                info => return info,
            }
        }
    }

    /// Ends a container; each daemon that is asked has the usual deadline of [`Client::stop`].
    ///
    /// # Errors
    /// As [`Self::wait`], and those of [`Client::stop`].
    pub async fn stop(&self, target: Target, timeout: Option<Duration>) -> Result<Exit, ClientError> {
        let mut line = self.line().await;
        loop {
            match line.client.stop(target.clone(), timeout, Deadline::Usual).await {
                // A daemon that took so long for its answer is not away.
                Err(error @ ClientError::TimedOut { .. }) => return Err(error),
                Err(error) => line.again(error).await?,
                exit => return exit,
            }
        }
    }

    /// Makes and starts a container and streams its output up to its exit, as [`Client::run_attached`] does. Once it has started, a daemon
    /// that is replaced or restarted ends nothing: its output and its exit are asked for again.
    ///
    /// # Errors
    /// Those of [`Client::run_attached`].
    pub async fn run_attached(&self, request: RunRequest, deadline: Deadline) -> Result<FollowedRun, ClientError> {
        let namespace = request.namespace.clone();
        let first = self.client().await.run_attached(request, deadline).await?;
        let stage = Stage::First { stream: first, id: None, place: Place::default() };
        Ok(FollowedRun { follower: self.clone(), namespace, stage })
    }

    /// Returns the connection that was good last.
    pub async fn client(&self) -> Client {
        self.current.lock().await.clone()
    }

    /// Reads a container's output.
    ///
    /// # Errors
    /// As [`Self::wait`].
    pub async fn logs(&self, target: Target, options: LogsOptions) -> Result<FollowedLog, ClientError> {
        let source = LogSource { target, options, place: Place::default() };
        Followed::begin(self.line().await, source).await.map(FollowedLog)
    }

    /// Follows what happens, from a sequence number on or from now on.
    ///
    /// # Errors
    /// As [`Self::wait`].
    pub async fn events(
        &self,
        from: Option<u64>,
        namespace: Option<NamespaceId>,
    ) -> Result<FollowedEvents, ClientError> {
        Followed::begin(self.line().await, EventSource { from, namespace }).await.map(FollowedEvents)
    }

    async fn line(&self) -> Line {
        Line { client: self.client().await, follower: self.clone(), patience: Patience::default() }
    }

    /// Returns a connection that is not the lost one: the first of several who miss it makes it.
    async fn instead_of(&self, lost: &Client) -> Result<Client, ClientError> {
        let mut current = self.current.lock().await;
        if current.is_same(lost) {
            *current = Client::connect(&self.path, Deadline::Usual).await?;
        }
        Ok(current.clone())
    }
}

/// One question's connection.
#[derive(Debug)]
struct Line {
    follower: Follower,
    client: Client,
    patience: Patience,
}

impl Line {
    /// Connects again after a failure that may pass; gives the failure back when it does not.
    async fn again(&mut self, failure: ClientError) -> Result<(), ClientError> {
        let mut failure = failure;
        loop {
            let pause = if is_passing(&failure) { self.patience.after_a_failure() } else { None };
            let Some(pause) = pause else { return Err(failure) };
            tokio::time::sleep(pause).await;
            match self.follower.instead_of(&self.client).await {
                Ok(client) => {
                    self.client = client;
                    return Ok(());
                }
                Err(error) => failure = error,
            }
        }
    }
}

/// How long failures have been coming.
#[derive(Debug, Default)]
struct Patience {
    /// When the first and the last of a row of failures came.
    row: Option<(Instant, Instant)>,
    attempt: u32,
}

impl Patience {
    /// Returns how long to pause before the next try; `None` when it is over.
    fn after_a_failure(&mut self) -> Option<Duration> {
        let now = Instant::now();
        let first = match self.row {
            Some((first, last)) if now.duration_since(last) <= PATIENCE => first,
            // Long ago, or never: another row begins.
            _ => {
                self.attempt = 0;
                now
            }
        };
        self.row = Some((first, now));
        self.attempt = self.attempt.saturating_add(1);
        let is_over = now.duration_since(first) > PATIENCE;
        (!is_over).then(|| Backoff::new(PAUSE_MIN, PAUSE_MAX).delay(self.attempt, 0))
    }
}

/// Tells whether another daemon, or the same one a moment later, may answer.
fn is_passing(error: &ClientError) -> bool {
    match error {
        ClientError::Lost { .. } | ClientError::TimedOut { .. } => true,
        ClientError::Connect { source, .. } => {
            matches!(source.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused)
        }
        ClientError::Refused { source, .. } => {
            matches!(source, Refusal::TooManyConnections { .. } | Refusal::Full { .. })
        }
        ClientError::Api(error) => error.kind == ErrorKind::Unavailable,
        ClientError::Protocol { .. } | ClientError::Unsendable { .. } => false,
    }
}

/// An attached run, across daemons.
#[derive(Debug)]
pub struct FollowedRun {
    follower: Follower,
    namespace: NamespaceId,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    /// The daemon that has made the container.
    First {
        stream: RunStream,
        id: Option<ContainerId>,
        place: Place,
    },
    /// Those after it.
    Rest(Rest),
    Over,
}

/// The rest of a run, read by tasks of their own, so that a caller may give up waiting for it at any time.
#[derive(Debug)]
struct Rest {
    id: ContainerId,
    items: mpsc::Receiver<Result<LogItem, ClientError>>,
    exit: oneshot::Receiver<Result<Exit, ClientError>>,
    /// Ended with this.
    _tasks: JoinSet<()>,
}

impl FollowedRun {
    /// Waits for the next piece; `None` behind [`RunItem::Exited`] or an error. Cancellation-safe.
    pub async fn next(&mut self) -> Option<Result<RunItem, ClientError>> {
        loop {
            match &mut self.stage {
                Stage::Over => return None,
                Stage::First { stream, id, place } => {
                    let item = stream.next().await;
                    match &item {
                        Some(Ok(RunItem::Started { id: started })) => *id = Some(started.clone()),
                        Some(Ok(RunItem::Log(log))) => {
                            place.is_new(log);
                        }
                        Some(Err(error)) if is_passing(error) => {
                            if let Some(id) = id.take() {
                                let log = self.follower.log_behind(&self.namespace, &id, std::mem::take(place));
                                self.stage = Stage::Rest(self.follower.rest_of(&self.namespace, id, log));
                                continue;
                            }
                        }
                        _ => {}
                    }
                    return item;
                }
                Stage::Rest(rest) => {
                    if let Some(item) = rest.items.recv().await {
                        return Some(item.map(RunItem::Log));
                    }
                    // The tasks live as long as this.
                    let Ok(exit) = (&mut rest.exit).await else { return None };
                    let id = rest.id.clone();
                    self.stage = Stage::Over;
                    return Some(exit.map(|exit| RunItem::Exited { id, exit }));
                }
            }
        }
    }

    /// Asks the daemon to give up; nothing once the container has started. Go on reading: the last pieces and the daemon's answer still come.
    pub fn cancel(&mut self) {
        if let Stage::First { stream, .. } = &mut self.stage {
            stream.cancel();
        }
    }
}

impl Follower {
    /// Shows what a container that runs says from now on, up to its exit.
    ///
    /// # Errors
    /// As [`Self::wait`].
    pub async fn follow_output(&self, namespace: NamespaceId, id: ContainerId) -> Result<FollowedRun, ClientError> {
        let options = LogsOptions { is_following: true, tail: Some(0) };
        let source = LogSource { target: target_of(&namespace, &id), options, place: Place::default() };
        let log = Followed::begin(self.line().await, source).await?;
        let stage = Stage::Rest(self.rest_of(&namespace, id, std::future::ready(Ok(log))));
        Ok(FollowedRun { follower: self.clone(), namespace, stage })
    }

    /// Starts a container that does not run, and shows all that it says then, up to its exit.
    ///
    /// # Errors
    /// As [`Self::wait`], and those of [`Client::start`].
    pub async fn start_attached(&self, namespace: NamespaceId, id: ContainerId) -> Result<FollowedRun, ClientError> {
        let target = target_of(&namespace, &id);
        // All that earlier runs have said: what comes behind it is this one's.
        let mut before = self.logs(target.clone(), LogsOptions::default()).await?;
        while let Some(item) = before.next().await {
            item?;
        }
        let place = before.0.source.place;
        self.client().await.start(target, Deadline::Usual).await?;
        let log = self.log_behind(&namespace, &id, place);
        let stage = Stage::Rest(self.rest_of(&namespace, id, log));
        Ok(FollowedRun { follower: self.clone(), namespace, stage })
    }

    /// Lets a container read the end of its input; see [`Client::close_input`].
    ///
    /// # Errors
    /// As [`Self::wait`], and those of [`Client::close_input`].
    pub async fn close_input(&self, target: Target) -> Result<(), ClientError> {
        let mut line = self.line().await;
        loop {
            match line.client.close_input(target.clone(), Deadline::Usual).await {
                Err(error) => line.again(error).await?,
                Ok(()) => return Ok(()),
            }
        }
    }

    /// Reads on in a log from a place on.
    fn log_behind(
        &self,
        namespace: &NamespaceId,
        id: &ContainerId,
        place: Place,
    ) -> impl Future<Output = Result<Followed<LogSource>, ClientError>> + Send + use<> {
        let options = LogsOptions { is_following: true, tail: None };
        let source = LogSource { target: target_of(namespace, id), options, place };
        let follower = self.clone();
        async move { Followed::begin(follower.line().await, source).await }
    }

    /// Reads on in the log of a container that has started, and waits for its end.
    fn rest_of(
        &self,
        namespace: &NamespaceId,
        id: ContainerId,
        log: impl Future<Output = Result<Followed<LogSource>, ClientError>> + Send + 'static,
    ) -> Rest {
        let (tell, items) = mpsc::channel(REST_QUEUED);
        let (ended, exit) = oneshot::channel();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut log = match log.await {
                Ok(log) => log,
                Err(error) => return drop(tell.send(Err(error)).await),
            };
            while let Some(item) = log.next().await {
                if tell.send(item).await.is_err() {
                    return;
                }
            }
        });
        let (follower, target) = (self.clone(), target_of(namespace, &id));
        tasks.spawn(async move {
            // An error means that it is not waited for any more.
            let _gone = ended.send(follower.wait(target).await);
        });
        Rest { id, items, exit, _tasks: tasks }
    }
}

fn target_of(namespace: &NamespaceId, id: &ContainerId) -> Target {
    Target { namespace: namespace.clone(), container: ContainerRef::from(id) }
}

/// The output of a container, across daemons.
#[derive(Debug)]
pub struct FollowedLog(Followed<LogSource>);

impl FollowedLog {
    /// Waits for the next piece; `None` at the end or behind an error.
    pub async fn next(&mut self) -> Option<Result<LogItem, ClientError>> {
        self.0.next().await
    }
}

/// The events of the node, across daemons.
#[derive(Debug)]
pub struct FollowedEvents(Followed<EventSource>);

impl FollowedEvents {
    /// Waits for the next event; `None` when the daemon has ended the stream or behind an error.
    pub async fn next(&mut self) -> Option<Result<EventItem, ClientError>> {
        self.0.next().await
    }
}

/// A stream of a daemon that can be asked for again, from the last item on that was seen.
trait Source {
    type Stream;
    type Item;

    /// Asks for the rest of the stream.
    async fn open(&mut self, client: &Client) -> Result<Self::Stream, ClientError>;

    /// Waits for the next item of a stream.
    async fn next(stream: &mut Self::Stream) -> Option<Result<Self::Item, ClientError>>;

    /// Notes an item, and tells whether it is new to the reader.
    fn note(&mut self, item: &Self::Item) -> bool;
}

/// A stream that is asked for again when the daemon was replaced.
#[derive(Debug)]
struct Followed<S: Source> {
    line: Line,
    source: S,
    /// `None` behind the end.
    stream: Option<S::Stream>,
}

impl<S: Source> Followed<S> {
    async fn begin(line: Line, source: S) -> Result<Self, ClientError> {
        let mut followed = Self { line, source, stream: None };
        followed.open(None).await?;
        Ok(followed)
    }

    /// Asks for the stream, after a failure and as long as failures may pass.
    async fn open(&mut self, mut failure: Option<ClientError>) -> Result<(), ClientError> {
        loop {
            if let Some(failure) = failure.take() {
                self.line.again(failure).await?;
            }
            match self.source.open(&self.line.client).await {
                Ok(stream) => {
                    self.stream = Some(stream);
                    return Ok(());
                }
                Err(error) => failure = Some(error),
            }
        }
    }

    async fn next(&mut self) -> Option<Result<S::Item, ClientError>> {
        loop {
            match S::next(self.stream.as_mut()?).await {
                Some(Ok(item)) if self.source.note(&item) => return Some(Ok(item)),
                Some(Ok(_seen)) => {}
                Some(Err(error)) => {
                    if let Err(error) = self.open(Some(error)).await {
                        self.stream = None;
                        return Some(Err(error));
                    }
                }
                None => {
                    self.stream = None;
                    return None;
                }
            }
        }
    }
}

#[derive(Debug)]
struct LogSource {
    target: Target,
    options: LogsOptions,
    place: Place,
}

impl Source for LogSource {
    type Stream = LogStream;
    type Item = LogItem;

    async fn open(&mut self, client: &Client) -> Result<LogStream, ClientError> {
        client.logs(self.target.clone(), self.place.options(self.options), Deadline::Never).await
    }

    async fn next(stream: &mut LogStream) -> Option<Result<LogItem, ClientError>> {
        stream.next().await
    }

    fn note(&mut self, item: &LogItem) -> bool {
        self.place.is_new(item)
    }
}

#[derive(Debug)]
struct EventSource {
    /// The sequence number of the next one, as far as it is known.
    from: Option<u64>,
    namespace: Option<NamespaceId>,
}

impl Source for EventSource {
    type Stream = EventStream;
    type Item = EventItem;

    async fn open(&mut self, client: &Client) -> Result<EventStream, ClientError> {
        client.events(self.from, self.namespace.clone(), Deadline::Never).await
    }

    async fn next(stream: &mut EventStream) -> Option<Result<EventItem, ClientError>> {
        stream.next().await
    }

    fn note(&mut self, item: &EventItem) -> bool {
        match *item {
            EventItem::Gap { from, to } => {
                self.from = Some(to);
                // An empty one only says where the stream stands.
                from < to
            }
            EventItem::Event { seq, .. } => {
                self.from = Some(seq.saturating_add(1));
                true
            }
        }
    }
}

/// Where in a log a reader is. Items have no numbers; they are told apart by their time, and those of one time (the lines
/// of one write) by their count.
#[derive(Debug, Default)]
struct Place {
    /// The time of the last item, and how many of that time were seen in a row.
    seen: Option<(Timestamp, u64)>,
    /// The part that is read again: up to and with so many items of that time.
    again: Option<Again>,
}

#[derive(Debug)]
struct Again {
    at: Timestamp,
    left: u64,
    is_found: bool,
}

impl Place {
    /// Returns what to ask for to go on here.
    fn options(&mut self, first: LogsOptions) -> LogsOptions {
        match self.seen {
            None => first,
            Some((at, count)) => {
                self.again = Some(Again { at, left: count, is_found: false });
                LogsOptions { tail: None, ..first }
            }
        }
    }

    /// Notes an item, and tells whether it was not seen before.
    fn is_new(&mut self, item: &LogItem) -> bool {
        if let Some(again) = &mut self.again {
            if item.at == again.at {
                again.is_found = true;
                if again.left > 0 {
                    again.left -= 1;
                    return false;
                }
            } else if !again.is_found && item.at < again.at {
                return false;
            }
            // Behind the place; or it was rotated away, and this is what follows.
            self.again = None;
        }
        self.seen = match self.seen {
            Some((at, count)) if at == item.at => Some((at, count.saturating_add(1))),
            _ => Some((item.at, 1)),
        };
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use contd_protocol::api::LogStream as Stream;

    fn item(at: u64, text: &str) -> LogItem {
        LogItem { at: Timestamp(at), stream: Stream::Stdout, content: text.as_bytes().to_vec() }
    }

    fn read(place: &mut Place, items: &[LogItem]) -> Vec<String> {
        let new = items.iter().filter(|item| place.is_new(item));
        new.map(|item| String::from_utf8_lossy(&item.content).into_owned()).collect()
    }

    #[test]
    fn a_log_goes_on_behind_the_last_item_that_was_seen_wherever_it_was_cut() {
        // Two writes of one time, equal lines, and a clock that steps back at the end.
        let all = [item(1, "a"), item(2, "b"), item(2, "b"), item(2, "c"), item(3, "d"), item(1, "e"), item(1, "f")];
        let whole = ["a", "b", "b", "c", "d", "e", "f"];
        for cut in 0..=5 {
            let mut place = Place::default();
            let mut got = read(&mut place, &all[..cut]);
            place.options(LogsOptions::default());
            got.extend(read(&mut place, &all));
            assert_eq!(got, whole, "cut behind {cut}");
        }
    }

    #[test]
    fn a_log_whose_last_seen_item_was_rotated_away_goes_on_with_what_follows() {
        let mut place = Place::default();
        read(&mut place, &[item(1, "a"), item(2, "b")]);
        assert_eq!(place.options(LogsOptions { is_following: true, tail: Some(5) }).tail, None);
        assert_eq!(read(&mut place, &[item(4, "x"), item(5, "y")]), ["x", "y"]);
    }

    #[tokio::test(start_paused = true)]
    async fn patience_ends_with_a_row_of_failures_and_begins_anew_after_a_long_answer() {
        let mut patience = Patience::default();
        let begun = Instant::now();
        while let Some(pause) = patience.after_a_failure() {
            tokio::time::sleep(pause).await;
        }
        let waited = begun.elapsed();
        assert!(waited > PATIENCE && waited < PATIENCE * 2, "{waited:?}");
        tokio::time::sleep(PATIENCE * 2).await;
        assert!(patience.after_a_failure().is_some());
    }
}
