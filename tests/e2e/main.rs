//! End to end, as root, with real containers: the daemon, the shims, the flist servers and `runc`, through the command.
//!
//! Every test has its own node: root directory, cgroup parent, socket, flist store. It counts what there is before the first
//! run and after the last delete, and demands equality ([`harness::Node::finish`]).
#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "tests: a broken assumption shall end the test, loudly, and real processes live in real time"
)]

use contd_test_harness as harness;

mod attach;
mod bad_input;
mod command_line;
mod doctor;
mod embedding;
mod exec;
mod holder;
mod isolation;
mod layers;
mod letting_go;
mod lifecycle;
mod limits;
mod logs_of_others;
mod logs_whole;
mod looking;
mod many;
mod mounts;
mod once;
mod out_of_resources;
mod own_names;
mod pausing;
mod promises;
mod reattach;
mod rights;
mod screen;
mod service;
mod shim_death;
mod shutdown;
mod story;
mod stuck;
mod takeover;
mod usage;
mod verbs;
