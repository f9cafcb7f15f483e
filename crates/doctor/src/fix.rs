//! The safe remedies. Each names one thing of ours, looks at it again before it is touched, and may be repeated.
//!
//! Processes end by lease and pidfd, never by a bare pid; nothing outside of our own directories and below our own cgroup
//! parent is touched. Whether a thing belongs to a container with a record was decided by the check that asks for it,
//! which has looked twice: an id without a record never gets one later.

use std::fmt;
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use contd_bundle::{Bundles, DirBundles};
use contd_cgroup::{Cgroup, CgroupError, Hierarchies};
use contd_durable::{RealFs, sweep_temps};
use contd_lease::{LeaseDir, LeaseError, LeaseState, ProcessError, ProcessIdentity, pidfd, signal, wait_dead};
use contd_rootfs::{MountConfig, MountRootfs, RootfsError, RootfsProvider, survey};
use contd_shim_client::{ProcessShimClient, ShimClient, ShimClientConfig, ShimError};
use contd_types::{ContainerId, ErrorKind, Explain, NamespaceId};
use nix::errno::Errno;
use nix::mount::{MntFlags, umount2};

use crate::members;
use crate::node::Node;

/// How long a process that was killed may take to be gone.
const KILLED: Duration = Duration::from_secs(10);

/// How often processes that are not certainly ours are looked at again, and the pause between: a second in all.
const MAX_LOOKS: u32 = 20;
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// The remedies of `--fix`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fix {
    /// Ends a shim, its container, and what both left.
    EndShim {
        /// Its namespace.
        namespace: NamespaceId,
        /// Its id.
        id: ContainerId,
    },
    /// Ends a warm slot.
    EndSlot {
        /// Its id.
        id: ContainerId,
    },
    /// Removes a lease that nobody holds.
    RetireLease {
        /// The directory of the lease.
        dir: PathBuf,
    },
    /// Unmounts a container's root and takes it off the users of its flist.
    ReleaseRoot {
        /// Its namespace.
        namespace: NamespaceId,
        /// Its id.
        id: ContainerId,
    },
    /// Ends a flist server without users.
    EndServer {
        /// Its name, as `contd flist server ls` shows it.
        key: String,
    },
    /// Ends the processes of a helper whose lease is gone.
    EndProcesses {
        /// Exactly these.
        identities: Vec<ProcessIdentity>,
    },
    /// Unmounts what contd mounted.
    Unmount {
        /// Where it is mounted.
        point: PathBuf,
    },
    /// Removes a cgroup below the parent, with processes that are of this node.
    RemoveCgroup {
        /// Its path in each hierarchy.
        path: PathBuf,
    },
    /// Removes a file, a socket or a FIFO.
    RemoveFile {
        /// Where it is.
        path: PathBuf,
    },
    /// Removes a directory of scratch or of a runtime's state.
    RemoveDirectory {
        /// Where it is.
        path: PathBuf,
    },
    /// Removes bundle and directory of a container.
    RemoveContainer {
        /// Its namespace.
        namespace: NamespaceId,
        /// Its id.
        id: ContainerId,
    },
}

/// Ends the sentence that begins with `contd doctor --fix`.
impl fmt::Display for Fix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::EndShim { .. } => "ends the shim, its container and their cgroup, and removes the lease",
            Self::EndSlot { .. } => "ends the warm slot with its cgroup",
            Self::RetireLease { .. } => "removes the lease directory",
            Self::ReleaseRoot { .. } => "unmounts the root and takes it off the users of its flist",
            Self::EndServer { .. } => "ends the flist server and removes its directory",
            Self::EndProcesses { .. } => "ends the processes by their pidfds",
            Self::Unmount { .. } => "unmounts it",
            Self::RemoveCgroup { .. } => "removes the cgroup in each hierarchy",
            Self::RemoveFile { .. } => "removes the file",
            Self::RemoveDirectory { .. } => "removes the directory",
            Self::RemoveContainer { .. } => "removes the bundle and the directory",
        })
    }
}

