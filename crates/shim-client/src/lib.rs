//! The way of the daemon to its shims: start, find again, connect, call.
