//! Programs of the workspace that tests of other packages run.

use std::path::PathBuf;
use std::process::Command;
use std::sync::{Mutex, PoisonError};

static BUILDING: Mutex<()> = Mutex::new(());

/// Returns the path of a program of another package, which is named like it, built in the profile of the running test.
/// `make test` has built all; building one here again, alone, would compile its dependencies a second time.
#[track_caller]
pub fn built(package: &str) -> PathBuf {
    let own = std::env::current_exe().expect("own path");
    // <target>/<profile>/deps/<test>
    let dir = own.ancestors().nth(2).expect("the directory of the profile");
    if std::env::var_os("CONTD_BINARIES_ARE_BUILT").is_none() {
        let _one_at_a_time = BUILDING.lock().unwrap_or_else(PoisonError::into_inner);
        let mut build = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        build.args(["build", "--quiet", "--offline", "-p", package, "--bin", package]);
        if dir.ends_with("release") {
            build.arg("--release");
        }
        assert!(build.status().expect("cargo").success(), "{package} does not build");
    }
    let path = dir.join(package);
    assert!(path.exists(), "{} is missing", path.display());
    path
}
