//! The operations on a container that take time, one task each. A container has at most one of them under way.
//!
//! ```text
//! make      record, log ─► (a restart: a place) ─┬─ rootfs ─► bundle ─┬─► create ─► start ─► record running ─► reply
//!                                               └─ shim ─────────────┘   any failure: undo in reverse order
//! settle    the shim of an ended container: delete, shut down; a layer in memory: free
//! remove    shim, bundle, log, root; then the actor removes the record
//! recover   attach to the shim an earlier daemon started; decide what has become of the container
//! ```
//!
//! Tasks touch the world and return what came of it to their actor; they never touch the record. They outlive the actor, if need
//! be, to take back what they did; the operation lock of the container keeps a rebuilt actor's task waiting until then.

pub(crate) mod make;
pub(crate) mod operation;
pub(crate) mod recover;
pub(crate) mod remove;
pub(crate) mod undo;

use std::sync::Arc;
use std::time::Duration;

use contd_rootfs::{Grant, PrepareRootfs, PreparedRootfs};
use contd_shim_client::Shim;
use contd_types::{Caller, ContainerId, ContainerName, ContainerSpec, LayerKind, NamespaceId};
use tokio::sync::watch;
use tracing::{Instrument, Span};

use crate::config::Defaults;
use crate::error::StepError;
use crate::locks::ContainerLocks;
use crate::messages::node::BundleSpec;
use crate::services::Services;
use crate::shared::Shared;

use operation::{Kind, Operation};

/// The container that a task works for.
#[derive(Debug, Clone)]
pub(crate) struct Subject {
    pub(crate) shared: Arc<Shared>,
    pub(crate) services: Arc<Services>,
    pub(crate) locks: Arc<ContainerLocks>,
    pub(crate) namespace: NamespaceId,
    pub(crate) id: ContainerId,
    pub(crate) name: ContainerName,
    pub(crate) spec: Arc<ContainerSpec>,
    /// The caller, if its rights are limited.
    pub(crate) caller: Option<Arc<Caller>>,
    /// The operation that the task is part of, for the logs.
    pub(crate) operation: Operation,
}

impl Subject {
    pub(crate) fn new(
        shared: Arc<Shared>,
        services: Arc<Services>,
        namespace: NamespaceId,
        id: ContainerId,
        spec: Arc<ContainerSpec>,
        caller: Option<Caller>,
    ) -> Self {
        let (locks, name) = (shared.locks.of(&id), spec.name.clone());
        let operation = Operation::begin(Kind::Container, &namespace, &id, &name);
        Self { shared, services, locks, namespace, id, name, spec, caller: caller.map(Arc::new), operation }
    }

    /// Begins an operation: from here on lines are about it.
    pub(crate) fn begin(&mut self, kind: Kind) {
        self.operation = Operation::begin(kind, &self.namespace, &self.id, &self.name);
    }

    /// Returns the span of the operation.
    pub(crate) fn span(&self) -> &Span {
        self.operation.span()
    }

    /// Returns the shim for calls of the operation.
    pub(crate) fn shim_for(&self, shim: &Arc<dyn Shim>) -> Arc<dyn Shim> {
        shim.for_operation(self.operation.id())
    }

    /// Has its caller's rights judged by the rules as they are now; `None` for one without limits.
    pub(crate) fn judge(&self) -> Result<Option<Arc<Grant>>, StepError> {
        let Some(caller) = &self.caller else { return Ok(None) };
        let judged = self.shared.judge.judge(caller, &self.namespace, &self.spec).map_err(StepError::Denied)?;
        Ok(Some(judged.grant))
    }
}

impl Subject {
    /// Makes the request for its root: no directory of the caller's, not trusted.
    pub(crate) fn root_request(
        &self,
        defaults: &Defaults,
        is_read_only: bool,
        grant: Option<Arc<Grant>>,
    ) -> PrepareRootfs {
        let spec = &self.spec;
        PrepareRootfs {
            namespace: self.namespace.clone(),
            id: self.id.clone(),
            flist: spec.flist.clone(),
            is_read_only,
            layer: spec.layer.unwrap_or(defaults.layer),
            is_layer_required: spec.layer.is_some(),
            size_bytes: spec.rootfs_size_bytes.unwrap_or(defaults.rootfs_size_bytes),
            is_size_required: spec.rootfs_size_bytes.is_some(),
            upper_dir: None,
            is_trusted: false,
            grant,
            operation: Some(self.operation.id()),
        }
    }

    /// Makes what its bundle is made of, with the places where the sources of its binds were attached.
    pub(crate) fn bundle_spec(&self, defaults: &Defaults, prepared: PreparedRootfs) -> BundleSpec {
        let mut spec = Arc::clone(&self.spec);
        for (number, source) in prepared.sources {
            if let Some(mount) = Arc::make_mut(&mut spec).mounts.get_mut(number) {
                mount.source = source.to_string_lossy().into_owned();
            }
        }
        let (namespace, id, defaults) = (self.namespace.clone(), self.id.clone(), defaults.limits);
        BundleSpec { namespace, id, spec, defaults, root: prepared.root, image: prepared.image }
    }

    /// Tells where its writable layer lies, unless the caller gave a directory.
    pub(crate) fn layer(&self) -> LayerKind {
        self.spec.layer.unwrap_or(self.shared.settings().defaults.layer)
    }
}

/// A task's ear for "no more": a word, or the loss of its actor.
#[derive(Debug, Clone)]
pub(crate) struct Cancel(watch::Receiver<bool>);

/// The actor's end of a [`Cancel`]; dropping it cancels.
#[derive(Debug)]
pub(crate) struct CancelHandle(watch::Sender<bool>);

impl CancelHandle {
    /// Makes a pair.
    pub(crate) fn new() -> (Self, Cancel) {
        let (sender, receiver) = watch::channel(false);
        (Self(sender), Cancel(receiver))
    }

    /// Tells the task to take back what it did.
    pub(crate) fn cancel(&self) {
        self.0.send_replace(true);
    }
}

impl Cancel {
    /// Waits until the task is told to end.
    pub(crate) async fn cancelled(&mut self) {
        // Both the word and the loss of the sender end the wait.
        let _told_or_lost = self.0.wait_for(|is_told| *is_told).await;
    }

    /// Tells whether it was.
    pub(crate) fn is_cancelled(&self) -> bool {
        *self.0.borrow() || self.0.has_changed().is_err()
    }
}

/// Runs a step in a task of its own, so that giving up on it never stops it half-way: it ends unseen, and what it did is
/// taken back by the undo that waits behind it.
pub(crate) async fn shielded<T: 'static>(
    cancel: &Cancel,
    what: &'static str,
    deadline: Duration,
    step: impl Future<Output = Result<T, StepError>> + 'static,
) -> Result<T, StepError> {
    let mut cancel = cancel.clone();
    let task = actix_rt::spawn(step.in_current_span());
    tokio::select! {
        biased;
        () = cancel.cancelled() => Err(StepError::Cancelled),
        done = tokio::time::timeout(deadline, task) => match done {
            Ok(Ok(result)) => result,
            Ok(Err(_panicked)) => Err(StepError::Panicked { what }),
            Err(_elapsed) => Err(StepError::Deadline { what, waited: deadline }),
        },
    }
}
