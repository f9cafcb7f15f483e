//! The tests of this crate, in one binary: it is linked once. A file that is not named here is found by `tests/workspace.rs`.

#[allow(unused_imports, reason = "by this name in the modules")]
use contd_test_harness::flist as support;

mod legacy;
mod legacy_hostile;
mod legacy_zdb;
mod made;
