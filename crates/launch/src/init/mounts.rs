//! Makes the mounts before the old root is gone, and attaches them afterwards at targets found inside the new root.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::fds::FdTable;
use super::paths::{self, Kind};
use super::root::shares_with_host;
use crate::fault::{Fault, FaultKind};
use crate::plan::{CgroupMount, MountPlan, MountSource, Plan};
use crate::sys::{self, Empty, Resolve};

/// A detached mount.
pub(super) enum Made<'a> {
    Own(OwnedFd),
    Given(BorrowedFd<'a>),
    /// `/sys/fs/cgroup` and the mounts below it, by name.
    Cgroups(OwnedFd, Vec<(String, OwnedFd)>),
}

/// Makes every mount of the plan, in order.
pub(super) fn make_all<'a>(plan: &Plan, fds: &'a FdTable) -> Result<Vec<Made<'a>>, Fault> {
    plan.mounts.iter().map(|mount| make(mount, fds)).collect()
}

fn make<'a>(mount: &MountPlan, fds: &'a FdTable) -> Result<Made<'a>, Fault> {
    let field = || format!("mounts[{}]", mount.index);
    match &mount.source {
        MountSource::Tree { fd, .. } => fds.get(*fd).map(Made::Given),
        MountSource::New { fs_type, source, parameters } => {
            let set = if is_dev(mount) { mount.set & !libc::MOUNT_ATTR_RDONLY } else { mount.set };
            make_new(fs_type, source, parameters, set)
                .map(Made::Own)
                .map_err(|error| Fault::kernel(field(), format!("make a file system of type {fs_type}"), &error))
        }
        MountSource::Cgroups { hierarchies, .. } => make_cgroups(hierarchies, mount.set)
            .map_err(|error| Fault::kernel(field(), "make the mounts of the cgroups", &error)),
    }
}

fn make_new(
    fs_type: &str,
    source: &str,
    parameters: &[(String, Option<String>)],
    attributes: u64,
) -> io::Result<OwnedFd> {
    let fs = sys::fs_open(&paths::c_path(fs_type)?)?;
    if !source.is_empty() {
        sys::fs_configure(fs.as_fd(), c"source", Some(&paths::c_path(source)?))?;
    }
    for (key, value) in parameters {
        let value = value.as_deref().map(paths::c_path).transpose()?;
        sys::fs_configure(fs.as_fd(), &paths::c_path(key)?, value.as_deref())
            .map_err(|error| io::Error::other(format!("its option {key:?}: {error}")))?;
    }
    sys::fs_create(fs.as_fd())?;
    sys::fs_mount(fs.as_fd(), attributes)
}

fn make_cgroups<'a>(hierarchies: &[CgroupMount], set: u64) -> io::Result<Made<'a>> {
    let cgroup = |mount: &CgroupMount| match mount.parameters.as_slice() {
        [] => make_new("cgroup2", "cgroup", &[], set),
        parameters => make_new("cgroup", "cgroup", parameters, set),
    };
    if let [only] = hierarchies
        && only.name.is_empty()
    {
        return cgroup(only).map(Made::Own);
    }
    // Writable until its mount points and links are made.
    let mode = [("mode".to_owned(), Some("755".to_owned()))];
    let top = make_new("tmpfs", "tmpfs", &mode, set & !libc::MOUNT_ATTR_RDONLY)?;
    let below = hierarchies.iter().map(|mount| Ok((mount.name.clone(), cgroup(mount)?)));
    Ok(Made::Cgroups(top, below.collect::<io::Result<_>>()?))
}

/// Attaches every mount at its target, in order.
pub(super) fn attach_all(root: &OwnedFd, plan: &Plan, made: Vec<Made<'_>>) -> Result<(), Fault> {
    let shares = shares_with_host(&plan.root);
    for (mount, made) in plan.mounts.iter().zip(made) {
        attach(root, mount, &made, shares).map_err(|error| {
            let what = format!("mount at {}", mount.target);
            let fault = Fault::kernel(format!("mounts[{}].destination", mount.index), what, &error);
            // Without an errno it was refused here, not by the kernel, so the bundle is at fault.
            if error.raw_os_error().is_none() { fault.of_kind(FaultKind::Invalid) } else { fault }
        })?;
    }
    Ok(())
}

