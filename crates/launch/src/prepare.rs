//! Makes a [`Plan`] from a configuration: checks every value and opens every file of the host.

mod capabilities;
mod devices;
mod limits;
mod mounts;
pub(crate) mod namespaces;
mod options;
mod process;
mod sysctls;

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use contd_cgroup::{Controllers, Hierarchies, Limits};
use nix::fcntl::AT_FDCWD;

pub use namespaces::IdMaps;
pub use process::process;

use crate::config::{Config, Linux, Process};
use crate::fault::Fault;
use crate::plan::{FdIndex, Plan, ProcessPlan, PropagationPlan, Root};
use crate::seccomp::Program;
use crate::sys;
use crate::wire::MAX_FDS;
use namespaces::Namespaces;

/// The input of preparing, other than the configuration.
pub struct Context<'a> {
    /// Returns the compiled program of a seccomp section, from the cache or the compiler.
    pub filters: &'a mut dyn FnMut(&[u8]) -> Result<Program, Fault>,
    /// The container's descriptors 0, 1 and 2.
    pub stdio: [OwnedFd; 3],
    /// The node's cgroup hierarchies.
    pub hierarchies: &'a Hierarchies,
}

/// A container that is checked and ready to be made.
#[derive(Debug)]
pub struct Prepared {
    /// The plan for init.
    pub plan: Plan,
    /// The descriptors sent with the plan.
    pub fds: Vec<OwnedFd>,
    /// The `CLONE_NEW*` flags of the new namespaces.
    pub clone_flags: u64,
    /// The existing namespaces to join, with their `CLONE_NEW*`.
    pub joins: Vec<(OwnedFd, u64)>,
    /// The id mappings of a new user namespace.
    pub id_maps: Option<IdMaps>,
    /// `linux.cgroupsPath`.
    pub cgroup_path: Option<PathBuf>,
    /// `linux.resources`.
    pub limits: Limits,
    /// The controllers that the limits need.
    pub needs: Controllers,
    /// `process.oomScoreAdj`.
    pub oom_score_adj: Option<i32>,
}

/// The descriptors sent with the plan, by index.
#[derive(Debug, Default)]
pub(crate) struct Table(Vec<OwnedFd>);

impl Table {
    pub(crate) fn add(&mut self, fd: OwnedFd) -> Result<FdIndex, Fault> {
        // Keep one place free: the launcher may add the network namespace.
        if self.0.len() + 1 >= MAX_FDS {
            return Err(too_many_mounts());
        }
        let index = u16::try_from(self.0.len()).map_err(|_| Fault::invalid("mounts", "there are too many"))?;
        self.0.push(fd);
        Ok(FdIndex(index))
    }
}

/// Returns the fault of a bundle with too many mounts. The kernel limits the descriptors of one message, which holds
/// those of the mounts and about ten others (root, output, devices, namespaces).
pub(crate) fn too_many_mounts() -> Fault {
    Fault::invalid("mounts", format!("they and the rest need more than the {MAX_FDS} descriptors of one launch"))
}

/// Makes the plan of a bundle. Runs in the host's mount namespace, with one thread.
///
/// # Errors
/// [`Fault`] with the field. The node is unchanged.
pub fn prepare(bundle: &Path, config: Config, context: Context<'_>) -> Result<Prepared, Fault> {
    let linux = config.linux.unwrap_or_default();
    let Some(process_config) = &config.process else { return Err(Fault::invalid("process", "it is missing")) };
    let Some(root_config) = &config.root else { return Err(Fault::invalid("root", "it is missing")) };
    let mut table = Table::default();
    let [stdin, stdout, stderr] = context.stdio;
    let stdio = [table.add(stdin)?, table.add(stdout)?, table.add(stderr)?];
    let namespaces = Namespaces::open(&linux)?;
    let limits = limits::limits(linux.resources.as_ref())?;
    let needs = limits.needs();
    let process = process_plan(process_config, &linux, stdio, context.filters)?;
    if config.hostname.is_some() && !namespaces.has(namespaces::NEW_UTS) {
        return Err(Fault::invalid("hostname", "it wants a UTS namespace of its own"));
    }
    if config.domainname.is_some() && !namespaces.has(namespaces::NEW_UTS) {
        return Err(Fault::invalid("domainname", "it wants a UTS namespace of its own"));
    }
    let root_path = bundle.join(&root_config.path);
    let root = Root {
        tree: table.add(root_tree(&root_path)?)?,
        is_read_only: root_config.readonly,
        propagation: root_propagation(&linux)?,
    };
    let has_cgroup_namespace = namespaces.has(namespaces::NEW_CGROUP);
    let scene =
        mounts::Scene { bundle, root: &root_path, hierarchies: context.hierarchies, needs, has_cgroup_namespace };
    let mounts = mounts::mounts(config.mounts.as_deref().unwrap_or_default(), &scene, &mut table)?;
    let has_default_devices = !mounts::binds_dev(&mounts);
    let is_user_namespaced = namespaces.is_new(namespaces::NEW_USER);
    let devices = devices::devices(linux.devices.as_deref().unwrap_or_default(), is_user_namespaced, &mut table)?;
    let sysctls = sysctls::sysctls(linux.sysctl.as_ref(), &namespaces)?;
    let plan = Plan {
        joins: Vec::new(),
        has_cgroup_namespace: namespaces.is_new(namespaces::NEW_CGROUP),
        has_new_network: namespaces.is_new(namespaces::NEW_NET),
        is_in_new_user_namespace: is_user_namespaced,
        hostname: config.hostname.filter(|name| !name.is_empty()),
        domainname: config.domainname.filter(|name| !name.is_empty()),
        root,
        mounts,
        has_default_devices,
        devices,
        masked_paths: inside("linux.maskedPaths", linux.masked_paths)?,
        readonly_paths: inside("linux.readonlyPaths", linux.readonly_paths)?,
        sysctls,
        terminal: process_config.terminal(),
        process,
    };
    Ok(Prepared {
        plan,
        fds: table.0,
        clone_flags: namespaces.new_flags,
        joins: namespaces.joins,
        id_maps: namespaces.id_maps,
        cgroup_path: cgroup_path(linux.cgroups_path)?,
        limits,
        needs,
        oom_score_adj: process_config.oom_score_adj,
    })
}

