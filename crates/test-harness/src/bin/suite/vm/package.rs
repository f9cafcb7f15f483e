//! The Debian package of the programs that are tested, for the tests in nodes that install it.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::build::Built;

/// The module of these tests in `tests/vm/`.
const MODULE: &str = "package::";

/// Tells whether a test finds the package beside the programs.
pub(crate) fn is_wanted_by(test: &str) -> bool {
    test.starts_with(MODULE)
}

/// Makes the package, and returns its path.
///
/// # Errors
/// When `contd` was not built, or `contrib/deb.sh` fails.
pub(crate) fn make(root: &Path, built: &Built) -> Result<String, String> {
    let contd = built.programs.iter().find(|program| program.ends_with("contd"));
    let dir = contd.and_then(|contd| contd.parent()).ok_or("cargo has not built contd")?;
    let mut command = Command::new(root.join("contrib/deb.sh"));
    // It is unpacked on an emulated machine.
    command.arg(dir).env("DPKG_DEB_COMPRESSOR_TYPE", "none").stderr(Stdio::piped());
    let output = command.output().map_err(|error| format!("run contrib/deb.sh: {error}"))?;
    if !output.status.success() {
        return Err(format!("make the package: {}\n{}", output.status, String::from_utf8_lossy(&output.stderr)));
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
