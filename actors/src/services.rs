//! The actors that serve the whole node, as those of containers reach them.

use crate::addresses::Slot;
use crate::bundle::BundleActor;
use crate::event::EventActor;
use crate::flist::FlistActor;
use crate::log::LogActor;

/// Their addresses; the supervisor writes them. One per node.
#[derive(Debug, Default)]
pub(crate) struct Services {
    pub(crate) flist: Slot<FlistActor>,
    pub(crate) bundle: Slot<BundleActor>,
    pub(crate) log: Slot<LogActor>,
    pub(crate) event: Slot<EventActor>,
}
