//! Drivers of [`contd_protocol::Session`] over Unix sockets, for programs without an async runtime.
//!
//! Takes in: connected sockets, requests and answers. Gives out: messages, with the descriptors that came beside them.
//! Never does: listen or accept, start threads, know what a request means.
//!
//! - [`Blocking`]: one message at a time, with the socket's own time-outs; descriptors travel with messages. For callers and
//!   for servers that give each connection a thread.
//! - [`Polled`]: the answering side on a non-blocking socket, in the `poll(2)` loop of its owner.
#![forbid(unsafe_code)]

mod blocking;
mod error;
mod polled;

pub use blocking::{Blocking, connect};
pub use error::SessionError;
pub use polled::{ConnectionEnd, Polled, Received, refuse};
