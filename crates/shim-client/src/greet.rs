//! Reaching a shim: its socket, whose it is, and which version both speak.

use std::path::Path;

use contd_protocol::Refusal;
use contd_protocol::shim::ShimSocket;
use contd_session_tokio::{Connection, GreetError};
use contd_types::{ApiError, ContainerId, ErrorKind, one_line};
use interprocess::local_socket::traits::StreamCommon as _;

use crate::{ShimError, deadline};

/// The name and version in our hello.
const AGENT: &str = concat!("contd-shim-client/", env!("CARGO_PKG_VERSION"));

/// Connects and says hello, within [`deadline::CONNECT`].
pub(crate) async fn connect(
    id: &ContainerId,
    socket: &Path,
    verb: &'static str,
) -> Result<Connection<ShimSocket>, ShimError> {
    let waited = deadline::CONNECT;
    match tokio::time::timeout(waited, connect_now(id, socket)).await {
        Ok(result) => result,
        Err(_elapsed) => Err(ShimError::Silent { id: id.clone(), verb, waited }),
    }
}

async fn connect_now(id: &ContainerId, socket: &Path) -> Result<Connection<ShimSocket>, ShimError> {
    let failed = |source| ShimError::Connect { id: id.clone(), socket: socket.to_owned(), source };
    let stream = contd_session_tokio::connect(socket).await.map_err(failed)?;
    let broken = |what: String| ShimError::Protocol { id: id.clone(), what };
    let owner = stream.peer_creds().map_err(failed)?.euid();
    if owner != Some(nix::unistd::geteuid().as_raw()) {
        return Err(broken(format!("its socket belongs to another user: uid {owner:?}")));
    }
    let (session, welcome) = contd_session_tokio::greet(&stream, AGENT).await.map_err(|error| match error {
        GreetError::Lost { source } => failed(source),
        GreetError::Refused { source } => refused(id, &source),
        GreetError::Violation { source } => broken(one_line(&source)),
        GreetError::Unsendable { source } => broken(one_line(&source)),
    })?;
    Ok(Connection::start(stream, session, welcome))
}

fn refused(id: &ContainerId, refusal: &Refusal) -> ShimError {
    let kind = match refusal {
        Refusal::NoCommonVersion { .. } => return ShimError::Protocol { id: id.clone(), what: refusal.to_string() },
        Refusal::Forbidden { .. } => ErrorKind::PermissionDenied,
        Refusal::TooManyConnections { .. } | Refusal::Full { .. } => ErrorKind::Busy,
    };
    ShimError::Refused {
        id: id.clone(),
        verb: "connect to the shim of",
        source: ApiError::new(kind, refusal.to_string()),
    }
}
