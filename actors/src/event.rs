//! The node's events: numbers them, writes them to the journal, feeds the subscribers.
//!
//! Answers [`SubscribeEvents`]; takes what [`Shared::publish`](crate::shared::Shared::publish) has put into the queue. Subscribers
//! pull: each has a cursor and is served from the last [`RECENT_EVENTS`] in memory, then from the journal; what neither has is
//! an explicit gap. A slow subscriber delays nobody. Events are the log of what happened, not the truth: a lost one loses no state.
//!
//! ```text
//! publish ──► queue ──► actor, one at a time ──► journal (a thread) ┄┄► one reader per subscriber, own descriptors (a few threads)
//!                                   └──► recent ──► subscribers that are nearly up to date
//! ```
//! Owns the recent events and the number of the next one. A successor begins with none and asks the journal for the number;
//! subscribers go on with it where they were. A subscriber costs one reading of what it asks for, also when it wants little of
//! that, and nothing once it is gone.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use actix::{Actor, ActorFutureExt as _, AsyncContext as _, Context, Handler, ResponseFuture, WrapFuture as _};
use contd_store::{EventJournal, JournalEntry, JournalError, JournalFiles, JournalItem, JournalReader};
use contd_types::{ApiError, ContainerEvent, ErrorKind, NamespaceId};
use tokio::sync::{mpsc, watch};
use tracing::error;

use crate::error::one_line;
use crate::messages::{EventItem, EventReceiver, SubscribeEvents};
use crate::pool::Pool;
use crate::supervision::ParentLink;

/// Events that wait for the journal; a few per container and second, so this is a disk that hangs.
pub(crate) const QUEUE_EVENTS: usize = 4096;
/// Events kept in memory for subscribers that are nearly up to date.
const RECENT_EVENTS: usize = 1024;
/// Events given to a subscriber before it has taken any.
const STREAM_ITEMS: usize = 64;
/// Events given to a subscriber at once.
const READ_EVENTS: usize = 256;
/// Events looked at for a subscriber before another one has its turn: some milliseconds.
const TURN_EVENTS: usize = 1024;
/// Subscribers that read the journal at the same moment.
const READERS: usize = 4;

/// Between two looks for the end of the journal, when there was no thread for the first.
const LOOK_RETRY: Duration = Duration::from_secs(1);

/// The events that a subscriber wants.
#[derive(Debug, Clone)]
struct Wanted {
    namespace: Option<NamespaceId>,
    sender: mpsc::Sender<EventItem>,
}

impl Wanted {
    fn is_wanted(&self, event: &ContainerEvent) -> bool {
        self.namespace.as_ref().is_none_or(|one| *one == event.namespace)
    }
}

/// The events that one look found for a subscriber, and the number with which it goes on.
#[derive(Debug)]
struct Found {
    items: Vec<EventItem>,
    following: u64,
}

/// The newest events, and the way to the older ones; one per actor, which alone writes it.
#[derive(Debug)]
struct EventLog {
    recent: Mutex<VecDeque<JournalEntry>>,
    files: JournalFiles,
    readers: Pool,
    /// The number of the next event; ends with the actor.
    next: watch::Receiver<u64>,
}

/// Appends an event. Blocks. Returns the number that the next one gets.
fn append(journal: &Mutex<EventJournal>, event: ContainerEvent) -> (JournalEntry, u64) {
    let mut journal = journal.lock().unwrap_or_else(PoisonError::into_inner);
    let sequence = journal.next_sequence();
    if let Err(failure) = journal.append(&event) {
        // Subscribers still get it from memory; later ones see a gap.
        error!(error = one_line(&failure), sequence, "event not written to the journal");
    }
    (JournalEntry { sequence, event }, journal.next_sequence())
}

impl EventLog {
    fn push(&self, entry: JournalEntry) {
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        if recent.len() == RECENT_EVENTS {
            recent.pop_front();
        }
        recent.push_back(entry);
    }

    /// Returns what follows, from memory; `None` when memory does not go back that far.
    fn read_recent(&self, from: u64, wanted: &Wanted) -> Option<Found> {
        let recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        if recent.front().is_none_or(|oldest| oldest.sequence > from) {
            return None;
        }
        let begin = recent.partition_point(|entry| entry.sequence < from);
        let mut found = Found::at(from);
        for entry in recent.iter().skip(begin) {
            if found.items.len() == READ_EVENTS {
                break;
            }
            found.following = entry.sequence.saturating_add(1);
            if wanted.is_wanted(&entry.event) {
                found.items.push(EventItem::Event { seq: entry.sequence, event: entry.event.clone() });
            }
        }
        Some(found)
    }

