//! To the supervisor, from [`crate::until_ended`] and from tests.

use actix::Message;
#[cfg(any(test, feature = "testing"))]
use contd_types::NamespaceId;

/// Never answered; the loss of the supervisor is the answer.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "()")]
pub(crate) struct AwaitEnd;

/// Makes one of the node's actors panic, to see that nobody notices. Feature `testing`.
#[cfg(any(test, feature = "testing"))]
#[derive(Debug, Clone, Message)]
#[rtype(result = "()")]
pub struct PlantPanic(pub PanicIn);

/// Which actor panics.
#[cfg(any(test, feature = "testing"))]
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PanicIn {
    /// The one that prepares roots.
    Flist,
    /// The one that writes bundles.
    Bundle,
    /// The one that keeps logs.
    Log,
    /// The one that keeps events.
    Event,
    /// A namespace's.
    Namespace(NamespaceId),
    /// A container's.
    Container(contd_protocol::api::Target),
    /// The supervisor itself: the node ends.
    Supervisor,
}
