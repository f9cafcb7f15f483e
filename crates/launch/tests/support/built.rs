//! Builds programs of our other packages for tests.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Builds a binary of another of our packages and returns its path.
pub(crate) fn built(package: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_BIN_EXE_contd-launch")).with_file_name(package);
    if std::env::var_os("CONTD_BINARIES_ARE_BUILT").is_none() {
        let status = Command::new(env!("CARGO")).args(["build", "--offline", "-p", package]).status().unwrap();
        assert!(status.success(), "build {package}");
    }
    assert!(path.exists(), "{} is missing", path.display());
    path
}
