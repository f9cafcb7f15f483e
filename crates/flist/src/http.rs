//! The HTTP client for blocks and flists: its limits, and its failures without credentials.

use std::io;
use std::time::Duration;

use ureq::Agent;
use ureq::unversioned::transport::DefaultConnector;

use crate::net::{NetRoutes, PolicyResolver};

/// The longest time to connect, the lookup of the name included.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// The most redirects followed. A store behind a load balancer needs one; a loop must end.
pub(crate) const MAX_REDIRECTS: u32 = 3;

/// The most idle connections kept per store: as many as readers that download at once.
const MAX_IDLE_CONNECTIONS: usize = 16;

/// An exchange with a server failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HttpFailure {
    /// The name has no address.
    #[error("the host name is unknown")]
    UnknownHost,
    /// The connection could not be made.
    #[error("no connection")]
    Connect,
    /// The policy forbids the address, for example because it is on this machine.
    #[error("a flist from the network may not name this address")]
    Forbidden,
    /// A timeout expired.
    #[error("no complete answer in time")]
    Timeout,
    /// The connection broke.
    #[error("the connection broke")]
    Io(#[source] io::Error),
    /// The body ended before the announced length.
    #[error("the answer ended after {received} of {announced} bytes")]
    CutShort {
        /// The bytes received.
        received: u64,
        /// The bytes that the header announced.
        announced: u64,
    },
    /// More redirects than [`MAX_REDIRECTS`], or one that cannot be followed.
    #[error("too many redirects, or an invalid one")]
    Redirect,
    /// A redirect led from https to http. Never followed: the path, which may hold a secret, would be sent unencrypted.
    #[error("a redirect led from https to http")]
    Downgrade,
    /// The certificate or the encryption was refused.
    #[error("the secure connection was refused: {0}")]
    Tls(Box<str>),
    /// The answer is not valid HTTP.
    #[error("the answer is not valid HTTP: {0}")]
    Protocol(Box<str>),
}

impl HttpFailure {
    /// Converts an error of the client, and drops texts that may quote a URL.
    pub(crate) fn from_client(error: ureq::Error) -> Self {
        match error {
            ureq::Error::HostNotFound => Self::UnknownHost,
            ureq::Error::ConnectionFailed => Self::Connect,
            ureq::Error::Timeout(_) => Self::Timeout,
            ureq::Error::Io(source) if source.kind() == io::ErrorKind::TimedOut => Self::Timeout,
            ureq::Error::Io(source) if source.kind() == io::ErrorKind::PermissionDenied => Self::Forbidden,
            ureq::Error::Io(source) => Self::Io(source),
            ureq::Error::TooManyRedirects | ureq::Error::RedirectFailed => Self::Redirect,
            ureq::Error::RequireHttpsOnly(_) => Self::Downgrade,
            ureq::Error::Tls(reason) => Self::Tls(reason.into()),
            ureq::Error::Rustls(reason) => Self::Tls(reason.to_string().into()),
            ureq::Error::BadUri(_) => Self::Protocol("a URL was refused".into()),
            ureq::Error::Protocol(reason) => Self::Protocol(reason.to_string().into()),
            ureq::Error::Http(reason) => Self::Protocol(reason.to_string().into()),
            _ => Self::Protocol("the client refused it".into()),
        }
    }

    /// Tells whether a retry soon may succeed.
    pub(crate) fn is_transient(&self) -> bool {
        match self {
            Self::UnknownHost | Self::Connect | Self::Timeout | Self::Io(_) | Self::CutShort { .. } => true,
            Self::Forbidden | Self::Redirect | Self::Downgrade | Self::Tls(_) | Self::Protocol(_) => false,
        }
    }
}

/// Tells whether a status asks for a retry.
pub(crate) fn is_transient_status(status: u16) -> bool {
    matches!(status, 408 | 425 | 429 | 500..=599)
}

/// The limits of a client.
#[derive(Debug, Clone)]
pub(crate) struct Bounds {
    /// The longest time for one exchange.
    pub(crate) whole: Duration,
    /// The longest time without a byte.
    pub(crate) silence: Duration,
    /// Refuses http, also after a redirect.
    pub(crate) https_only: bool,
    /// The hosts that it may connect to.
    pub(crate) hosts: NetRoutes,
}

/// Makes a client that returns redirects to its caller; otherwise as [`agent`].
pub(crate) fn agent_without_redirects(bounds: Bounds) -> Agent {
    make(bounds, 0)
}

/// Makes a client that keeps connections. A redirect never carries a password.
pub(crate) fn agent(bounds: Bounds) -> Agent {
    make(bounds, MAX_REDIRECTS)
}

fn make(bounds: Bounds, redirects: u32) -> Agent {
    let config = Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(redirects)
        .https_only(bounds.https_only)
        .max_idle_connections(MAX_IDLE_CONNECTIONS)
        .max_idle_connections_per_host(MAX_IDLE_CONNECTIONS)
        .timeout_global(Some(bounds.whole))
        .timeout_resolve(Some(CONNECT_TIMEOUT))
        .timeout_connect(Some(CONNECT_TIMEOUT))
        .timeout_per_read(Some(bounds.silence))
        .timeout_per_write(Some(bounds.silence))
        .user_agent(concat!("contd/", env!("CARGO_PKG_VERSION")))
        .build();
    Agent::with_parts(config, DefaultConnector::default(), PolicyResolver(bounds.hosts))
}

/// Checks that a URL has a host, so that later errors need not quote it.
pub(crate) fn is_valid_url(url: &str) -> bool {
    url.parse::<ureq::http::Uri>().is_ok_and(|uri| uri.host().is_some_and(|host| !host.is_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_for_https_does_not_speak_http() {
        let second = Duration::from_secs(1);
        let bounds = Bounds { whole: second, silence: second, https_only: true, hosts: NetRoutes::Any };
        // The client checks each request, also after a redirect.
        let error = agent(bounds).get("http://127.0.0.1:1/secret").call().unwrap_err();
        let failure = HttpFailure::from_client(error);
        assert!(matches!(failure, HttpFailure::Downgrade), "{failure:?}");
        assert!(!failure.is_transient() && !format!("{failure} {failure:?}").contains("secret"));
    }
}
