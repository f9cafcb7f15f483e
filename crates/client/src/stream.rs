//! Calls that stream: run attached, logs, events. Each gives credit as its reader takes items, so a slow reader holds
//! the daemon back and not more than 64 items wait in memory. Dropped before its end, a stream is cancelled.

use contd_protocol::api::{Item, LogItem, Response};
use contd_types::{ContainerEvent, ContainerId, ExecId, Exit, Pid};
use tokio::time::Instant;

use crate::call::Underway;
use crate::error::ClientError;

/// How far the fetching of a flist is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// The step under way, for people.
    pub what: String,
    /// Bytes done.
    pub done_bytes: u64,
    /// Bytes in all, where that is known.
    pub total_bytes: Option<u64>,
}

/// A piece of an attached run, in this order: progress, started, output, exited.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RunItem {
    /// The flist is being fetched.
    Progress(Progress),
    /// The container runs.
    Started {
        /// Its id.
        id: ContainerId,
    },
    /// It wrote something.
    Log(LogItem),
    /// It has ended and all its output was given; the stream ends here.
    Exited {
        /// Its id.
        id: ContainerId,
        /// How it ended.
        exit: Exit,
    },
}

/// An event, or a gap of events that are not known any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EventItem {
    /// Something happened.
    Event {
        /// Its sequence number.
        seq: u64,
        /// The event.
        event: ContainerEvent,
    },
    /// Events that are no longer kept: `from` up to but without `to`. An empty one (`from == to`) says where
    /// the stream stands: at the beginning of one that asked for the next event, else once all was given that had happened.
    Gap {
        /// The first missing.
        from: u64,
        /// The first that follows.
        to: u64,
    },
}

/// The next message on a stream.
enum Next {
    Item(Item),
    Reply(Response),
}

/// A streaming call with its deadline.
#[derive(Debug)]
struct Streaming {
    /// `None` once the stream has ended.
    call: Option<Underway>,
    /// When it is over, and how long that was from the beginning.
    deadline: Option<(Instant, std::time::Duration)>,
}

impl Streaming {
    fn new(call: Underway, limit: Option<std::time::Duration>) -> Self {
        let deadline = limit.and_then(|limit| Some((Instant::now().checked_add(limit)?, limit)));
        Self { call: Some(call), deadline }
    }

    /// Waits for what comes next; `None` behind the end. Cancellation-safe.
    async fn next(&mut self) -> Option<Result<Next, ClientError>> {
        let call = self.call.as_mut()?;
        let what = call.what();
        let waiting = async {
            match call.next_item().await {
                Some(item) => Ok(Next::Item(item)),
                None => call.reply().await.map(Next::Reply),
            }
        };
        let result = match self.deadline {
            None => waiting.await,
            Some((at, waited)) => match tokio::time::timeout_at(at, waiting).await {
                Ok(result) => result,
                Err(_elapsed) => Err(ClientError::TimedOut { what, waited }),
            },
        };
        if result.is_err() {
            self.call = None;
        }
        Some(result)
    }

    fn finish(&mut self) {
        self.call = None;
    }

    fn wrong_item<T>(&mut self, item: &Item) -> Option<Result<T, ClientError>> {
        let error = self.call.take()?.wrong_item(item);
        Some(Err(error))
    }

    fn wrong_response<T>(&mut self, response: &Response) -> Option<Result<T, ClientError>> {
        let error = self.call.take()?.wrong_response(response);
        Some(Err(error))
    }
}

/// An attached run.
#[derive(Debug)]
pub struct RunStream {
    inner: Streaming,
}

impl RunStream {
    pub(crate) fn new(call: Underway, limit: Option<std::time::Duration>) -> Self {
        Self { inner: Streaming::new(call, limit) }
    }

