//! One call to the daemon, under the name that its errors have.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use contd_protocol::api::{ApiSocket, Item, Request, Response};
use contd_session_tokio::{Answer, CallError, Connection, Ending, Underway as Call};

use crate::error::{ClientError, ProtocolError};

/// A call that was sent; cancelled when dropped before the reply.
#[derive(Debug)]
pub(crate) struct Underway {
    call: Call<ApiSocket>,
    what: &'static str,
}

impl Underway {
    /// Sends a call once there is a slot and room for it. Dropping this future before its end sends nothing.
    pub(crate) async fn begin(
        connection: &Arc<Connection<ApiSocket>>,
        what: &'static str,
        request: Request,
        has_items: bool,
    ) -> Result<Self, ClientError> {
        Self::begin_with(connection, what, request, Vec::new(), has_items).await
    }

    /// The same, with descriptors.
    pub(crate) async fn begin_with(
        connection: &Arc<Connection<ApiSocket>>,
        what: &'static str,
        request: Request,
        fds: Vec<OwnedFd>,
        has_items: bool,
    ) -> Result<Self, ClientError> {
        let version = connection.welcome().version;
        let request = request.for_version(version).map_err(|source| ClientError::Unsendable { what, source })?;
        let call = Call::begin_for(connection, request, fds, has_items, None).await.map_err(|error| match error {
            CallError::Unsendable(source) => ClientError::Unsendable { what, source },
            CallError::Ended(ending) => ended(what, ending),
        })?;
        Ok(Self { call, what })
    }

    /// Returns the call's name in errors.
    pub(crate) fn what(&self) -> &'static str {
        self.what
    }

    /// Waits for the next item; `None` when the reply comes next. Cancellation-safe: no item is lost.
    pub(crate) async fn next_item(&mut self) -> Option<Item> {
        self.call.next_item().await
    }

    /// Waits for the reply. Items that were not taken are dropped. Cancellation-safe; not to be called after its end.
    pub(crate) async fn reply(&mut self) -> Result<Response, ClientError> {
        let answer = self.call.reply().await.map_err(|ending| ended(self.what, ending))?;
        let plain = answer.map_err(ClientError::Api)?.plain();
        plain.map_err(|source| wrong(self.what, ProtocolError::Text { source }))
    }

    /// The same, with the descriptors that came with it.
    pub(crate) async fn answer(&mut self) -> Result<Answer<ApiSocket>, ClientError> {
        let answer = self.call.answer().await.map_err(|ending| ended(self.what, ending))?;
        answer.map_err(ClientError::Api)
    }

    /// Asks the daemon to end the call early; its last items and its reply still come.
    pub(crate) fn cancel(&self) {
        self.call.cancel();
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

fn ended(what: &'static str, ending: Ending) -> ClientError {
    match ending {
        Ending::Lost(source) => ClientError::Lost { what, source },
        Ending::Broken(violation) => wrong(what, ProtocolError::Session(violation)),
    }
}

pub(crate) fn wrong(what: &'static str, error: ProtocolError) -> ClientError {
    ClientError::Protocol { what, source: Arc::new(error) }
}

fn item_name(item: &Item) -> &'static str {
    match item {
        Item::Progress { .. } => "Progress",
        Item::Started { .. } => "Started",
        Item::Log(_) => "Log",
        Item::Event { .. } => "Event",
        Item::EventGap { .. } => "EventGap",
        Item::Executes { .. } => "Executes",
        Item::Follows => "Follows",
    }
}

fn response_name(response: &Response) -> &'static str {
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
        Response::Executes { .. } => "Executes",
        Response::Execs(_) => "Execs",
        Response::Stats { .. } => "Stats",
        Response::Processes(_) => "Processes",
        Response::InfoText(_) => "InfoText",
        Response::PageText { .. } => "PageText",
        Response::Attached { .. } => "Attached",
    }
}
