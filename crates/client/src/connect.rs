//! Reaching the daemon: the socket, then the hello.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use contd_protocol::api::ApiSocket;
use contd_session_tokio::{Connection, GreetError, greet};

use crate::call::wrong;
use crate::deadline::within;
use crate::error::{ClientError, ProtocolError};

/// The name and version in our hello.
const AGENT: &str = concat!("contd-client/", env!("CARGO_PKG_VERSION"));
/// The call's name in errors.
const WHAT: &str = "greet the daemon";

/// Connects and agrees on a version.
pub(crate) async fn connect(path: &Path, limit: Option<Duration>) -> Result<Arc<Connection<ApiSocket>>, ClientError> {
    within(WHAT, limit, async {
        let connected = contd_session_tokio::connect(path).await;
        let stream = connected.map_err(|source| ClientError::Connect { path: path.to_owned(), source })?;
        let (session, welcome) = greet(&stream, AGENT).await.map_err(|error| match error {
            GreetError::Lost { source } => ClientError::Lost { what: WHAT, source: Arc::new(source) },
            GreetError::Violation { source } => wrong(WHAT, ProtocolError::Session(Arc::new(source))),
            GreetError::Refused { source } => ClientError::Refused { path: path.to_owned(), source },
            GreetError::Unsendable { source } => ClientError::Unsendable { what: WHAT, source },
        })?;
        Ok(Arc::new(Connection::start(stream, session, welcome)))
    })
    .await
}
