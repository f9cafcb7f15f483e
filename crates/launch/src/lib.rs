//! The native launcher: from an OCI bundle to a running, isolated process, in straight lines and without a thread.
//!
//! Takes in: a bundle's `config.json`, the name of its cgroup, the container's output. Gives out: init, waiting for
//! "go" as OCI has it, or the one reason why not, with the field it is about. Never does: supervision, logs, networks,
//! retries; nothing in `config.json` is ignored in silence.
//!
//! ```text
//! caller (contd-shim: single-threaded, reaps init)
//!   └ fork ► launcher   reads and checks config.json ([`config`]), opens all it names by descriptor and makes the
//!            │          [`plan`] ([`prepare`]); makes, enters and limits the cgroup
//!            └ clone3 ► init   carries out the plan ([`init`]): namespaces, mounts, pivot, devices, user; "ready";
//!                              waits for "go"; seccomp, exec
//! ```
//!
//! One more process in a running container comes about in the same way, without a plan that travels ([`exec`]).
//!
//! The plan travels over a socket with the descriptors beside it ([`wire`]), so init may have been cloned long before
//! anyone knew what it will run: that is a warm slot.
#![deny(unsafe_code)]

pub mod config;
pub mod exec;
pub mod fault;
pub mod init;
pub mod launcher;
pub mod plan;
pub mod prepare;
pub mod sealed;
pub mod seccomp;
#[expect(
    unsafe_code,
    reason = "clone3, the mount API, capabilities and exec, which nix does not offer safely or at all"
)]
pub(crate) mod sys;
pub mod wire;