fn attach(root: &OwnedFd, mount: &MountPlan, made: &Made<'_>, shares: bool) -> io::Result<()> {
    let is_file = matches!(mount.source, MountSource::Tree { is_dir: false, .. });
    let kind = if is_file { Kind::File } else { Kind::Dir };
    let resolve = if mount.must_be_plain_target { Resolve::PLAIN } else { Resolve::IN_ROOT };
    let place = paths::find_or_make(root, &mount.target, kind, resolve)?;
    if mount.must_be_plain_target && !paths::is_dir(place.as_fd())? {
        return Err(io::ErrorKind::NotADirectory.into());
    }
    // `prepare` checks the target's path; only here is it known where the image's links lead.
    if !mount.may_cover_proc && paths::is_in_proc(place.as_fd())? {
        return Err(io::Error::other("it leads into /proc, which tells processes apart; it may not be covered"));
    }
    if paths::find(root, &mount.target, Resolve::PLAIN).is_err() && paths::is_in_sys(place.as_fd())? {
        return Err(io::Error::other(
            "a link of the image leads it into /sys; only a bundle that says so may cover that",
        ));
    }
    check_kind(mount, place.as_fd())?;
    match made {
        Made::Own(own) => {
            sys::move_mount(own.as_fd(), Empty, place.as_fd())?;
            propagate(own.as_fd(), mount)
        }
        Made::Given(tree) => {
            if !shares {
                sys::mount_set(*tree, 0, 0, libc::MS_SLAVE, true)?;
            }
            if mount.recursive_set != 0 || mount.recursive_clear != 0 {
                sys::mount_set(*tree, mount.recursive_set, mount.recursive_clear, 0, true)?;
            }
            if mount.set != 0 || mount.clear != 0 {
                sys::mount_set(*tree, mount.set, mount.clear, 0, false)?;
            }
            sys::move_mount(*tree, Empty, place.as_fd())?;
            propagate(*tree, mount)
        }
        Made::Cgroups(top, below) => {
            sys::move_mount(top.as_fd(), Empty, place.as_fd())?;
            attach_cgroups(mount, top, below)?;
            propagate(top.as_fd(), mount)
        }
    }
}

/// Refuses to mount a file on a directory, or a directory on a file.
fn check_kind(mount: &MountPlan, place: BorrowedFd<'_>) -> io::Result<()> {
    let (what, is_dir) = match &mount.source {
        MountSource::Tree { path, is_dir, .. } => (path.as_str(), *is_dir),
        MountSource::New { fs_type, .. } => (fs_type.as_str(), true),
        MountSource::Cgroups { .. } => ("cgroup", true),
    };
    match (is_dir, paths::is_dir(place)?) {
        (true, false) => Err(io::Error::other(format!("{what} is a directory, and the target is a file"))),
        (false, true) => Err(io::Error::other(format!("{what} is a file, and the target is a directory"))),
        _ => Ok(()),
    }
}

fn attach_cgroups(mount: &MountPlan, top: &OwnedFd, below: &[(String, OwnedFd)]) -> io::Result<()> {
    let MountSource::Cgroups { links, .. } = &mount.source else { return Ok(()) };
    for (name, cgroup) in below {
        let place = paths::find_or_make(top, name, Kind::Dir, Resolve::PLAIN)?;
        sys::move_mount(cgroup.as_fd(), Empty, place.as_fd())?;
    }
    for (link, name) in links {
        nix::unistd::symlinkat(name.as_str(), top.as_fd(), link.as_str())?;
    }
    match mount.set & libc::MOUNT_ATTR_RDONLY {
        0 => Ok(()),
        read_only => sys::mount_set(top.as_fd(), read_only, 0, 0, false),
    }
}

fn propagate(attached: BorrowedFd<'_>, mount: &MountPlan) -> io::Result<()> {
    for propagation in &mount.propagation {
        sys::mount_set(attached, 0, 0, propagation.flag, propagation.is_recursive)?;
    }
    Ok(())
}

fn is_dev(mount: &MountPlan) -> bool {
    mount.target.trim_end_matches('/') == "/dev"
}

/// Makes `/dev` read-only if the bundle says so; that comes after its nodes are made.
pub(super) fn make_dev_read_only(root: &OwnedFd, plan: &Plan) -> Result<(), Fault> {
    for mount in &plan.mounts {
        let is_new = matches!(mount.source, MountSource::New { .. });
        if is_new && is_dev(mount) && mount.set & libc::MOUNT_ATTR_RDONLY != 0 {
            sys::mount_set_at(root.as_fd(), c"dev", libc::MOUNT_ATTR_RDONLY, 0, 0, false).map_err(|error| {
                Fault::kernel(format!("mounts[{}].options", mount.index), "make /dev read-only", &error)
            })?;
        }
    }
    Ok(())
}
