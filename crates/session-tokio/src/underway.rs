//! One call under way: its items, its credit, its reply. Given up when dropped before the reply.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use contd_protocol::session::{Call, Credit};
use contd_protocol::{CodecError, Kind, Protocol};
use contd_types::{ApiError, RequestId};
use tokio::sync::{mpsc, oneshot};

use crate::connection::{Answer, Connection, Ending, Outgoing, Pending};

/// Why a call brought no answer.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The request is one that no reader accepts; nothing was sent.
    #[error("write the request")]
    Unsendable(#[source] CodecError),
    /// The connection has ended. Whether the call was carried out is not known.
    #[error("the connection has ended")]
    Ended(Ending),
}

/// A call that was sent. Dropped before its reply, it is cancelled where the protocol can do that, and forgotten elsewhere.
#[derive(Debug)]
pub struct Underway<P: Protocol> {
    connection: Arc<Connection<P>>,
    id: u64,
    items: Option<mpsc::Receiver<P::Item>>,
    reply: oneshot::Receiver<Result<Answer<P>, ApiError>>,
    /// Items taken for which no credit was given yet.
    uncredited: u32,
    /// The reply was taken, or the connection has ended: there is nothing to give up.
    is_over: bool,
}

impl<P: Protocol> Underway<P> {
    /// Sends a call once there is a slot and room for it. Dropping this future before its end sends nothing.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn begin(
        connection: &Arc<Connection<P>>,
        request: P::Request,
        has_items: bool,
    ) -> Result<Self, CallError> {
        Self::begin_for(connection, request, Vec::new(), has_items, None).await
    }

    /// The same, with descriptors, as many as [`Protocol::descriptors_of_request`] says; and for an operation: its id is in the id
    /// of the call, for the logs of the other side.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn begin_for(
        connection: &Arc<Connection<P>>,
        request: P::Request,
        fds: Vec<OwnedFd>,
        has_items: bool,
        operation: Option<RequestId>,
    ) -> Result<Self, CallError> {
        let ended = || CallError::Ended(connection.calls.why_ended());
        let id = connection.next_id(operation);
        let bytes = connection.frame(Kind::Call, &Call { id, request }).map_err(CallError::Unsendable)?;
        let Ok(slot) = Arc::clone(&connection.slots).acquire_owned().await else { return Err(ended()) };
        let Ok(room) = connection.outbox.reserve().await else { return Err(ended()) };
        let (items_in, items) = if has_items {
            // As many as the other side may send unread.
            let (sender, receiver) = mpsc::channel(usize::try_from(P::CREDIT).unwrap_or(usize::MAX));
            (Some(sender), Some(receiver))
        } else {
            (None, None)
        };
        let (reply_in, reply) = oneshot::channel();
        let pending = Pending { items: items_in, reply: reply_in, _slot: slot };
        connection.calls.enter(id, pending).map_err(CallError::Ended)?;
        room.send(Outgoing { bytes, fds });
        Ok(Self { connection: Arc::clone(connection), id, items, reply, uncredited: 0, is_over: false })
    }

    /// Waits for the next item; `None` when the reply comes next. Cancellation-safe: no item is lost.
    pub async fn next_item(&mut self) -> Option<P::Item> {
        // Half the window at once, so that the other side never runs dry while we read.
        if self.uncredited > 0 && self.uncredited >= P::CREDIT / 2 {
            self.give_credit().await;
        }
        let item = self.items.as_mut()?.recv().await;
        match item {
            Some(_) => self.uncredited = self.uncredited.saturating_add(1),
            None => self.items = None,
        }
        item
    }

    async fn give_credit(&mut self) {
        let credit = Credit { id: self.id, items: self.uncredited };
        let Ok(bytes) = self.connection.frame(Kind::Credit, &credit) else { return };
        // A connection that has ended needs no credit: its last items are taken, then its error.
        if let Ok(room) = self.connection.outbox.reserve().await {
            room.send(Outgoing { bytes, fds: Vec::new() });
        }
        self.uncredited = 0;
    }

    /// Waits for the reply. Items that were not taken are dropped. Cancellation-safe; not to be called after its end.
    ///
    /// # Errors
    /// How the connection ended; the inner error is the other side's answer.
    pub async fn reply(&mut self) -> Result<Result<P::Response, ApiError>, Ending> {
        self.answer().await.map(|answer| answer.map(|answer| answer.response))
    }

    /// The same, with the descriptors that came with it.
    ///
    /// # Errors
    /// As [`Self::reply`].
    pub async fn answer(&mut self) -> Result<Result<Answer<P>, ApiError>, Ending> {
        while self.next_item().await.is_some() {}
        let result = (&mut self.reply).await;
        self.is_over = true;
        result.map_err(|_ended| self.connection.calls.why_ended())
    }

    /// Asks the other side to end the call early; its last items and its reply still come.
    pub fn cancel(&self) {
        // A connection that has ended has ended its calls.
        let _ended = self.connection.cancels.send(self.id);
    }
}

impl<P: Protocol> Drop for Underway<P> {
    fn drop(&mut self) {
        if self.is_over {
            return;
        }
        if P::CREDIT > 0 {
            self.cancel();
        } else {
            self.connection.calls.forget(self.id);
        }
    }
}
