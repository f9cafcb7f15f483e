//! How long a call may take.

use std::future::Future;
use std::time::Duration;

use crate::error::ClientError;

/// Connecting and the hello: the daemon answers from memory.
pub(crate) const CONNECT: Duration = Duration::from_secs(5);
/// For a look at the cache: a million blocks are walked in some seconds from a warm disk, and in some ten from a cold one.
pub(crate) const CACHE_WALK: Duration = Duration::from_secs(60);
/// Questions, answered from the daemon's memory.
pub(crate) const QUERY: Duration = Duration::from_secs(10);
/// Changes that make the daemon wait for a runtime or a disk.
pub(crate) const CHANGE: Duration = Duration::from_secs(60);
/// A run, until the container runs: a large flist over a slow line is fetched in it.
pub(crate) const RUN: Duration = Duration::from_secs(15 * 60);
/// The time of a stop beyond the container's own time-out: SIGKILL, draining, tidying.
pub(crate) const STOP_MARGIN: Duration = Duration::from_secs(30);
/// A stop whose time-out the container knows and we do not.
pub(crate) const STOP: Duration = Duration::from_secs(10 * 60);

/// The time a caller gives to a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Deadline {
    /// The usual one of the call; each method names it.
    #[default]
    Usual,
    /// This long.
    After(Duration),
    /// As long as it takes, or until the connection is lost.
    Never,
}

impl From<Duration> for Deadline {
    fn from(duration: Duration) -> Self {
        Self::After(duration)
    }
}

impl Deadline {
    /// Settles it; `usual` is what the call has, `None` for no end.
    pub(crate) fn resolve(self, usual: Option<Duration>) -> Option<Duration> {
        match self {
            Self::Usual => usual,
            Self::After(duration) => Some(duration),
            Self::Never => None,
        }
    }
}

/// Runs a call to its end or to its deadline. Dropping the call cancels it.
pub(crate) async fn within<T>(
    what: &'static str,
    limit: Option<Duration>,
    call: impl Future<Output = Result<T, ClientError>>,
) -> Result<T, ClientError> {
    match limit {
        None => call.await,
        Some(waited) => match tokio::time::timeout(waited, call).await {
            Ok(result) => result,
            Err(_elapsed) => Err(ClientError::TimedOut { what, waited }),
        },
    }
}
