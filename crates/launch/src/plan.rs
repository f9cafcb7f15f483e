//! What init is to do, as plain data: made by [`crate::prepare`], sent over [`crate::wire`], carried out by
//! [`crate::init`]. Everything that lies on the host is a descriptor in the table beside the plan, never a path.

use serde::{Deserialize, Serialize};

use crate::seccomp::Program;

/// A descriptor: its place in the table that travels beside the plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct FdIndex(pub u16);

/// All that init does, in this order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// Network and other namespaces that init enters or makes by itself; those that the launcher could enter before it
    /// cloned init are not here.
    pub joins: Vec<Join>,
    /// Whether init makes itself a cgroup namespace; it is in its cgroup by now.
    pub has_cgroup_namespace: bool,
    /// Whether the network namespace is new: its loopback interface is down then.
    pub has_new_network: bool,
    /// Whether init is the first of a new user namespace; becomes root in it before the mounts.
    pub is_in_new_user_namespace: bool,
    /// `hostname`.
    pub hostname: Option<String>,
    /// `domainname`.
    pub domainname: Option<String>,
    /// The root.
    pub root: Root,
    /// In order.
    pub mounts: Vec<MountPlan>,
    /// Whether `/dev` gets the nodes and links that OCI wants; not when the caller binds a `/dev` of their own.
    pub has_default_devices: bool,
    /// `linux.devices`, the default ones first.
    pub devices: Vec<DeviceNode>,
    /// `linux.maskedPaths`.
    pub masked_paths: Vec<String>,
    /// `linux.readonlyPaths`.
    pub readonly_paths: Vec<String>,
    /// `linux.sysctl`, checked: key with dots, value.
    pub sysctls: Vec<(String, String)>,
    /// The entrypoint.
    pub process: ProcessPlan,
}

/// A namespace that init enters or makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Join {
    /// Enters this one; the flag is its `CLONE_NEW*`.
    Enter {
        /// The namespace.
        fd: FdIndex,
        /// `CLONE_NEW*`.
        flag: u64,
    },
    /// Makes a new one.
    Unshare {
        /// `CLONE_NEW*`.
        flag: u64,
    },
}

/// How mounts travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PropagationPlan {
    /// One of `MS_PRIVATE`, `MS_SLAVE`, `MS_SHARED`, `MS_UNBINDABLE`.
    pub flag: u64,
    /// Also below.
    pub is_recursive: bool,
}

/// The root file system.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Root {
    /// A detached copy of the tree (`open_tree` with `OPEN_TREE_CLONE | AT_RECURSIVE`), made in the host's namespace.
    pub tree: FdIndex,
    /// `root.readonly`: closed after everything else is mounted.
    pub is_read_only: bool,
    /// `linux.rootfsPropagation`; `None` is the runtime's default (as `runc`: the host's mounts travel in, none out).
    pub propagation: Option<PropagationPlan>,
}

/// One entry of `mounts`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountPlan {
    /// Its place in `mounts`, for errors.
    pub index: u16,
    /// Inside the root; resolved there with `openat2`, made when it is missing.
    pub target: String,
    /// What.
    pub source: MountSource,
    /// `MOUNT_ATTR_*` to set on the mount, or on a bind's whole tree when `is_recursive`.
    pub set: u64,
    /// `MOUNT_ATTR_*` to clear (with `MOUNT_ATTR__ATIME` whenever an atime mode is set).
    pub clear: u64,
    /// `rro`, `rnosuid` and the like: `MOUNT_ATTR_*` for the whole tree.
    pub recursive_set: u64,
    /// As `recursive_set`.
    pub recursive_clear: u64,
    /// Propagation options, in order.
    pub propagation: Vec<PropagationPlan>,
    /// `tmpcopyup` and the like are refused before; this is for `proc` and `sysfs`: the target may not be a symlink.
    pub must_be_plain_target: bool,
    /// Whether the target may lie in a procfs.
    pub may_cover_proc: bool,
}

/// What is mounted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum MountSource {
    /// A bind: a detached copy of the source, made in the host's namespace.
    Tree {
        /// By `open_tree`.
        fd: FdIndex,
        /// Its path on the host, for errors.
        path: String,
        /// Whether the source is a directory; else a file is the target.
        is_dir: bool,
    },
    /// A file system of its own: `fsopen`, `fsconfig`, `fsmount`.
    New {
        /// `proc`, `tmpfs`, ...
        fs_type: String,
        /// The `source` parameter.
        source: String,
        /// Superblock parameters: flags without a value, others with one.
        parameters: Vec<(String, Option<String>)>,
    },
    /// `/sys/fs/cgroup`: v2, or a tmpfs with one mount for each hierarchy that the container has joined, and links.
    Cgroups {
        /// Each: directory name, parameters (`cpu,cpuacct`, `none,name=systemd`); v2 when empty parameters.
        hierarchies: Vec<CgroupMount>,
        /// Link name → directory name, for comounted controllers.
        links: Vec<(String, String)>,
    },
}

/// One hierarchy below `/sys/fs/cgroup`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CgroupMount {
    /// Directory below `/sys/fs/cgroup`; empty when v2 is the whole of it.
    pub name: String,
    /// `fsopen("cgroup")` parameters, such as `memory`, or `none` and `name=systemd`; empty for `cgroup2`.
    pub parameters: Vec<(String, Option<String>)>,
}

/// A device node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceNode {
    /// Inside the root.
    pub path: String,
    /// `S_IFCHR`, `S_IFBLK` or `S_IFIFO`.
    pub file_type: u32,
    /// Device number, as `makedev`.
    pub device: u64,
    /// Permissions.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// In a user namespace nodes cannot be made: the host's is bound instead, this tree.
    pub bind: Option<FdIndex>,
}

/// Which process, as whom, with what rights. Shared by init and by exec.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessPlan {
    /// `process.args`.
    pub args: Vec<String>,
    /// `process.env`; `HOME` is added from the container's passwd when it is missing, as `runc` does.
    pub env: Vec<String>,
    /// `process.cwd`, absolute.
    pub cwd: String,
    /// `process.user.uid`.
    pub uid: u32,
    /// `process.user.gid`.
    pub gid: u32,
    /// `process.user.additionalGids`.
    pub additional_gids: Vec<u32>,
    /// `process.user.umask`.
    pub umask: Option<u32>,
    /// Bit sets, by capability number.
    pub capabilities: CapabilitySets,
    /// `process.noNewPrivileges`.
    pub no_new_privileges: bool,
    /// `process.rlimits`: resource number, soft, hard.
    pub rlimits: Vec<(u32, u64, u64)>,
    /// `linux.personality`: domain and flags.
    pub personality: Option<u64>,
    /// `linux.seccomp`, compiled.
    pub seccomp: Option<Program>,
    /// Descriptors 0, 1, 2.
    pub stdio: [FdIndex; 3],
}

/// The five sets. `None` in the configuration leaves them as they are, which is all of the launcher's: so it is an
/// explicit choice here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct CapabilitySets {
    /// Bounding.
    pub bounding: u64,
    /// Effective.
    pub effective: u64,
    /// Inheritable.
    pub inheritable: u64,
    /// Permitted.
    pub permitted: u64,
    /// Ambient.
    pub ambient: u64,
}
