//! The cgroup that an OCI runtime has made and knows nothing of any more: it was killed before it wrote that down.

use std::path::{Path, PathBuf};

use contd_cgroup::{Cgroup, CgroupError, Hierarchies};
use contd_durable::{Fs, RealFs};

/// An OCI configuration with a large seccomp profile has some 100 KiB.
const MAX_CONFIG_BYTES: u64 = 4 * 1024 * 1024;

/// Removes the cgroup that a bundle names, as far as it is there and nobody is in it.
pub(crate) fn remove_cgroup(hierarchies: &Hierarchies, bundle: &Path) -> Result<(), CgroupError> {
    let Some(path) = cgroups_path(bundle) else { return Ok(()) };
    match Cgroup::open(hierarchies, &path)? {
        Some(cgroup) => cgroup.try_remove().map(drop),
        None => Ok(()),
    }
}

/// Reads `linux.cgroupsPath` of a bundle, when it is an absolute path.
fn cgroups_path(bundle: &Path) -> Option<PathBuf> {
    let bytes = RealFs.read(&bundle.join("config.json"), MAX_CONFIG_BYTES).ok()?;
    let config: serde_json::Value = serde_json::from_slice(&bytes).ok()?;
    let path = PathBuf::from(config.get("linux")?.get("cgroupsPath")?.as_str()?);
    path.is_absolute().then_some(path)
}
