//! Makes an OCI bundle from a container spec: `config.json` with the secure defaults, in its own directory.
//!
//! Takes in: a [`BundleRequest`]: a valid spec, a prepared root, a network namespace, the node's default limits.
//! Gives out: the OCI configuration ([`config`], [`preview`]), or a bundle directory ([`Bundles`]).
//! Never does: mounts, cgroups, processes, or reading anything of a flist other than inside its root
//! ([`root_file`]). Writes nothing into a root but the container's names (`own_names`).
//!
//! ```text
//! ContainerSpec ─ validate ─┬─ process   args, env, cwd, capabilities, rlimits ── user ── root_file (passwd, group)
//!                           ├─ mounts    the defaults, then the caller's by their depth
//!                           ├─ linux     namespaces, limits, devices, masked paths
//!                           └─ seccomp   profile (data) -> rules for these capabilities
//!                                   └──> config ──> json ──> DirBundles: <state>/<ns>/<id>/bundle/config.json
//! NetnsName ─ netns::resolve ─> /run/netns/NAME, checked to be a network namespace and not the host's own
//! ```
#![deny(unsafe_code)]

mod bundles;
mod config;
#[cfg(test)]
mod contract;
mod devices;
mod error;
#[cfg(any(test, feature = "testing"))]
mod fake;
mod json;
mod linux;
mod mounts;
pub mod netns;
mod nofile;
mod own_names;
mod process;
mod profile;
mod program;
mod request;
mod resolver;
pub mod root_file;
mod seccomp;
mod seccomp_file;
#[allow(unsafe_code, reason = "the one ioctl that asks a descriptor which kind of namespace it is")]
mod sys;
mod user;

pub use bundles::{BundleKey, Bundles, DirBundles};
pub use config::{ANNOTATION_NAME, ANNOTATION_NAMESPACE, config, preview};
pub use error::BundleError;
#[cfg(any(test, feature = "testing"))]
pub use fake::{Call, FakeBundles, Outcome};
pub use linux::{MASKED_PATHS, READONLY_PATHS, ResourceLimits, cgroup_limits, limits};
pub use nofile::{NOFILE_LIMIT, limit as nofile_limit};
pub use process::DEFAULT_PATH;
pub use request::{BundleRequest, Defaults, Netns};
pub use seccomp_file::ProfileError;
pub use user::{Identity, look_up as look_up_user};
