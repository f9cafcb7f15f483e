//! The messages of contd's local sockets, and how they become bytes. No I/O: callers bring the socket.
//!
//! ```text
//!  socket bytes ──► FrameReader ──► Frame { version, kind, body } ──► codec::decode::<T>(body) ──► T  ┐ Session: hello,
//!  T ──► codec::encode ──► Frame::to_bytes ──► socket bytes                                             ┘ versions, limits
//! ```
//!
//! A frame on the wire, all numbers little-endian:
//!
//! | bytes | what |
//! |---|---|
//! | 4 | length of the body in bytes, at most the reader's limit |
//! | 2 | protocol version of the body |
//! | 2 | kind: see [`frame::Kind`] |
//! | length | body: bincode with fixed-size little-endian integers (`bincode::config::legacy()`, which is bincode 1's default) |
//!
//! In a body: integers have their own width; `usize` and lengths are 8 bytes; an enum is the 4-byte index of its variant,
//! then its fields; `Option` is one byte 0 or 1, then the value; a string or list is its length, then its bytes or items;
//! a map is its length, then key and value in turn; `Duration` is 8 bytes of seconds and 4 of nanoseconds; `bool` is a byte.
//!
//! Every connection begins with [`hello::Hello`] in a frame of version 0, whose layout never changes; the answer names
//! the version that both speak from there on. Enums are append-only; golden bytes in the tests pin the format.
//!
//! - [`api`]: callers and the daemon. Many calls at once, streams with credit.
//! - [`shim`]: the daemon and one container's shim.
//! - [`flistfs`]: the daemon and one flist's server.
//! - [`handover`]: a daemon and its successor.
//! - [`holder`]: the daemon and the ancestor of its shims; not in frames.
//!
//! A [`session`] is one connection of any of them, without its socket.
#![forbid(unsafe_code)]

pub mod api;
pub mod codec;
pub mod flistfs;
pub mod frame;
pub mod handover;
pub mod hello;
pub mod holder;
pub mod session;
pub mod shim;

pub use codec::{CodecError, decode, encode};
pub use frame::{Frame, FrameError, FrameReader, Kind};
pub use hello::{Hello, HelloReply, Refusal, VersionRange, negotiate};
pub use session::{Protocol, Session, Violation};

/// The most bytes of a frame's body on the API socket: a spec of 256 KiB with room for the rest.
pub const MAX_API_BODY_BYTES: usize = 1024 * 1024;
/// The most bytes of a frame's body on a shim's or flist server's socket: their messages are small.
pub const MAX_CONTROL_BODY_BYTES: usize = 64 * 1024;