/// Makes the plan of one process of a container, init or exec: `process` and the fields of `linux` that apply to it.
pub(crate) fn process_plan(
    process: &Process,
    linux: &Linux,
    stdio: [FdIndex; 3],
    filters: &mut dyn FnMut(&[u8]) -> Result<Program, Fault>,
) -> Result<ProcessPlan, Fault> {
    let seccomp = match &linux.seccomp {
        Some(section) if section.get() != "null" => Some(filters(section.get().as_bytes())?),
        _ => None,
    };
    let personality = linux.personality.as_ref().map(|personality| process::personality(&personality.domain));
    process::process(process, stdio, seccomp, personality.transpose()?)
}

/// Checks `linux.cgroupsPath`.
pub(crate) fn cgroup_path(path: Option<PathBuf>) -> Result<Option<PathBuf>, Fault> {
    match path {
        Some(path) if path.as_os_str().is_empty() => Ok(None),
        Some(path) if !path.is_absolute() => {
            let what = format!("{} is not absolute; systemd's slices are not supported", path.display());
            Err(Fault::invalid("linux.cgroupsPath", what))
        }
        path => Ok(path),
    }
}

fn root_tree(path: &Path) -> Result<OwnedFd, Fault> {
    let failed = |error: &std::io::Error| Fault::kernel("root.path", format!("open {}", path.display()), error);
    // Open a descriptor first, so that the directory that is checked is the one that is copied.
    let dir = File::open(path).map_err(|error| failed(&error))?;
    if !dir.metadata().map_err(|error| failed(&error))?.is_dir() {
        return Err(Fault::invalid("root.path", format!("{} is no directory", path.display())));
    }
    let tree = sys::open_tree(dir.as_fd(), c"", true);
    tree.map_err(|error| Fault::kernel("root.path", format!("copy the mount of {}", path.display()), &error))
}

fn root_propagation(linux: &Linux) -> Result<Option<PropagationPlan>, Fault> {
    let Some(word) = linux.rootfs_propagation.as_deref().filter(|word| !word.is_empty()) else { return Ok(None) };
    let propagation = options::propagation(word);
    let unknown = || Fault::invalid("linux.rootfsPropagation", format!("{word:?} is no propagation"));
    propagation.map(Some).ok_or_else(unknown)
}

fn inside(field: &str, paths: Option<Vec<String>>) -> Result<Vec<String>, Fault> {
    let paths = paths.unwrap_or_default();
    match paths.iter().find(|path| !path.starts_with('/')) {
        Some(path) => Err(Fault::invalid(field, format!("{path:?} is not absolute"))),
        None => Ok(paths),
    }
}

/// Opens a path of the host as a detached tree; a relative path starts at the bundle.
pub(crate) fn host_tree(base: &Path, path: &str, is_recursive: bool) -> std::io::Result<OwnedFd> {
    use std::os::unix::ffi::OsStrExt;
    let path = std::ffi::CString::new(base.join(path).as_os_str().as_bytes())
        .map_err(|_| std::io::Error::from_raw_os_error(libc::EINVAL))?;
    sys::open_tree(AT_FDCWD, &path, is_recursive)
}
