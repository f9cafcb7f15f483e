//! Init's instructions as plain data: made by [`crate::prepare`], sent over [`crate::wire`], carried out by
//! [`crate::init`]. Every file of the host is a descriptor in the table sent with the plan, never a path.

use contd_types::WindowSize;
use serde::{Deserialize, Serialize};

use crate::seccomp::Program;

/// The index of a descriptor in the table that is sent with the plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct FdIndex(pub u16);

/// All steps of init, in this order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// The namespaces that init enters or makes itself; those that the launcher could enter before the clone are not
    /// here.
    pub joins: Vec<Join>,
    /// Whether init makes a new cgroup namespace; it is in its cgroup by then.
    pub has_cgroup_namespace: bool,
    /// Whether the network namespace is new, so that its loopback interface is down.
    pub has_new_network: bool,
    /// Whether init is the first process of a new user namespace; it becomes root there before the mounts.
    pub is_in_new_user_namespace: bool,
    /// `hostname`.
    pub hostname: Option<String>,
    /// `domainname`.
    pub domainname: Option<String>,
    /// The root file system.
    pub root: Root,
    /// The mounts, in order.
    pub mounts: Vec<MountPlan>,
    /// Whether `/dev` gets OCI's default nodes and links; not when the caller binds its own `/dev`.
    pub has_default_devices: bool,
    /// `linux.devices`, the default ones first.
    pub devices: Vec<DeviceNode>,
    /// `linux.maskedPaths`.
    pub masked_paths: Vec<String>,
    /// `linux.readonlyPaths`.
    pub readonly_paths: Vec<String>,
    /// `linux.sysctl`, checked: key with dots, value.
    pub sysctls: Vec<(String, String)>,
    /// The size of the terminal that takes the place of descriptors 0, 1 and 2, if there is one.
    pub terminal: Option<WindowSize>,
    /// The entrypoint.
    pub process: ProcessPlan,
}

/// A namespace that init enters or makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Join {
    /// Enters an existing one.
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

/// A propagation type to set on a mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PropagationPlan {
    /// One of `MS_PRIVATE`, `MS_SLAVE`, `MS_SHARED`, `MS_UNBINDABLE`.
    pub flag: u64,
    /// Whether it is also set on all mounts below.
    pub is_recursive: bool,
}

/// The root file system.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Root {
    /// A detached copy of the tree (`open_tree` with `OPEN_TREE_CLONE | AT_RECURSIVE`), made in the host's namespace.
    pub tree: FdIndex,
    /// `root.readonly`; applied after all mounts.
    pub is_read_only: bool,
    /// `linux.rootfsPropagation`; `None` is the default, as with `runc`: the host's mounts propagate in, none out.
    pub propagation: Option<PropagationPlan>,
}

/// One entry of `mounts`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountPlan {
    /// The entry's index in `mounts`, for errors.
    pub index: u16,
    /// The path inside the root; resolved with `openat2`, made when missing.
    pub target: String,
    /// The source.
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
    /// Whether the target may not be a symlink: for `proc` and `sysfs`.
    pub must_be_plain_target: bool,
    /// Whether the target may lie in a procfs.
    pub may_cover_proc: bool,
}

/// The source of a mount.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum MountSource {
    /// A bind: a detached copy of the source, made in the host's namespace.
    Tree {
        /// The copy, made by `open_tree`.
        fd: FdIndex,
        /// Its path on the host, for errors.
        path: String,
        /// Whether the source is a directory; if not, the target is a file.
        is_dir: bool,
    },
    /// A new file system: `fsopen`, `fsconfig`, `fsmount`.
    New {
        /// The type: `proc`, `tmpfs`, ...
        fs_type: String,
        /// The `source` parameter.
        source: String,
        /// Superblock parameters: flags without a value, others with one.
        parameters: Vec<(String, Option<String>)>,
    },
    /// `/sys/fs/cgroup`: v2, or a tmpfs with one mount for each joined hierarchy, and links.
    Cgroups {
        /// The hierarchies; one with empty parameters is v2.
        hierarchies: Vec<CgroupMount>,
        /// Link name → directory name, for comounted controllers.
        links: Vec<(String, String)>,
    },
}

/// One hierarchy below `/sys/fs/cgroup`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CgroupMount {
    /// The directory below `/sys/fs/cgroup`; empty when v2 is mounted at `/sys/fs/cgroup` itself.
    pub name: String,
    /// `fsopen("cgroup")` parameters, such as `memory`, or `none` and `name=systemd`; empty for `cgroup2`.
    pub parameters: Vec<(String, Option<String>)>,
}

/// A device node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceNode {
    /// The path inside the root.
    pub path: String,
    /// `S_IFCHR`, `S_IFBLK` or `S_IFIFO`.
    pub file_type: u32,
    /// The device number, as by `makedev`.
    pub device: u64,
    /// Permissions.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// A mount of the host's node, which is bound instead where a user namespace does not allow making nodes.
    pub bind: Option<FdIndex>,
}

/// The process: program, user and rights. Shared by init and by exec.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessPlan {
    /// `process.args`.
    pub args: Vec<String>,
    /// `process.env`; `HOME` is added from the container's passwd if missing, as with `runc`.
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
    /// Descriptors 0, 1 and 2.
    pub stdio: [FdIndex; 3],
}

/// The five capability sets. A `None` in the configuration would leave the launcher's own sets, which are full, so each
/// is explicit here.
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
