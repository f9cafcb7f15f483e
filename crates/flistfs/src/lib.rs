//! contd-flistfs: serves one flist by FUSE, read-only, and outlives the daemon.
//!
//! Takes in: a lease directory with a `serve.json`. Gives out: a mounted tree, and a control socket beside it.
//! Never does: write to what it serves, unmount unless it is told to, leave a request of the kernel without an answer.
//!
//! ```text
//!  contd-flistfs --dir DIR ──fork──► keeper: flist in memory, holds /dev/fuse, lock, socket
//!                                      └──fork──► server
//!  kernel ──/dev/fuse──► session (threads, slots) ──bytes──► wire ──Request──► ops ──► Flist (metadata, the keeper's pages)
//!                                                                        ├────► Content (blocks, verified)
//!                                                                        └────► passthrough (whole cached files)
//!         ◄── reads of whole cached files: no request, no server ──  <cache>/blocks, <cache>/files
//!  daemon ──<dir>/sock──► control (server.rs): Status, Shutdown;  successor ──► HandOver
//! ```
//!
//! Either of the two may be killed at any moment, and both may be replaced by a newer program, while containers read: the mount
//! stays, and the successor answers what was not answered (see `slots`, `keeper` and `handover`). Node ids are the flist's own
//! inode numbers and nothing is remembered per lookup, so any server can answer for any other.
//! What is remembered per open file is in a file of the lease directory, for the same successors.
//! Content never changes, so every answer may be cached for a year. See docs/flist-serving.md.
#![deny(unsafe_code)]

mod ahead;
mod error;
mod handles;
mod handover;
mod keeper;
pub mod launch;
pub mod log;
pub mod mount;
mod mount_state;
pub mod negotiate;
pub mod ops;
mod passthrough;
mod serve;
mod server;
pub mod session;
pub mod slots;
#[expect(unsafe_code, reason = "memory that is mapped, locked and given back")]
mod sys;
pub mod wire;
