//! contd-flistfs: serves one flist by FUSE, read-only, and outlives the daemon.
//!
//! Takes in: a lease directory with a `serve.json`. Gives out: a mounted tree, and a control socket beside it.
//! Never does: write to what it serves, start other processes, unmount unless it is told to (a successor may one day
//! serve the same mount), leave a request of the kernel without an answer.
//!
//! ```text
//!  kernel ──/dev/fuse──► session (6 threads) ──bytes──► wire ──Request──► ops ──► Flist (metadata, in memory)
//!                                                                         ├────► Content (blocks, verified)
//!                                                                         └────► passthrough (whole cached files)
//!         ◄── reads of whole cached files: no request, no server ──  <cache>/blocks, <cache>/files
//!  daemon ──<dir>/sock──► server: Status, Shutdown
//!  daemon ──spawns──► contd-flistfs --dir DIR: forks; the parent waits until the mount is ready; the child serves
//! ```
//!
//! Node ids are the flist's own inode numbers and nothing is remembered per lookup, so a restarted server could answer
//! for an old one. Content never changes, so every answer may be cached for a year. What is remembered per open file is
//! in a file of the lease directory, for the same successor. See docs/flist-serving.md.
#![deny(unsafe_code)]

mod ahead;
mod handles;
pub mod launch;
pub mod log;
pub mod mount;
pub mod negotiate;
pub mod ops;
mod passthrough;
pub mod serve;
pub mod server;
pub mod session;
#[expect(unsafe_code, reason = "fork, which nix marks unsafe, and mallopt")]
mod sys;
pub mod wire;
