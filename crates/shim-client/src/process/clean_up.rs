//! Removing what a dead shim left. Each step may be repeated.

use std::io;
use std::path::PathBuf;
use std::process::Stdio;

use contd_cgroup::{Cgroup, Hierarchies};
use contd_durable::{Fs, RealFs};
use contd_lease::LeaseState;
use contd_protocol::shim::{RuntimeSpec, TaskSpec, files};

use super::launch::{Captured, run_captured};
use super::{Place, blocking};
use crate::{ShimError, deadline};

const VERB: &str = "clean up behind the shim of";

/// The order matters: init dies first, so that the runtime finds nothing to wait for; the lease directory with the task,
/// which says where the rest is, goes last.
pub(super) async fn clean_up(place: &Place) -> Result<(), ShimError> {
    let (init, task) = blocking(place, VERB, |place| {
        if let LeaseState::Held(_) = place.lease.probe().map_err(|source| place.lease_failed(source))? {
            return Err(ShimError::StillAlive { id: place.id.clone() });
        }
        let failed = |error| place.clean_up_failed(&place.file(files::INIT), error);
        let init = place.living_init().map_err(failed)?;
        if let Some(pidfd) = &init {
            contd_lease::signal(pidfd, nix::libc::SIGKILL).map_err(|error| failed(io::Error::other(error)))?;
        }
        Ok((init, place.read::<TaskSpec>(files::TASK)))
    })
    .await?;
    // Before waiting for init: a frozen one dies only when the runtime thaws it.
    let removed = match &task {
        Some(task) => remove_from_runtime(place, &task.runtime).await,
        None => Ok(()),
    };
    blocking(place, VERB, move |place| {
        let failed = |error| place.clean_up_failed(&place.file(files::INIT), error);
        if let Some(pidfd) = init {
            let is_dead =
                contd_lease::wait_dead(&pidfd, deadline::KILLED).map_err(|error| failed(io::Error::other(error)))?;
            if !is_dead {
                return Err(failed(io::ErrorKind::TimedOut.into()));
            }
        }
        Ok(())
    })
    .await?;
    removed?;
    blocking(place, VERB, Place::retire).await
}

/// Has the runtime forget the container; it is fine when it does not know it.
/// Kills whoever is left in a container's cgroup, and removes it.
pub(super) async fn remove_cgroup(place: &Place, cgroup: PathBuf) -> Result<(), ShimError> {
    blocking(place, VERB, move |place| {
        let remove = || -> Result<(), contd_cgroup::CgroupError> {
            let Some(cgroup) = Cgroup::open(&Hierarchies::read()?, &cgroup)? else { return Ok(()) };
            cgroup.thaw()?;
            cgroup.kill_all()?;
            cgroup.remove(deadline::KILLED)
        };
        remove().map_err(|error| place.clean_up_failed(&cgroup, io::Error::other(error)))
    })
    .await
}

async fn remove_from_runtime(place: &Place, runtime: &RuntimeSpec) -> Result<(), ShimError> {
    let (binary, root) = match runtime {
        RuntimeSpec::Oci { binary, root } => (binary, root),
        RuntimeSpec::Native { cgroup, .. } => return remove_cgroup(place, cgroup.clone()).await,
    };
    let state_dir = root.join(place.id.as_str());
    let mut command = tokio::process::Command::new(binary);
    command.arg("--root").arg(root).args(["delete", "--force", place.id.as_str()]).stdout(Stdio::null());
    let error = match run_captured(&mut command, Stdio::null(), deadline::DELETE).await {
        Ok(Captured { status, .. }) if status.success() => return Ok(()),
        Ok(Captured { status, stderr }) => {
            io::Error::other(format!("{} ended with {status}: {stderr}", binary.display()))
        }
        Err(error) => error,
    };
    blocking(place, VERB, move |place| match RealFs.exists(&state_dir) {
        Ok(false) => Ok(()),
        Ok(true) | Err(_) => Err(place.clean_up_failed(&state_dir, error)),
    })
    .await
}
