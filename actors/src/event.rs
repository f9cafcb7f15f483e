//! The node's events: numbers them, writes them to the journal, feeds the subscribers.
//!
//! Answers [`SubscribeEvents`]; hears [`PublishEvent`]. Subscribers pull: each has a cursor and is served from the last
//! [`RECENT_EVENTS`] in memory, then from the journal; what neither has is an explicit gap. A slow subscriber delays
//! nobody. Events are the log of what happened, not the truth: a lost one loses no state.
//!
//! ```text
//! publish ──► queue ──► writer (its own thread) ──► journal ┄┄► one reader per subscriber, own descriptors (a few threads)
//!                                   └──► recent ──► subscribers that are nearly up to date
//! ```
//! A subscriber costs one reading of what it asks for, also when it wants little of that, and nothing once it is gone.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use actix::{Actor, Context, Handler};
use contd_store::{EventJournal, JournalEntry, JournalError, JournalFiles, JournalItem, JournalReader};
use contd_types::{ApiError, ContainerEvent, NamespaceId};
use tokio::sync::{mpsc, watch};
use tracing::error;

use crate::error::one_line;
use crate::supervision::ParentLink;
use crate::messages::node::PublishEvent;
use crate::messages::{EventItem, EventReceiver, SubscribeEvents};
use crate::pool::Pool;

/// Events that wait for the journal; a few per container and second, so this is a disk that hangs.
const QUEUE_EVENTS: usize = 4096;
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

/// What of the events a subscriber wants.
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

/// What one look found for a subscriber, and which number it has to go on with.
#[derive(Debug)]
struct Found {
    items: Vec<EventItem>,
    following: u64,
}

/// The newest events, and the way to the older ones.
#[derive(Debug)]
struct EventLog {
    recent: Mutex<VecDeque<JournalEntry>>,
    files: JournalFiles,
    readers: Pool,
}

impl EventLog {
    /// Writes one event. Blocks. Returns the number that the next one gets.
    fn append(&self, journal: &mut EventJournal, event: ContainerEvent) -> u64 {
        let sequence = journal.next_sequence();
        if let Err(failure) = journal.append(&event) {
            // Subscribers still get it from memory; later ones see a gap.
            error!(error = one_line(&failure), sequence, "event not written to the journal");
        }
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        if recent.len() == RECENT_EVENTS {
            recent.pop_front();
        }
        recent.push_back(JournalEntry { sequence, event });
        journal.next_sequence()
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

/// What outlives the actor. When it goes, the writer ends, and with it the streams.
#[derive(Debug, Clone)]
pub(crate) struct EventWork {
    log: Arc<EventLog>,
    queue: mpsc::Sender<ContainerEvent>,
    next: watch::Receiver<u64>,
}

impl EventWork {
    /// Begins to write events; to be called on the arbiter that shall do so.
    pub(crate) fn new(journal: EventJournal) -> (Self, impl Future<Output = ()> + Send) {
        let (queue, events) = mpsc::channel(QUEUE_EVENTS);
        let (sender, next) = watch::channel(journal.next_sequence());
        let recent = Mutex::new(VecDeque::with_capacity(RECENT_EVENTS));
        let log = Arc::new(EventLog { recent, files: journal.files(), readers: Pool::new(READERS) });
        let writer = write_events(Arc::clone(&log), journal, events, sender);
        (Self { log, queue, next }, writer)
    }
}

/// Writes what comes, in a thread that readers never have.
async fn write_events(
    log: Arc<EventLog>,
    journal: EventJournal,
    mut events: mpsc::Receiver<ContainerEvent>,
    next: watch::Sender<u64>,
) {
    let (pool, journal) = (Pool::new(1), Arc::new(Mutex::new(journal)));
    while let Some(event) = events.recv().await {
        let (log, journal) = (Arc::clone(&log), Arc::clone(&journal));
        let write = move || log.append(&mut journal.lock().unwrap_or_else(PoisonError::into_inner), event);
        if let Ok(following) = pool.run("write an event", write).await {
            next.send_replace(following);
        }
    }
}

/// Feeds one subscriber until it or the node is gone.
async fn feed(log: Arc<EventLog>, mut next: watch::Receiver<u64>, mut cursor: u64, wanted: Wanted) {
    let mut reader = None;
    loop {
        let end = *next.borrow_and_update();
        let found = match look(&log, &mut reader, cursor, end, &wanted).await {
            Ok(found) => found,
            Err(failure) => {
                error!(error = one_line(&failure), "journal cannot be read, ending an event stream");
                return;
            }
        };
        let has_nothing = found.following == cursor;
        cursor = found.following;
        for item in found.items {
            if wanted.sender.send(item).await.is_err() {
                return;
            }
        }
        if has_nothing {
            tokio::select! {
                () = wanted.sender.closed() => return,
                changed = next.changed() => if changed.is_err() { return },
            }
        }
    }
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
    pub(crate) work: EventWork,
    pub(crate) parent_link: ParentLink,
}

impl Actor for EventActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.parent_link.follow(ctx);
    }

    fn stopped(&mut self, _ctx: &mut Self::Context) {
        self.parent_link.tell_parent();
    }
}

impl Handler<PublishEvent> for EventActor {
    type Result = ();

    fn handle(&mut self, PublishEvent(event): PublishEvent, _ctx: &mut Self::Context) {
        if self.work.queue.try_send(event).is_err() {
            error!("the journal does not keep up, an event is lost");
        }
    }
}

impl Handler<SubscribeEvents> for EventActor {
    type Result = Result<EventReceiver, ApiError>;

    fn handle(
        &mut self,
        SubscribeEvents { from, namespace }: SubscribeEvents,
        _ctx: &mut Self::Context,
    ) -> Self::Result {
        let (sender, receiver) = mpsc::channel(STREAM_ITEMS);
        let cursor = from.unwrap_or_else(|| *self.work.next.borrow()).max(1);
        if from.is_none() {
            // Who has seen nothing yet could not go on after us. The channel is new: there is room.
            let _has_room = sender.try_send(EventItem::Gap { from: cursor, to: cursor });
        }
        let wanted = Wanted { namespace, sender };
        actix_rt::spawn(feed(Arc::clone(&self.work.log), self.work.next.clone(), cursor, wanted));
        Ok(receiver)
    }
}

#[cfg(any(test, feature = "testing"))]
crate::supervision::panics_on_demand!(EventActor);