    /// Has a subscriber's reader go on for one turn, in a thread. `next` is the number of the next event.
    async fn read_journal(
        &self,
        mut reader: JournalReader,
        from: u64,
        next: u64,
        wanted: Wanted,
    ) -> Result<Option<(JournalReader, Found)>, JournalError> {
        let turn = move || {
            let mut found = Found::at(from);
            for _ in 0..TURN_EVENTS {
                // Between each two: nothing is read for who is gone, also when there is nothing to give.
                if wanted.sender.is_closed() || found.items.len() >= READ_EVENTS {
                    break;
                }
                let Some(item) = reader.next(next)? else {
                    break;
                };
                found.add(item, &wanted);
            }
            Ok((reader, found))
        };
        // A lost thread gives nothing now.
        self.readers.run("read the journal", turn).await.ok().transpose()
    }
}

impl Found {
    fn at(following: u64) -> Self {
        Self { items: Vec::new(), following }
    }

    fn add(&mut self, item: JournalItem, wanted: &Wanted) {
        match item {
            JournalItem::Event(entry) => {
                self.following = entry.sequence.saturating_add(1);
                if wanted.is_wanted(&entry.event) {
                    self.items.push(EventItem::Event { seq: entry.sequence, event: entry.event });
                }
            }
            JournalItem::Gap { first, last } => {
                self.following = last.saturating_add(1);
                self.items.push(EventItem::Gap { from: first, to: self.following });
            }
        }
    }
}

/// The journal, the queue before it and the threads, which outlive the actor.
#[derive(Debug)]
pub(crate) struct EventParts {
    journal: Arc<Mutex<EventJournal>>,
    queue: Arc<tokio::sync::Mutex<mpsc::Receiver<ContainerEvent>>>,
    files: JournalFiles,
    readers: Pool,
    writer: Pool,
    /// The log of the present actor; `None` until that knows the number of the next event.
    current: watch::Sender<Option<Arc<EventLog>>>,
}

impl EventParts {
    pub(crate) fn new(journal: EventJournal, queue: mpsc::Receiver<ContainerEvent>) -> Self {
        Self {
            files: journal.files(),
            journal: Arc::new(Mutex::new(journal)),
            queue: Arc::new(tokio::sync::Mutex::new(queue)),
            readers: Pool::new(READERS),
            writer: Pool::new(1),
            current: watch::Sender::new(None),
        }
    }

    /// Asks the journal for the number of the next event, behind what an earlier actor has begun to write.
    async fn next_sequence(self: Arc<Self>) -> u64 {
        loop {
            let journal = Arc::clone(&self.journal);
            let look = move || journal.lock().unwrap_or_else(PoisonError::into_inner).next_sequence();
            match self.writer.run("look where the journal ends", look).await {
                Ok(next) => return next,
                Err(lost) => error!(error = one_line(&lost), "the end of the journal is not known yet"),
            }
            tokio::time::sleep(LOOK_RETRY).await;
        }
    }

    /// Takes the next event from the queue and writes it; `None` when there will be none, `Some(None)` when its thread was lost.
    async fn write_next(self: Arc<Self>) -> Option<Option<(JournalEntry, u64)>> {
        let event = self.queue.lock().await.recv().await?;
        let journal = Arc::clone(&self.journal);
        Some(self.writer.run("write an event", move || append(&journal, event)).await.ok())
    }
}

/// How far a subscriber is.
#[derive(Debug)]
struct Cursor {
    /// The number of the next event for it.
    next: u64,
    /// Whether it was told that it has all there was.
    is_told: bool,
}

/// Feeds one subscriber until it or the node is gone; goes on with the next actor when one is lost.
async fn feed(mut current: watch::Receiver<Option<Arc<EventLog>>>, mut cursor: Cursor, wanted: Wanted) {
    while let Ok(log) = current.wait_for(Option::is_some).await.map(|log| log.clone()) {
        if let Some(log) = log
            && !feed_from(&log, &mut cursor, &wanted).await
        {
            return;
        }
        // The lost actor withdraws what it had, or the next one has replaced it already.
        tokio::select! {
            () = wanted.sender.closed() => return,
            changed = current.changed() => if changed.is_err() { return },
        }
    }
}

