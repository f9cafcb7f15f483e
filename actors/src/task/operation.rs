//! An operation on a container as the logs show it: a span with the container's names, and an id.
//!
//! ```text
//! INFO run{ns=default container=5f… name=web request=5b0c3f9a11d2}: lifecycle state=running event=started
//! ```
//!
//! Every line about a container is in such a span. The id goes to the shim and to a flist server that the operation starts.

use contd_types::{ContainerId, ContainerName, NamespaceId, RequestId};
use tracing::{Span, error_span, field};

use crate::random::request_id;

/// The kinds of operations; each is the name of a span.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The first run, or a preparation without a start.
    Run,
    /// A further start, by request or by policy.
    Start,
    /// The end, by request or because the node goes down.
    Stop,
    /// One signal.
    Kill,
    /// One more process.
    Exec,
    /// Processes stand still, or go on.
    Pause,
    /// The removal of the shim of a run that has ended.
    Settle,
    /// The removal of the container.
    Remove,
    /// The search for the shim, by a new daemon or after its loss.
    Recover,
    /// Everything else: looking, waiting, changing settings.
    Container,
}

/// One operation.
#[derive(Debug, Clone)]
pub(crate) struct Operation {
    span: Span,
    id: RequestId,
}

impl Operation {
    /// Begins an operation.
    pub(crate) fn begin(kind: Kind, namespace: &NamespaceId, container: &ContainerId, name: &ContainerName) -> Self {
        let id = request_id();
        // Spans are of the highest level, so that no filter for lines takes the names away from those that are left.
        macro_rules! span {
            ($name:literal) => {
                error_span!($name, ns = %namespace, %container, name = field::display(name), request = %id)
            };
        }
        let span = match kind {
            Kind::Run => span!("run"),
            Kind::Start => span!("start"),
            Kind::Stop => span!("stop"),
            Kind::Kill => span!("kill"),
            Kind::Exec => span!("exec"),
            Kind::Pause => span!("pause"),
            Kind::Settle => span!("settle"),
            Kind::Remove => span!("remove"),
            Kind::Recover => span!("recover"),
            Kind::Container => span!("container"),
        };
        Self { span, id }
    }

    /// Returns the span, for lines and futures of the operation.
    pub(crate) fn span(&self) -> &Span {
        &self.span
    }

    /// Returns the id, for the other processes.
    pub(crate) fn id(&self) -> RequestId {
        self.id
    }
}
