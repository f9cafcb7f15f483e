//! One call under way: its items, its credit, its reply. Cancelled when dropped before the reply.

use std::sync::Arc;

use contd_protocol::api::{Call, Credit, INITIAL_CREDIT, Item, Request, Response};
use contd_protocol::{Frame, Kind};
use contd_types::ApiError;
use tokio::sync::{mpsc, oneshot};

use crate::connection::{Connection, Pending, item_channel};
use crate::error::{ClientError, ProtocolError};

/// Credit is given for this many items at once: half the window, so that the daemon never runs dry while we read.
const CREDIT_BATCH: u32 = INITIAL_CREDIT / 2;

/// A call that was sent.
#[derive(Debug)]
pub(crate) struct Underway {
    connection: Arc<Connection>,
    id: u64,
    what: &'static str,
    items: Option<mpsc::Receiver<Item>>,
    reply: oneshot::Receiver<Result<Response, ApiError>>,
    /// Items taken for which no credit was given yet.
    uncredited: u32,
    /// The reply was taken, or the connection has ended: there is nothing to cancel.
    is_over: bool,
}

impl Underway {
    /// Sends a call once there is a slot and room for it. Dropping this future before its end sends nothing.
    pub(crate) async fn begin(
        connection: &Arc<Connection>,
        what: &'static str,
        request: Request,
        has_items: bool,
    ) -> Result<Self, ClientError> {
        let id = connection.next_id();
        let frame = Frame::new(connection.version, Kind::Call, &Call { id, request })
            .map_err(|source| ClientError::Unsendable { what, source })?;
        let Ok(slot) = Arc::clone(&connection.slots).acquire_owned().await else {
            return Err(connection.calls.why_ended(what));
        };
        let Ok(room) = connection.outbox.reserve().await else {
            return Err(connection.calls.why_ended(what));
        };
        let (items_in, items) = if has_items {
            let (sender, receiver) = item_channel();
            (Some(sender), Some(receiver))
        } else {
            (None, None)
        };
        let (reply_in, reply) = oneshot::channel();
        connection.calls.enter(id, Pending { items: items_in, reply: reply_in, _slot: slot }, what)?;
        room.send(frame.to_bytes());
        Ok(Self { connection: Arc::clone(connection), id, what, items, reply, uncredited: 0, is_over: false })
    }

    /// Returns the call's name in errors.
    pub(crate) fn what(&self) -> &'static str {
        self.what
    }

    /// Waits for the next item; `None` when the reply comes next. Cancellation-safe: no item is lost.
    pub(crate) async fn next_item(&mut self) -> Option<Item> {
        if self.uncredited >= CREDIT_BATCH {
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
        let Ok(frame) = Frame::new(self.connection.version, Kind::Credit, &credit) else { return };
        // A connection that has ended needs no credit: its last items are taken, then its error.
        if let Ok(room) = self.connection.outbox.reserve().await {
            room.send(frame.to_bytes());
        }
        self.uncredited = 0;
    }

    /// Waits for the reply. Items that were not taken are dropped. Cancellation-safe; not to be called after its end.
    pub(crate) async fn reply(&mut self) -> Result<Response, ClientError> {
        while self.next_item().await.is_some() {}
        let result = (&mut self.reply).await;
        self.is_over = true;
        match result {
            Ok(answer) => answer.map_err(ClientError::Api),
            Err(_ended) => Err(self.connection.calls.why_ended(self.what)),
        }
    }

    /// Asks the daemon to end the call early; its last items and its reply still come.
    pub(crate) fn cancel(&self) {
        // A connection that has ended has ended its calls.
        let _ended = self.connection.cancels.send(self.id);
    }

    /// Makes the error for an answer that does not belong to this call.
    pub(crate) fn wrong_response(&self, got: &Response) -> ClientError {
        wrong(self.what, ProtocolError::WrongResponse { got: response_name(got) })
    }

    /// Makes the error for an item that does not belong to this call.
    pub(crate) fn wrong_item(&self, got: &Item) -> ClientError {
        wrong(self.what, ProtocolError::WrongItem { got: item_name(got) })
    }
}

impl Drop for Underway {
    fn drop(&mut self) {
        if !self.is_over {
            self.cancel();
        }
    }
}

pub(crate) fn wrong(what: &'static str, error: ProtocolError) -> ClientError {
    ClientError::Protocol { what, source: Arc::new(error) }
}

pub(crate) fn item_name(item: &Item) -> &'static str {
    match item {
        Item::Progress { .. } => "Progress",
        Item::Started { .. } => "Started",
        Item::Log(_) => "Log",
        Item::Event { .. } => "Event",
        Item::EventGap { .. } => "EventGap",
    }
}

pub(crate) fn response_name(response: &Response) -> &'static str {
    match response {
        Response::Done => "Done",
        Response::Version(_) => "Version",
        Response::Created { .. } => "Created",
        Response::Exited { .. } => "Exited",
        Response::Info(_) => "Info",
        Response::Page { .. } => "Page",
        Response::Namespaces(_) => "Namespaces",
        Response::Plan(_) => "Plan",
        Response::ShutDown { .. } => "ShutDown",
        Response::FlistServers(_) => "FlistServers",
        Response::Cache(_) => "Cache",
    }
}
