//! The Debian package of the programs that are tested, for the tests in nodes that install it.

use std::path::Path;
use std::process::{Command, Stdio};

/// Makes the package of the programs in a directory, and returns its path.
///
/// # Errors
/// When what it takes cannot be installed, or `contrib/deb.sh` fails.
pub(crate) fn make(programs: &Path, target: Option<&str>) -> Result<String, String> {
    let installed = Command::new(".ci/deps").arg("deb").args(target).status();
    match installed.map_err(|error| format!("run .ci/deps: {error}"))? {
        status if status.success() => {}
        status => return Err(format!(".ci/deps deb: {status}")),
    }
    let mut command = Command::new("contrib/deb.sh");
    // It is unpacked on an emulated machine.
    command.arg(programs).env("DPKG_DEB_COMPRESSOR_TYPE", "none").stderr(Stdio::piped());
    let output = command.output().map_err(|error| format!("run contrib/deb.sh: {error}"))?;
    if !output.status.success() {
        return Err(format!("make the package: {}\n{}", output.status, String::from_utf8_lossy(&output.stderr)));
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
