//! Lease files: how a process that outlives the daemon is found again, and never mistaken for another.