/// Why a remedy was not applied.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FixError {
    /// A shim and what it left.
    #[error(transparent)]
    Shim(#[from] ShimError),
    /// A lease.
    #[error(transparent)]
    Lease(#[from] LeaseError),
    /// A root or a flist server.
    #[error(transparent)]
    Rootfs(#[from] RootfsError),
    /// A bundle.
    #[error(transparent)]
    Bundle(#[from] contd_bundle::BundleError),
    /// A cgroup.
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    /// A process.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// A file or a mount.
    #[error("{verb} {}", path.display())]
    Path {
        /// The operation.
        verb: &'static str,
        /// On what.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It has changed since it was found.
    #[error("leave {what} alone: {why}")]
    Changed {
        /// The thing.
        what: String,
        /// Why.
        why: &'static str,
    },
}

impl Explain for FixError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Shim(error) => error.kind(),
            Self::Rootfs(error) => error.kind(),
            Self::Bundle(error) => error.kind(),
            Self::Changed { .. } => ErrorKind::Conflict,
            Self::Lease(_) | Self::Cgroup(_) | Self::Process(_) | Self::Path { .. } => ErrorKind::Unavailable,
        }
    }

    fn hint(&self) -> Option<String> {
        let text = match self {
            Self::Shim(error) => return error.hint(),
            Self::Rootfs(error) => return error.hint(),
            Self::Bundle(error) => return error.hint(),
            Self::Lease(error) => error.hint(),
            Self::Cgroup(error) => error.hint(),
            Self::Process(error) => error.hint(),
            Self::Path { .. } => "look what is in it or holds it, remove it by hand, and run contd doctor again",
            Self::Changed { .. } => "run contd doctor again",
        };
        Some(text.to_owned())
    }
}

fn failed(verb: &'static str, path: &Path) -> impl FnOnce(io::Error) -> FixError {
    let path = path.to_owned();
    move |source| FixError::Path { verb, path, source }
}

fn absent_is_fine(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

impl Fix {
    /// Applies it. That somebody else was faster is fine.
    pub(crate) async fn apply(&self, node: &Node<'_>) -> Result<(), FixError> {
        match self {
            Self::EndShim { namespace, id } => end_shim(node, namespace, id).await,
            Self::EndSlot { id } => end_slot(node, id),
            Self::RetireLease { dir } => Ok(LeaseDir::new(dir).retire()?),
            Self::ReleaseRoot { namespace, id } => release(node, namespace, id),
            Self::EndServer { key } => match survey::end_unused_server(&node.run, key)? {
                true => Ok(()),
                false => Err(FixError::Changed { what: format!("flist server {key}"), why: "it has a user now" }),
            },
            Self::EndProcesses { identities } => identities.iter().try_for_each(end_process),
            Self::Unmount { point } => match umount2(point, MntFlags::UMOUNT_NOFOLLOW) {
                Ok(()) | Err(Errno::EINVAL | Errno::ENOENT) => Ok(()),
                Err(errno) => Err(failed("unmount", point)(errno.into())),
            },
            Self::RemoveCgroup { path } => remove_cgroup(node, path),
            Self::RemoveFile { path } => remove_file(path),
            Self::RemoveDirectory { path } => {
                absent_is_fine(std::fs::remove_dir_all(path)).map_err(failed("remove", path))
            }
            Self::RemoveContainer { namespace, id } => remove_container(node, namespace, id),
        }
    }
}

fn shims(node: &Node<'_>) -> ProcessShimClient {
    // No shim is started here, so its program is not wanted.
    ProcessShimClient::new(ShimClientConfig { shim_binary: PathBuf::new(), run_dir: node.run.clone() })
}

fn rootfs(node: &Node<'_>) -> MountRootfs {
    MountRootfs::new(MountConfig {
        flistfs_binary: PathBuf::new(),
        run_dir: node.run.clone(),
        state_dir: node.state.clone(),
        cache_dir: node.cache.clone(),
    })
}

fn release(node: &Node<'_>, namespace: &NamespaceId, id: &ContainerId) -> Result<(), FixError> {
    let rootfs = rootfs(node);
    rootfs.release(namespace, id)?;
    // We end before a large layer is gone.
    rootfs.wait_for_removals();
    Ok(())
}

async fn end_shim(node: &Node<'_>, namespace: &NamespaceId, id: &ContainerId) -> Result<(), FixError> {
    let shims = shims(node);
    shims.end_silent(namespace, id).await?;
    shims.clean_up(namespace, id).await?;
    // The task may have been missing, and with it the word where the cgroup is.
    remove_cgroups(node, id)
}

fn end_slot(node: &Node<'_>, id: &ContainerId) -> Result<(), FixError> {
    let lease_dir = LeaseDir::new(node.lease_dir(id));
    if let LeaseState::Held(lease) = lease_dir.probe()?
        && let Some(process) = &lease.process
        && lease.boot_id == node.boot.as_str()
    {
        end_process(process)?;
    }
    remove_cgroups(node, id)?;
    Ok(lease_dir.retire()?)
}

fn end_process(identity: &ProcessIdentity) -> Result<(), FixError> {
    let Some(pidfd) = pidfd(identity)? else { return Ok(()) };
    signal(&pidfd, nix::libc::SIGKILL)?;
    if wait_dead(&pidfd, KILLED)? {
        return Ok(());
    }
    Err(FixError::Changed { what: format!("process {}", identity.pid), why: "it was killed and does not end" })
}

fn remove_cgroups(node: &Node<'_>, id: &ContainerId) -> Result<(), FixError> {
    node.cgroups_of(id.as_str()).iter().try_for_each(|path| remove_cgroup(node, path))
}

fn remove_cgroup(node: &Node<'_>, path: &Path) -> Result<(), FixError> {
    let Some(cgroup) = Cgroup::open(&Hierarchies::read()?, path)? else { return Ok(()) };
    let mut looks = 1;
    let pids = loop {
        let pids = members::of(path);
        if pids.iter().all(|pid| members::is_of(*pid, node)) {
            break pids;
        }
        // One that is just ending, its shim being dead, tells nothing about itself any more.
        if looks == MAX_LOOKS {
            let what = format!("the cgroup {}", path.display());
            return Err(FixError::Changed { what, why: "it has processes that are not certainly of this node" });
        }
        looks += 1;
        std::thread::sleep(LOOK_EVERY);
    };
    if !pids.is_empty() {
        cgroup.thaw()?;
        cgroup.kill_all()?;
    }
    Ok(cgroup.remove(KILLED)?)
}

/// Removes what holds no content that anybody could miss: the check has chosen it by kind and name.
fn remove_file(path: &Path) -> Result<(), FixError> {
    match path.symlink_metadata() {
        Ok(metadata) if metadata.is_dir() => {
            Err(FixError::Changed { what: path.display().to_string(), why: "it is a directory now" })
        }
        Ok(metadata) if metadata.file_type().is_socket() && is_listening(path) => {
            Err(FixError::Changed { what: path.display().to_string(), why: "somebody listens there now" })
        }
        Ok(_) => absent_is_fine(std::fs::remove_file(path)).map_err(failed("remove", path)),
        Err(error) => absent_is_fine(Err(error)).map_err(failed("look at", path)),
    }
}

/// Tells whether somebody listens at a socket; what cannot be known counts as yes.
pub(crate) fn is_listening(path: &Path) -> bool {
    match std::os::unix::net::UnixStream::connect(path) {
        Ok(_) => true,
        Err(error) => !matches!(error.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound),
    }
}

fn remove_container(node: &Node<'_>, namespace: &NamespaceId, id: &ContainerId) -> Result<(), FixError> {
    release(node, namespace, id)?;
    DirBundles::new(Arc::new(RealFs), &node.state).remove(namespace, id)?;
    let dir = node.state.join(namespace.as_str()).join(id.as_str());
    sweep_temps(&RealFs, &dir).map_err(|error| {
        let source = io::Error::other(error.to_string());
        failed("remove the temp files in", &dir)(source)
    })?;
    absent_is_fine(std::fs::remove_dir(&dir)).map_err(failed("remove", &dir))?;
    // The namespace's directory goes with its last container, as the daemon does it.
    let _only_when_empty = std::fs::remove_dir(node.state.join(namespace.as_str()));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_in_the_place_of_a_file_and_a_socket_with_a_listener_stay() {
        let dir = tempfile::tempdir().expect("a directory");
        let (sub, socket, file) = (dir.path().join("d"), dir.path().join("s"), dir.path().join("f"));
        std::fs::create_dir(&sub).expect("made");
        std::fs::write(&file, "").expect("written");
        let listener = std::os::unix::net::UnixListener::bind(&socket).expect("bound");
        assert!(matches!(remove_file(&sub), Err(FixError::Changed { .. })));
        assert!(matches!(remove_file(&socket), Err(FixError::Changed { .. })));
        drop(listener);
        for path in [&socket, &file, &file] {
            remove_file(path).expect("removed, or gone already");
            assert!(!path.exists());
        }
    }

    #[test]
    fn a_process_ends_by_its_identity_and_by_no_other() {
        let mut child = std::process::Command::new("sleep").arg("1000").spawn().expect("sleep is installed");
        let pid = i32::try_from(child.id()).expect("a pid");
        let identity = ProcessIdentity::of(pid).expect("looked").expect("lives");
        end_process(&ProcessIdentity { start_ticks: identity.start_ticks + 1, ..identity }).expect("nobody");
        assert!(child.try_wait().expect("asked").is_none(), "another process was ended");
        end_process(&identity).expect("ended");
        child.wait().expect("reaped");
        end_process(&identity).expect("twice is fine");
    }
}
