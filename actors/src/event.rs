//! The node's events: numbers them, writes them to the journal, feeds the subscribers.
//!
//! Answers [`SubscribeEvents`]; hears [`PublishEvent`]. Subscribers pull: each has a cursor and is served from the last
//! [`RECENT_EVENTS`] in memory, then from the journal; what neither has is an explicit gap. A slow subscriber delays
//! nobody. Events are the log of what happened, not the truth: a lost one loses no state.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use actix::{Actor, Context, Handler};
use contd_store::{EventJournal, JournalEntry, JournalError, JournalItem};
use contd_types::{ApiError, ContainerEvent, NamespaceId};
use tokio::sync::{mpsc, watch};
use tracing::error;

use crate::error::one_line;
use crate::lineage::Lineage;
use crate::messages::node::PublishEvent;
use crate::messages::{EventItem, EventReceiver, SubscribeEvents};
use crate::pool::Pool;

/// Events that wait for the journal; a few per container and second, so this is a disk that hangs.
const QUEUE_EVENTS: usize = 4096;
/// Events kept in memory for subscribers that are nearly up to date.
const RECENT_EVENTS: usize = 1024;
/// Events given to a subscriber before it has taken any.
const STREAM_ITEMS: usize = 64;
/// Events read from the journal at once.
const READ_EVENTS: usize = 256;

/// The journal and its newest entries.
#[derive(Debug)]
struct EventLog {
    journal: Mutex<EventJournal>,
    recent: Mutex<VecDeque<JournalEntry>>,
    pool: Pool,
}

impl EventLog {
    /// Writes one event. Blocks. Returns the number that the next one gets.
    fn append(&self, event: ContainerEvent) -> u64 {
        let mut journal = self.journal.lock().unwrap_or_else(PoisonError::into_inner);
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
    fn read_recent(&self, from: u64) -> Option<Vec<JournalItem>> {
        let recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        if recent.front().is_none_or(|oldest| oldest.sequence > from) {
            return None;
        }
        let wanted = recent.iter().filter(|entry| entry.sequence >= from).take(READ_EVENTS);
        Some(wanted.map(|entry| JournalItem::Event(Box::new(entry.clone()))).collect())
    }

    async fn read(self: &Arc<Self>, from: u64) -> Result<Vec<JournalItem>, JournalError> {
        if let Some(items) = self.read_recent(from) {
            return Ok(items);
        }
        let log = Arc::clone(self);
        let job = move || log.journal.lock().unwrap_or_else(PoisonError::into_inner).read_from(from, READ_EVENTS);
        // A lost thread gives nothing now; the next round asks again.
        self.pool.run("read the journal", job).await.unwrap_or_else(|_lost| Ok(Vec::new()))
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
        let (journal, recent) = (Mutex::new(journal), Mutex::new(VecDeque::with_capacity(RECENT_EVENTS)));
        let log = Arc::new(EventLog { journal, recent, pool: Pool::new(4) });
        let writer = write_events(Arc::clone(&log), events, sender);
        (Self { log, queue, next }, writer)
    }
}

async fn write_events(log: Arc<EventLog>, mut events: mpsc::Receiver<ContainerEvent>, next: watch::Sender<u64>) {
    while let Some(event) = events.recv().await {
        let writer = Arc::clone(&log);
        if let Ok(following) = log.pool.run("write an event", move || writer.append(event)).await {
            next.send_replace(following);
        }
    }
}

/// Feeds one subscriber until it or the node is gone.
async fn feed(
    log: Arc<EventLog>,
    mut next: watch::Receiver<u64>,
    mut cursor: u64,
    namespace: Option<NamespaceId>,
    sender: mpsc::Sender<EventItem>,
) {
    loop {
        let is_behind = cursor < *next.borrow_and_update();
        let items = if is_behind { log.read(cursor).await } else { Ok(Vec::new()) };
        let items = match items {
            Ok(items) => items,
            Err(failure) => {
                error!(error = one_line(&failure), "journal cannot be read, ending an event stream");
                return;
            }
        };
        let has_nothing = items.is_empty();
        for item in items.into_iter().flat_map(|item| to_stream(item, &mut cursor)) {
            let is_wanted = match (&item, &namespace) {
                (EventItem::Event { event, .. }, Some(one)) => event.namespace == *one,
                _ => true,
            };
            if is_wanted && sender.send(item).await.is_err() {
                return;
            }
        }
        if has_nothing {
            tokio::select! {
                () = sender.closed() => return,
                changed = next.changed() => if changed.is_err() { return },
            }
        }
    }
}

/// Turns a journal item into what is streamed, with a gap before it where numbers are missing, and moves the cursor.
fn to_stream(item: JournalItem, cursor: &mut u64) -> Vec<EventItem> {
    let mut out = Vec::new();
    match item {
        JournalItem::Event(entry) => {
            if entry.sequence > *cursor {
                out.push(EventItem::Gap { from: *cursor, to: entry.sequence });
            }
            *cursor = entry.sequence.saturating_add(1);
            out.push(EventItem::Event { seq: entry.sequence, event: entry.event });
        }
        JournalItem::Gap { first, last } => {
            *cursor = last.saturating_add(1);
            out.push(EventItem::Gap { from: first, to: *cursor });
        }
    }
    out
}

/// The actor; see the module.
#[derive(Debug)]
pub(crate) struct EventActor {
    pub(crate) work: EventWork,
    pub(crate) lineage: Lineage,
}

impl Actor for EventActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.lineage.follow(ctx);
    }

    fn stopped(&mut self, _ctx: &mut Self::Context) {
        self.lineage.tell_parent();
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
        actix_rt::spawn(feed(Arc::clone(&self.work.log), self.work.next.clone(), cursor, namespace, sender));
        Ok(receiver)
    }
}

#[cfg(any(test, feature = "testing"))]
crate::lineage::panics_on_demand!(EventActor);
