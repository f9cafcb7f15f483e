//! The tests of this crate, in one binary: it is linked once. A file that is not named here is found by `tests/workspace.rs`.

#[allow(unused_imports, reason = "by this name in the modules")]
use contd_test_harness::flist as support;

mod cache;
mod cache_full;
mod cache_processes;
mod cache_support;
mod damage;
mod fixtures;
mod hostile;
mod http;
mod outputs;
mod pack;
mod packed;
mod s3;
mod s3_server;
mod unpack;
mod verify;
mod web;
mod zdb;