/// Feeds a subscriber for as long as the actor lives; `false` when it shall get no more.
async fn feed_from(log: &EventLog, cursor: &mut Cursor, wanted: &Wanted) -> bool {
    let (mut reader, mut next) = (None, log.next.clone());
    loop {
        let end = *next.borrow_and_update();
        let found = match look(log, &mut reader, cursor.next, end, wanted).await {
            Ok(found) => found,
            Err(failure) => {
                error!(error = one_line(&failure), "journal cannot be read, ending an event stream");
                return false;
            }
        };
        let has_nothing = found.following == cursor.next;
        cursor.next = found.following;
        let is_first_end = cursor.next >= end && !cursor.is_told;
        cursor.is_told |= is_first_end;
        let stands = is_first_end.then(|| stands_at(cursor.next));
        for item in found.items.into_iter().chain(stands) {
            if wanted.sender.send(item).await.is_err() {
                return false;
            }
        }
        if has_nothing {
            tokio::select! {
                () = wanted.sender.closed() => return false,
                changed = next.changed() => if changed.is_err() { return true },
            }
        }
    }
}

/// Says where a stream stands: all before that number was given.
fn stands_at(next: u64) -> EventItem {
    EventItem::Gap { from: next, to: next }
}

/// Takes one look for a subscriber: into memory, or else, with the reader that it keeps, into the journal.
async fn look(
    log: &EventLog,
    reader: &mut Option<JournalReader>,
    cursor: u64,
    end: u64,
    wanted: &Wanted,
) -> Result<Found, JournalError> {
    if cursor >= end {
        return Ok(Found::at(cursor));
    }
    let begun = reader.take();
    if let Some(found) = log.read_recent(cursor, wanted) {
        return Ok(found);
    }
    let begun = begun.unwrap_or_else(|| log.files.reader(cursor));
    match log.read_journal(begun, cursor, end, wanted.clone()).await? {
        Some((back, found)) => {
            *reader = Some(back);
            Ok(found)
        }
        // The next event has us ask again.
        None => Ok(Found::at(cursor)),
    }
}

/// The actor; see the module.
#[derive(Debug)]
pub(crate) struct EventActor {
    parts: Arc<EventParts>,
    parent_link: ParentLink,
    log: Arc<EventLog>,
    next: watch::Sender<u64>,
}

impl EventActor {
    pub(crate) fn new(parts: Arc<EventParts>, parent_link: ParentLink) -> Self {
        let (sender, next) = watch::channel(1);
        let recent = Mutex::new(VecDeque::with_capacity(RECENT_EVENTS));
        let log = Arc::new(EventLog { recent, files: parts.files.clone(), readers: parts.readers.clone(), next });
        Self { parts, parent_link, log, next: sender }
    }

    fn write_next(&self, ctx: &mut Context<Self>) {
        let write = Arc::clone(&self.parts).write_next().into_actor(self);
        ctx.spawn(write.map(|written, actor, ctx| {
            let Some(written) = written else { return };
            if let Some((entry, following)) = written {
                actor.log.push(entry);
                actor.next.send_replace(following);
            }
            actor.write_next(ctx);
        }));
    }
}

impl Actor for EventActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.parent_link.follow(ctx);
        let look = Arc::clone(&self.parts).next_sequence().into_actor(self);
        ctx.spawn(look.map(|next, actor, ctx| {
            actor.next.send_replace(next);
            actor.parts.current.send_replace(Some(Arc::clone(&actor.log)));
            actor.write_next(ctx);
        }));
    }

    fn stopped(&mut self, _ctx: &mut Self::Context) {
        self.parts.current.send_replace(None);
        self.parent_link.tell_parent();
    }
}

impl Handler<SubscribeEvents> for EventActor {
    type Result = ResponseFuture<Result<EventReceiver, ApiError>>;

    fn handle(&mut self, SubscribeEvents { from, namespace }: SubscribeEvents, _: &mut Self::Context) -> Self::Result {
        let mut current = self.parts.current.subscribe();
        Box::pin(async move {
            let found = current.wait_for(Option::is_some).await.map(|log| log.as_ref().map(|log| *log.next.borrow()));
            let Some(next) = found.ok().flatten() else {
                return Err(ApiError::new(ErrorKind::Unavailable, "subscribe to events: the node is shutting down"));
            };
            let (sender, receiver) = mpsc::channel(STREAM_ITEMS);
            let cursor = from.unwrap_or(next).max(1);
            if from.is_none() {
                // A subscriber that has seen nothing yet could not go on after us. The channel is new: there is room.
                let _has_room = sender.try_send(stands_at(cursor));
            }
            let cursor = Cursor { next: cursor, is_told: from.is_none() };
            actix_rt::spawn(feed(current, cursor, Wanted { namespace, sender }));
            Ok(receiver)
        })
    }
}

#[cfg(any(test, feature = "testing"))]
crate::supervision::panics_on_demand!(EventActor);
