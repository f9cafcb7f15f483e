//! Attempts to escape from a container, by a hostile image and from the inside: each must fail, on a cold and on a warm
//! start.
//!
//! The bundles are those that contd makes by default (`contd-bundle`); where a test is about one layer, the others are
//! removed: no seccomp, more capabilities. Each topic also shows once that its check can fail, by a bundle in which the
//! same attempt is meant to work. After each container, the host is as it was before (`scene`).
#![expect(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "tests end loudly")]

mod census;
mod programs;
mod run;
mod scene;

mod cgroups;
mod descriptors;
mod devices;
mod masks;
mod mount_targets;
mod namespaces;
mod own_program;
mod passwd;
mod proc_links;
mod remounts;
mod working_dir;
