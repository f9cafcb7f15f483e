//! Finds the programs that a node starts: the OCI runtimes in `PATH`, and our own beside the running one.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::config::Config;

/// The OCI runtimes that are looked for when none is configured, in this order.
const KNOWN_RUNTIMES: [&str; 3] = ["runc", "crun", "youki"];
/// Where they are looked for when the environment has no `PATH`.
const FALLBACK_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Why a program is not there.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProgramError {
    /// There is no such runtime.
    #[error("find the default runtime {name:?}: it is neither native nor an OCI runtime in PATH")]
    NoRuntime {
        /// As configured.
        name: String,
    },
    /// A program that was named.
    #[error("find {what} at {}", path.display())]
    Missing {
        /// Which program.
        what: &'static str,
        /// Where it should be.
        path: PathBuf,
        /// Why it cannot be used.
        source: io::Error,
    },
    /// The daemon does not know where it lies itself.
    #[error("find the directory of the contd binary")]
    OwnPath {
        /// Why.
        source: io::Error,
    },
}

impl ProgramError {
    /// Says what to do next.
    pub fn hint(&self) -> String {
        match self {
            Self::NoRuntime { .. } => {
                "set runtime.default to native, install the runtime, or give its path as runtime.binary".into()
            }
            Self::Missing { what, .. } => {
                format!("install {what}, or set its path under [runtime] in the configuration")
            }
            Self::OwnPath { .. } => "set runtime.shim and runtime.flistfs in the configuration".into(),
        }
    }
}

/// The name of our own runtime.
pub const NATIVE: &str = "native";

/// The programs, by absolute path; each exists and can be executed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Programs {
    /// The OCI runtimes, by the names under which containers ask for them.
    pub oci: BTreeMap<String, PathBuf>,
    /// `contd-seccomp`.
    pub seccomp: PathBuf,
    /// `contd-shim`.
    pub shim: PathBuf,
    /// `contd-flistfs`.
    pub flistfs: PathBuf,
}

/// Finds them all. The OCI runtimes may be missing unless one is the default or was named.
///
/// # Errors
/// [`ProgramError`] for the first that is missing.
pub fn find(config: &Config) -> Result<Programs, ProgramError> {
    let path = std::env::var_os("PATH").unwrap_or_else(|| FALLBACK_PATH.into());
    let mut oci: BTreeMap<String, PathBuf> = KNOWN_RUNTIMES
        .iter()
        .filter_map(|name| Some(((*name).to_owned(), in_path(OsStr::new(name), &path)?)))
        .collect();
    if let Some(binary) = &config.runtime.binary {
        let found = if binary.components().count() > 1 {
            checked("the OCI runtime", binary.clone())?
        } else {
            in_path(binary.as_os_str(), &path).ok_or_else(|| ProgramError::Missing {
                what: "the OCI runtime",
                path: binary.clone(),
                source: io::Error::from(io::ErrorKind::NotFound),
            })?
        };
        let name = found.file_name().unwrap_or_default().to_string_lossy().into_owned();
        oci.insert(name, found);
    }
    let default = &config.runtime.default;
    if default != NATIVE && !oci.contains_key(default) {
        return Err(ProgramError::NoRuntime { name: default.clone() });
    }
    let beside = |what: &'static str, configured: &Option<PathBuf>| match configured {
        Some(path) => checked(what, path.clone()),
        None => {
            let own = std::env::current_exe().map_err(|source| ProgramError::OwnPath { source })?;
            checked(what, own.with_file_name(what))
        }
    };
    Ok(Programs {
        oci,
        seccomp: beside("contd-seccomp", &config.runtime.seccomp)?,
        shim: beside("contd-shim", &config.runtime.shim)?,
        flistfs: beside("contd-flistfs", &config.runtime.flistfs)?,
    })
}

fn in_path(name: &OsStr, path: &OsStr) -> Option<PathBuf> {
    std::env::split_paths(path).map(|dir| dir.join(name)).find(|candidate| check(candidate).is_ok())
}

fn checked(what: &'static str, path: PathBuf) -> Result<PathBuf, ProgramError> {
    match check(&path) {
        Ok(()) => Ok(path),
        Err(source) => Err(ProgramError::Missing { what, path, source }),
    }
}

fn check(path: &Path) -> io::Result<()> {
    let metadata = std::fs::metadata(path)?;
    let is_program = metadata.is_file() && metadata.permissions().mode() & 0o111 != 0 && path.is_absolute();
    if is_program { Ok(()) } else { Err(io::Error::from(io::ErrorKind::PermissionDenied)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_runtime_is_found_in_path_and_a_plain_file_is_not_one() {
        let dir = tempfile::tempdir().expect("temp");
        let program = dir.path().join("runc");
        std::fs::write(&program, "#!/bin/sh\n").expect("write");
        assert_eq!(in_path(OsStr::new("runc"), dir.path().as_os_str()), None);
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).expect("chmod");
        assert_eq!(in_path(OsStr::new("runc"), dir.path().as_os_str()), Some(program));
    }

    #[test]
    fn a_configured_runtime_that_is_missing_is_named() {
        let mut config = Config::default();
        config.runtime.binary = Some("/no/such/runtime".into());
        let error = find(&config).expect_err("missing");
        assert!(error.to_string().contains("/no/such/runtime"), "{error}");
    }
}
