//! The ways in which a daemon makes containers: the one place that knows the configuration keys of the runtime.

use crate::calls::{Caller, SLEEP, TRUE, request, request_in};
use crate::floor::Took;
use crate::harness::{Flist, Node};

/// The number of warm slots, for the variants that have them.
const SLOTS: usize = 4;

/// A way to make containers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Variant {
    /// Our launcher, with warm slots.
    Slots,
    /// Our launcher, without warm slots.
    NoPool,
    /// `runc`, driven by our shim.
    Runc,
}

impl Variant {
    pub(crate) const ALL: [Self; 3] = [Self::Slots, Self::NoPool, Self::Runc];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Slots => "contd, warm slots",
            Self::NoPool => "contd, pool off",
            Self::Runc => "contd, with runc",
        }
    }

    /// Chooses the variant for the nodes that are started from here on: their harness reads these two variables.
    fn choose(self) {
        let (runtime, slots) = match self {
            Self::Slots => ("native", SLOTS),
            Self::NoPool => ("native", 0),
            Self::Runc => ("runc", 0),
        };
        for (key, value) in [("CONTD_TEST_RUNTIME", runtime), ("CONTD_TEST_SLOTS", &slots.to_string())] {
            // SAFETY: no other thread reads or writes the environment: contenders are started by the main thread before
            // a measurement has threads, which end with it; `inspect`, whose echo server stays, is the last.
            unsafe { std::env::set_var(key, value) };
        }
    }
}

/// A daemon of one variant with a flist that stays mounted, as on a node with running containers.
pub(crate) struct Contender {
    pub(crate) variant: Variant,
    pub(crate) node: Node,
    pub(crate) flist: Flist,
    pub(crate) caller: Caller,
}

impl Contender {
    pub(crate) fn start(variant: Variant) -> Self {
        Self::with_config(variant, "")
    }

    /// Makes one with more tables of configuration.
    pub(crate) fn with_config(variant: Variant, extra: &str) -> Self {
        variant.choose();
        let node = Node::with_config(extra);
        let flist = node.flist();
        let caller = Caller::connect(&node.socket());
        caller.run(request("keeper", flist.arg(), SLEEP));
        Self { variant, node, flist, caller }
    }

    /// Runs `/bin/true` in a network namespace, from the call to its removal.
    pub(crate) fn life(&self, netns: &str) -> Took {
        self.caller.whole_life(request_in(netns, "one", self.flist.arg(), TRUE))
    }

    /// Asserts that nothing is left behind.
    pub(crate) fn finish(self) {
        self.caller.delete("keeper");
        // The caller's connection is a descriptor of the daemon.
        drop(self.caller);
        self.node.finish();
    }
}