    /// Waits for the next piece; `None` behind [`RunItem::Exited`] or an error. Cancellation-safe.
    pub async fn next(&mut self) -> Option<Result<RunItem, ClientError>> {
        match self.inner.next().await? {
            Ok(Next::Item(Item::Progress { what, done_bytes, total_bytes })) => {
                Some(Ok(RunItem::Progress(Progress { what, done_bytes, total_bytes })))
            }
            Ok(Next::Item(Item::Started { id })) => {
                // From here on the container decides how long it takes.
                self.inner.deadline = None;
                Some(Ok(RunItem::Started { id }))
            }
            Ok(Next::Item(Item::Log(log))) => Some(Ok(RunItem::Log(log))),
            Ok(Next::Item(other)) => self.inner.wrong_item(&other),
            Ok(Next::Reply(Response::Exited { id, exit })) => {
                self.inner.finish();
                Some(Ok(RunItem::Exited { id, exit }))
            }
            Ok(Next::Reply(other)) => self.inner.wrong_response(&other),
            Err(error) => Some(Err(error)),
        }
    }

    /// Asks the daemon to give up. Go on reading: the last pieces and the daemon's answer still come.
    pub fn cancel(&mut self) {
        if let Some(call) = &self.inner.call {
            call.cancel();
        }
    }
}

/// A piece of an executed process whose output travels in frames, in this order: executes, output, exited.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExecItem {
    /// It runs.
    Executes {
        /// Its container.
        id: ContainerId,
        /// Names it in further requests: [`crate::Client::write_exec`].
        exec: ExecId,
        /// Its process id on the host.
        pid: Pid,
    },
    /// It said something.
    Output(LogItem),
    /// It has ended.
    Exited(Exit),
}

/// An executed process whose output travels in frames.
#[derive(Debug)]
pub struct ExecStream {
    inner: Streaming,
}

impl ExecStream {
    pub(crate) fn new(call: Underway, limit: Option<std::time::Duration>) -> Self {
        Self { inner: Streaming::new(call, limit) }
    }

    /// Waits for the next piece; `None` behind [`ExecItem::Exited`] or an error. Cancellation-safe.
    pub async fn next(&mut self) -> Option<Result<ExecItem, ClientError>> {
        match self.inner.next().await? {
            Ok(Next::Item(Item::Executes { id, exec, pid })) => Some(Ok(ExecItem::Executes { id, exec, pid })),
            Ok(Next::Item(Item::Log(log))) => Some(Ok(ExecItem::Output(log))),
            Ok(Next::Item(other)) => self.inner.wrong_item(&other),
            Ok(Next::Reply(Response::Exited { exit, .. })) => {
                self.inner.finish();
                Some(Ok(ExecItem::Exited(exit)))
            }
            Ok(Next::Reply(other)) => self.inner.wrong_response(&other),
            Err(error) => Some(Err(error)),
        }
    }
}

/// The output of a container.
#[derive(Debug)]
pub struct LogStream {
    inner: Streaming,
}

impl LogStream {
    pub(crate) fn new(call: Underway, limit: Option<std::time::Duration>) -> Self {
        Self { inner: Streaming::new(call, limit) }
    }

    /// Waits for the next piece; `None` at the end or behind an error. Cancellation-safe.
    pub async fn next(&mut self) -> Option<Result<LogItem, ClientError>> {
        match self.inner.next().await? {
            Ok(Next::Item(Item::Log(log))) => Some(Ok(log)),
            Ok(Next::Item(other)) => self.inner.wrong_item(&other),
            Ok(Next::Reply(Response::Done)) => {
                self.inner.finish();
                None
            }
            Ok(Next::Reply(other)) => self.inner.wrong_response(&other),
            Err(error) => Some(Err(error)),
        }
    }
}

/// The events of the node.
#[derive(Debug)]
pub struct EventStream {
    inner: Streaming,
}

impl EventStream {
    pub(crate) fn new(call: Underway, limit: Option<std::time::Duration>) -> Self {
        Self { inner: Streaming::new(call, limit) }
    }

    /// Waits for the next event; `None` when the daemon has ended the stream or behind an error. Cancellation-safe.
    pub async fn next(&mut self) -> Option<Result<EventItem, ClientError>> {
        match self.inner.next().await? {
            Ok(Next::Item(Item::Event { seq, event })) => Some(Ok(EventItem::Event { seq, event })),
            Ok(Next::Item(Item::EventGap { from, to })) => Some(Ok(EventItem::Gap { from, to })),
            Ok(Next::Item(other)) => self.inner.wrong_item(&other),
            Ok(Next::Reply(Response::Done)) => {
                self.inner.finish();
                None
            }
            Ok(Next::Reply(other)) => self.inner.wrong_response(&other),
            Err(error) => Some(Err(error)),
        }
    }
}
