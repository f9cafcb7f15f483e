//! From a flist to a container's root: fetches it, starts or finds its server, lays the overlay on top.
//!
//! ```text
//!  flist source ──► <cache>/fl/<hash>.fl ──► contd-flistfs (one per flist) ──► <run>/f/<16 hex>/mnt   (shared, read-only)
//!                                                                                  │ lower
//!   a directory on disk, a size-limited tmpfs, or the caller's directory ── upper ──► overlay at <state>/<ns>/<id>/rootfs
//! ```
//!
//! Takes in: what a container's root shall be ([`PrepareRootfs`]). Gives out: a mounted directory ([`PreparedRootfs`]).
//! Never does: decide when; it keeps no state but what lies on disk and in the mount table, so that a new daemon knows
//! everything the old one knew.
//!
//! | on disk | what |
//! |---|---|
//! | `<run>/f/<16 hex>/` | the lease directory of one flist's server: `lease.json`, `lock`, `serve.json`, `server.json`, `sock`, `flistfs.log` |
//! | `<run>/f/<16 hex>-1/` … | the same of a further one, while an earlier one cannot be used and is still there |
//! | `<run>/f/<16 hex>/mnt` | where it mounts the flist |
//! | `<run>/f/<16 hex>/users/<ns>@<id>` | one file per container that uses it; its text is the flist's whole hash |
//! | `<state>/<ns>/<id>/rootfs` | the container's root, a mount point |
//! | `<state>/<ns>/<id>/disk` | its writable layer on disk (a subvolume on btrfs): `upper`, `work`, and `flist`, the hash of what it lies over |
//! | `<state>/<ns>/<id>/layer` | the tmpfs of a writable layer in memory, a mount point |
//! | `<state>/<ns>/<id>/directories.json` | what it has of callers' directories |
//! | `<state>/<ns>/<id>/binds/<n>` | the source of the n-th mount of a caller with limited rights, a mount point |
//! | `<state>/.removed/` | layers on disk that are just being removed |
#![deny(unsafe_code)]

mod btrfs;
mod client;
mod detach;
#[cfg(any(test, feature = "testing"))]
pub mod fake;
pub mod grant;
mod images;
mod layers;
mod mount;
mod mount_table;
pub mod provider;
mod quota;
mod removal;
mod server;
mod servers;
mod source;
mod sources;
mod start;
pub mod survey;
#[expect(unsafe_code, reason = "the kernel calls of quotas and of btrfs, which nix does not offer")]
mod sys;
mod uppers;
mod users;

pub use contd_flist::ImageDefaults;
pub use contd_protocol::flistfs::LimitedRoutes;
pub use grant::{BindGrant, FlistGrant, Grant, Sources};
pub use mount::{MountConfig, MountRootfs};
pub use mount_table::{Mount, MountTable};
pub use provider::{
    FetchProgress, LostRootfs, PrepareRootfs, PreparedLayer, PreparedRootfs, RecoveredRootfs, RootfsError,
    RootfsProvider,
};
pub use removal::REMOVED_DIR;
