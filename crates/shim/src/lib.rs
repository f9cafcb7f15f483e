//! contd-shim: one small process per container that keeps its descriptors and outlives the daemon.
