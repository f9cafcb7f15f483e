//! The service manager of Zero-OS, for the tests in nodes that run contd by it.

use std::path::Path;
use std::process::Command;

use crate::build::cargo;

/// The newest version on crates.io that reads services from files; it stops them as those of Zero-OS do since May 2025.
const VERSION: &str = "=0.2.1";

/// Installs zinit from its registry beside the programs in a directory, unless it is there, and returns its path.
///
/// # Errors
/// When cargo cannot install it.
pub(crate) fn make(programs: &Path, target: Option<&str>) -> Result<String, String> {
    let dir = programs.join("zinit");
    let program = dir.join("bin/zinit");
    if !program.exists() {
        let mut command = Command::new(cargo());
        command.args(["install", "zinit", "--locked", "--version", VERSION, "--no-track", "--root"]).arg(&dir);
        command.args(target.iter().flat_map(|target| ["--target", target]));
        let status = command.status().map_err(|error| format!("run cargo install: {error}"))?;
        if !status.success() {
            return Err(format!("cargo install zinit: {status}"));
        }
    }
    Ok(program.display().to_string())
}
