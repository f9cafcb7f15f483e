//! A survey of flist servers, for programs that look after a node from outside of its daemon.
//!
//! Looking changes nothing. Ending takes the lease and the list of users as they are on disk. A daemon that runs beside it
//! has locks of its own: whoever begins to use a server in the very moment in which it is ended keeps it, or starts another.

use std::path::{Path, PathBuf};

use contd_lease::{LeaseError, LeaseState};
use contd_types::{ContainerId, NamespaceId};

use crate::mount_table::resolve;
use crate::provider::RootfsError;
use crate::quota;
use crate::servers::Servers;
use crate::users::disk;

/// One server's directory, as it was found.
#[derive(Debug)]
pub struct FoundServer {
    /// Its name in `<run>/f`.
    pub key: String,
    /// The directory.
    pub dir: PathBuf,
    /// The state of its lease, or why it cannot be read.
    pub state: Result<LeaseState, LeaseError>,
    /// The containers that are noted as its users.
    pub users: Vec<(NamespaceId, ContainerId)>,
    /// Whether its flist is mounted.
    pub is_mounted: bool,
    /// Whether it is told to end, and something of it could not be removed yet: the daemon tries again.
    pub is_ending: bool,
}

/// Lists the servers below a run directory, which must exist.
///
/// # Errors
/// [`RootfsError::Disk`] when directories or the mount table cannot be read.
pub fn servers(run_dir: &Path) -> Result<Vec<FoundServer>, RootfsError> {
    at(run_dir)?.survey()
}

/// Ends one server if nobody is noted as its user, and removes what it leaves; `false` when somebody is. Repeatable.
///
/// # Errors
/// [`RootfsError`] of the step that failed: the server is of no use any more then, and something is left of it.
pub fn end_unused_server(run_dir: &Path, key: &str) -> Result<bool, RootfsError> {
    at(run_dir)?.end_unused(key)
}

/// Has a server of this program take the place of the one that serves, under its containers; `false` when none serves.
/// If it fails, the server of before serves on.
///
/// # Errors
/// [`RootfsError`] of the step that failed.
pub fn upgrade_server(run_dir: &Path, key: &str, program: &Path) -> Result<bool, RootfsError> {
    with(program.to_owned(), run_dir)?.upgrade(key)
}

/// Tells whether the size of writable layers can be limited in this directory: whether its file system enforces quotas of
/// projects, or, on btrfs, of subvolumes.
///
/// # Errors
/// What the kernel says.
pub fn limits_layers(state_dir: &Path) -> std::io::Result<bool> {
    quota::is_supported(state_dir)
}

/// No server is started here, so the program is not needed.
fn at(run_dir: &Path) -> Result<Servers, RootfsError> {
    with(PathBuf::new(), run_dir)
}

/// None is started anew here, so the cache is not wanted.
fn with(program: PathBuf, run_dir: &Path) -> Result<Servers, RootfsError> {
    let run_dir = resolve(run_dir).map_err(|source| disk("find", run_dir, source))?;
    Ok(Servers::new(program, &run_dir, PathBuf::new()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_described_and_ended_only_without_users() {
        let run = tempfile::tempdir().unwrap();
        let dir = run.path().join("f/0123456789abcdef");
        let user = format!("default@{}", "a".repeat(32));
        std::fs::create_dir_all(dir.join("users")).unwrap();
        std::fs::write(dir.join("users").join(&user), "hash").unwrap();
        let found = servers(run.path()).unwrap();
        let [server] = found.as_slice() else { panic!("got {found:?}") };
        assert!(matches!(server.state, Ok(LeaseState::Absent)) && !server.is_mounted);
        assert_eq!(server.users.len(), 1);
        assert!(!end_unused_server(run.path(), &server.key).unwrap());
        std::fs::remove_file(dir.join("users").join(&user)).unwrap();
        assert!(end_unused_server(run.path(), &server.key).unwrap());
        assert!(!dir.exists());
        assert!(end_unused_server(run.path(), &server.key).unwrap(), "twice is fine");
    }

    #[test]
    fn a_node_that_never_served_has_no_servers() {
        assert!(servers(tempfile::tempdir().unwrap().path()).unwrap().is_empty());
    }
}
