//! The native launcher: makes a running, isolated process from an OCI bundle, without threads.
//!
//! Takes in: a bundle's `config.json`, the name of its cgroup, the container's output. Gives out: init, waiting for
//! "go" as in OCI, or the reason why not, with the field that it is about. Never does: supervision, logs, networks,
//! retries. No field of `config.json` is ignored silently.
//!
//! ```text
//! caller (contd-shim: single-threaded, reaps init)
//!   └ fork ► launcher   reads and checks config.json ([`config`]), opens all it names by descriptor and makes the
//!            │          [`plan`] ([`prepare`]); makes, enters and limits the cgroup
//!            └ clone3 ► init   carries out the plan ([`init`]): namespaces, mounts, pivot, devices, user; "ready";
//!                              waits for "go"; seccomp, exec
//! ```
//!
//! One more process in a running container is made in the same way, but its plan is not sent ([`exec`]).
//!
//! The plan is sent over a socket together with the descriptors ([`wire`]), so init may have been cloned long before
//! its program was known: that is a warm slot.
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
