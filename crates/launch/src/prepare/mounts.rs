//! `mounts`: checks each entry and opens its source.

use std::io;
use std::os::fd::AsFd;
use std::path::{Component, Path};

use contd_cgroup::{Controllers, Hierarchies};
use nix::sys::stat::{SFlag, fstat};

use super::options::{self, Options};
use super::{Table, host_tree};
use crate::config::MountConfig;
use crate::fault::Fault;
use crate::plan::{CgroupMount, MountPlan, MountSource};

/// The paths of `/proc` that a mount other than a procfs may cover: those that `lxcfs` provides; none of them
/// identifies a process. The same list as `runc`'s.
const COVERABLE: [&str; 10] = [
    "/proc/cpuinfo",
    "/proc/diskstats",
    "/proc/meminfo",
    "/proc/stat",
    "/proc/swaps",
    "/proc/uptime",
    "/proc/loadavg",
    "/proc/slabinfo",
    "/proc/net/dev",
    "/proc/sys/kernel/ns_last_pid",
];

/// The container that the mounts are for.
pub(super) struct Scene<'a> {
    pub(super) bundle: &'a Path,
    pub(super) root: &'a Path,
    pub(super) hierarchies: &'a Hierarchies,
    pub(super) needs: Controllers,
    pub(super) has_cgroup_namespace: bool,
}

/// Makes the list.
pub(super) fn mounts(configs: &[MountConfig], scene: &Scene<'_>, table: &mut Table) -> Result<Vec<MountPlan>, Fault> {
    let mut plans = Vec::with_capacity(configs.len());
    for (place, config) in configs.iter().enumerate() {
        let index = u16::try_from(place).map_err(|_| Fault::invalid("mounts", "there are too many"))?;
        plans.push(mount(index, config, scene, table)?);
    }
    Ok(plans)
}

fn mount(index: u16, config: &MountConfig, scene: &Scene<'_>, table: &mut Table) -> Result<MountPlan, Fault> {
    let field = |name: &str| format!("mounts[{index}].{name}");
    let target = target(&config.destination, scene).map_err(|what| Fault::invalid(field("destination"), what))?;
    let options = options::parse(config.options.as_deref().unwrap_or_default());
    if let Some(word) = &options.refused {
        return Err(Fault::unsupported(format!("{} ({word})", field("options"))));
    }
    let kind = config.kind.as_deref().unwrap_or_default();
    let source_name = config.source.as_deref().unwrap_or_default();
    let is_bind = kind == "bind" || options.bind.is_some();
    if let Some(word) = options.unknown_of_bind().filter(|_| is_bind) {
        return Err(Fault::unsupported(format!("{} ({word})", field("options"))));
    }
    let (source, must_be_plain_target) = if is_bind {
        (bind(config, &options, scene, table).map_err(|fault| name_field(fault, index))?, false)
    } else if kind.is_empty() {
        return Err(Fault::invalid(field("type"), "it is missing"));
    } else if kind == "cgroup" || kind == "cgroup2" {
        if !scene.has_cgroup_namespace {
            // Without a cgroup namespace the mount would show every cgroup of the host.
            let what = format!("{} (a {kind} mount without a cgroup namespace in linux.namespaces)", field("type"));
            return Err(Fault::unsupported(what));
        }
        (cgroups(scene), false)
    } else {
        let parameters = options.parameters.clone();
        let new = MountSource::New {
            fs_type: kind.to_owned(),
            source: if source_name.is_empty() { kind.to_owned() } else { source_name.to_owned() },
            parameters,
        };
        (new, kind == "proc" || kind == "sysfs")
    };
    let may_cover_proc = (kind == "proc" && !is_bind) || COVERABLE.contains(&target.as_str());
    if !may_cover_proc && is_in_proc(&target) {
        let what = format!("{target} is what tells processes apart; it may not be covered");
        return Err(Fault::invalid(field("destination"), what));
    }
    let Options { set, clear, recursive_set, recursive_clear, propagation, .. } = options;
    Ok(MountPlan {
        index,
        target,
        source,
        set,
        clear,
        recursive_set,
        recursive_clear,
        propagation,
        must_be_plain_target,
        may_cover_proc,
    })
}

fn name_field(fault: Fault, index: u16) -> Fault {
    Fault { field: format!("mounts[{index}].{}", fault.field), ..fault }
}

/// Returns the target as an absolute path inside the root. A target that begins with the root's own path means the
/// same, as with `runc`.
fn target(destination: &str, scene: &Scene<'_>) -> Result<String, String> {
    if destination.is_empty() || destination.contains('\0') {
        return Err("it is no path".to_owned());
    }
    let inside = Path::new(destination).strip_prefix(scene.root).ok().and_then(Path::to_str).unwrap_or(destination);
    let mut parts: Vec<&str> = Vec::new();
    for part in Path::new(inside).components() {
        match part {
            Component::Normal(name) => parts.push(name.to_str().unwrap_or_default()),
            // The root's parent is the root.
            Component::ParentDir => drop(parts.pop()),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    if parts.is_empty() { Err("it is the root itself".to_owned()) } else { Ok(format!("/{}", parts.join("/"))) }
}

fn is_in_proc(target: &str) -> bool {
    target == "/proc" || target.starts_with("/proc/")
}

fn bind(config: &MountConfig, options: &Options, scene: &Scene<'_>, table: &mut Table) -> Result<MountSource, Fault> {
    let Some(path) = config.source.as_deref().filter(|path| !path.is_empty()) else {
        return Err(Fault::invalid("source", "a bind needs one"));
    };
    let failed = |error: &io::Error| Fault::kernel("source", format!("open {path}"), error);
    let tree = host_tree(scene.bundle, path, options.bind == Some(true)).map_err(|error| failed(&error))?;
    let status = fstat(tree.as_fd()).map_err(|errno| failed(&errno.into()))?;
    let is_dir = SFlag::from_bits_truncate(status.st_mode) & SFlag::S_IFMT == SFlag::S_IFDIR;
    Ok(MountSource::Tree { fd: table.add(tree)?, path: path.to_owned(), is_dir })
}

fn cgroups(scene: &Scene<'_>) -> MountSource {
    let joined = scene.hierarchies.joined(scene.needs);
    let hierarchies = joined.iter().map(|one| CgroupMount {
        name: one.dir.clone(),
        parameters: one.names.iter().flat_map(|name| parameter(name)).collect(),
    });
    let links = joined
        .iter()
        .filter(|one| one.names.len() > 1)
        .flat_map(|one| one.names.iter().filter(|name| **name != one.dir).map(|name| (name.clone(), one.dir.clone())));
    MountSource::Cgroups { hierarchies: hierarchies.collect(), links: links.collect() }
}

/// Returns the mount parameters of a hierarchy: a controller is a flag; a named hierarchy without a controller is
/// `none,name=…`.
fn parameter(name: &str) -> Vec<(String, Option<String>)> {
    match name.split_once('=') {
        Some((key, value)) => vec![("none".to_owned(), None), (key.to_owned(), Some(value.to_owned()))],
        None => vec![(name.to_owned(), None)],
    }
}

/// Tells whether a bind provides the container's `/dev`.
pub(super) fn binds_dev(mounts: &[MountPlan]) -> bool {
    mounts.iter().any(|mount| mount.target == "/dev" && matches!(mount.source, MountSource::Tree { .. }))
}
