//! Ids, specs, the lifecycle table, events and the errors that travel: no I/O.
