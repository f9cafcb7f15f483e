//! The configuration of a node for its actors, given once at its start: directories, defaults, limits.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use contd_protocol::shim::RuntimeSpec;
use contd_types::{ContainerId, CpuLimit, LayerKind};

const MIB: u64 = 1024 * 1024;

/// In the state directory: where marks of logs are noted on file systems that have no extended attributes. No namespace
/// begins with a dot.
pub const LOG_NOTES_DIR: &str = ".logs";

/// Where `ip netns` and its like keep network namespaces by name.
pub const DEFAULT_NETNS_DIR: &str = "/run/netns";

/// The cgroup below which the containers of a node are, unless it is told of another.
pub const DEFAULT_CGROUP_PARENT: &str = "contd";

/// How long one operation of a runtime may take: runc needs 50 ms, a node under heavy load a hundred times that. 20 s is a hang.
pub const DEFAULT_RUNTIME_TIMEOUT: Duration = Duration::from_secs(20);

/// The stack limit of a process, unless somebody has changed it (`ulimit -s`).
const USUAL_STACK_LIMIT: u64 = 8 * 1024 * 1024;

/// The settings of one node. Every directory must exist and be writable by the daemon, except `netns_dir`.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct NodeConfig {
    /// Where the bundles are: the directory given to `contd_bundle::DirBundles`.
    pub state_dir: PathBuf,
    /// Container logs go to `<log_dir>/<namespace>/<name>.log`.
    pub log_dir: PathBuf,
    /// Where named network namespaces are (`/run/netns`, `/var/run/netns`).
    pub netns_dir: PathBuf,
    /// The cgroup below which all containers are put, as a relative path (`contd`).
    pub cgroup_parent: String,
    /// The boot id of the running kernel (`/proc/sys/kernel/random/boot_id`); what a record is compared with.
    pub boot_id: String,
    /// The settings that may change while the node runs, as they are at the start.
    pub settings: Settings,
    /// The runtimes that new shims may use.
    pub runtimes: Runtimes,
    /// How long the runtime may take for one operation.
    pub runtime_timeout: Duration,
    /// How long output may be read after an exit while a descendant keeps the pipes open.
    pub drain_timeout: Duration,
    /// How long a root may take to be prepared, the fetching of its flist included.
    pub rootfs_timeout: Duration,
    /// How many shims are looked for at once after a start.
    pub recover_parallelism: usize,
    /// How many bytes a command and its environment may take together; [`contd_types::exec_limit_bytes`] knows it.
    pub exec_limit_bytes: usize,
    /// How many threads the namespaces are spread over; 0 keeps every actor on the caller's own (tests, embedders).
    pub arbiters: usize,
    /// How long [`crate::messages::Shutdown`] waits for runs and deletions in flight.
    pub shutdown_drain: Duration,
}

/// The defaults for values that a spec leaves out.
#[derive(Debug, Clone, Copy)]
pub struct Defaults {
    /// Memory, CPU and processes.
    pub limits: contd_bundle::Defaults,
    /// The size of the writable layer in bytes, enforced where its file system can.
    pub rootfs_size_bytes: u64,
    /// Where the writable layer lies.
    pub layer: LayerKind,
    /// How long a container may take to end before SIGKILL.
    pub shutdown_timeout: Duration,
}

/// When a container's log is rotated.
#[derive(Debug, Clone, Copy)]
pub struct LogRotation {
    /// A new file is begun above this size.
    pub max_bytes: u64,
    /// How many files are kept, the current one included.
    pub max_files: u32,
}

/// How long and how many logs are kept. What is beyond is removed, also after a restart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogRetention {
    /// The logs of removed containers are kept for so long; none is when it is zero.
    pub keep_for: Duration,
    /// These may take so many bytes together; at most a tenth of their file system counts.
    pub removed_max_bytes: u64,
    /// All logs may take so many bytes together. `None`: a quarter of their file system if that is in memory, and as much as
    /// there is room for if not.
    pub all_max_bytes: Option<u64>,
}

impl LogRetention {
    /// Tells whether the log of a container that is removed now is kept.
    pub(crate) fn keeps(self) -> bool {
        !self.keep_for.is_zero() && self.removed_max_bytes > 0
    }
}

/// How much one namespace, and the node, may have in flight. Each of them is answered with `Busy` beyond it.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Containers of one namespace.
    pub containers_per_namespace: usize,
    /// Runs of one namespace that are on the way.
    pub runs_in_flight_per_namespace: usize,
    /// Runs and restarts of the node that are on the way.
    pub runs_in_flight: usize,
}

/// The settings that may change while a node runs.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Settings {
    /// The defaults for values that a spec leaves out, from the next start of its container on.
    pub defaults: Defaults,
    /// When a container's log is rotated; a shim that runs keeps to what it was told.
    pub log_rotation: LogRotation,
    /// How long logs are kept; those of removed containers are not, and nothing is pruned, when it is `None`.
    pub log_retention: Option<LogRetention>,
    /// How many runs may be in flight, and how many containers there may be.
    pub limits: Limits,
}

/// The runtimes of a node, by the names under which containers ask for them.
#[derive(Debug, Clone)]
pub struct Runtimes {
    default: NodeRuntime,
    others: BTreeMap<String, NodeRuntime>,
}

/// One runtime of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NodeRuntime {
    /// An OCI runtime's command.
    Oci {
        /// Its absolute path.
        binary: PathBuf,
        /// Its state directory.
        root: PathBuf,
    },
    /// Our own launcher.
    Native {
        /// The directory of compiled seccomp filters.
        filters: PathBuf,
        /// The absolute path of `contd-seccomp`.
        compiler: PathBuf,
    },
}

impl Runtimes {
    /// Makes a node with one runtime.
    pub fn new(default: NodeRuntime) -> Self {
        Self { default, others: BTreeMap::new() }
    }

    /// Adds one that a container may ask for by its name.
    #[must_use]
    pub fn with(mut self, name: impl Into<String>, runtime: NodeRuntime) -> Self {
        self.others.insert(name.into(), runtime);
        self
    }

    /// Returns the names that a container may ask for.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.others.keys().map(String::as_str)
    }

    /// Returns the name of the runtime that a container gets which asks for this one, or for none.
    pub(crate) fn name(&self, asked: Option<&str>) -> String {
        if let Some(name) = asked.filter(|name| self.others.contains_key(*name)) {
            return name.to_owned();
        }
        if let Some((name, _)) = self.others.iter().find(|(_, runtime)| **runtime == self.default) {
            return name.clone();
        }
        match &self.default {
            NodeRuntime::Native { .. } => "native".to_owned(),
            NodeRuntime::Oci { binary, .. } => {
                binary.file_name().map_or_else(|| "oci".into(), |name| name.to_string_lossy().into_owned())
            }
        }
    }

    /// Tells whether there is a runtime of this name.
    pub(crate) fn knows(&self, name: Option<&str>) -> bool {
        name.is_none_or(|name| self.others.contains_key(name))
    }

    /// Returns what a shim is told; a name that is not known any more gets the default.
    pub(crate) fn spec(&self, name: Option<&str>, cgroup_parent: &str, id: &ContainerId) -> RuntimeSpec {
        match name.and_then(|name| self.others.get(name)).unwrap_or(&self.default).clone() {
            NodeRuntime::Oci { binary, root } => RuntimeSpec::Oci { binary, root },
            NodeRuntime::Native { filters, compiler } => {
                let cgroup = Path::new("/").join(cgroup_parent).join(id.as_str());
                RuntimeSpec::Native { cgroup, filters, compiler }
            }
        }
    }
}

impl NodeConfig {
    /// Returns where marks of logs are noted.
    pub fn log_notes(&self) -> PathBuf {
        self.state_dir.join(LOG_NOTES_DIR)
    }

    /// Makes a configuration with the defaults of the project; the rest is what differs between nodes.
    pub fn new(state_dir: PathBuf, log_dir: PathBuf, boot_id: String, runtimes: Runtimes) -> Self {
        Self {
            state_dir,
            log_dir,
            netns_dir: PathBuf::from(DEFAULT_NETNS_DIR),
            cgroup_parent: DEFAULT_CGROUP_PARENT.to_owned(),
            boot_id,
            settings: Settings::default(),
            runtimes,
            runtime_timeout: DEFAULT_RUNTIME_TIMEOUT,
            drain_timeout: Duration::from_secs(2),
            // A large flist over a slow link; progress is streamed meanwhile.
            rootfs_timeout: Duration::from_secs(600),
            recover_parallelism: 8,
            exec_limit_bytes: contd_types::exec_limit_bytes(USUAL_STACK_LIMIT),
            arbiters: 2,
            shutdown_drain: Duration::from_secs(10),
        }
    }
}

// The one table of defaults: `contd_node::Config`, and so `contd daemon`, takes its own from here. docs/configuration.md lists them.

impl Default for Defaults {
    fn default() -> Self {
        // One CPU as 0-OS gives; memory and layer so that a small service runs and a runaway one does not take the node.
        // The layer on disk, as every engine has it: memory is what a node has least of.
        Self {
            limits: contd_bundle::Defaults {
                memory_bytes: 1024 * MIB,
                cpu: CpuLimit::ONE,
                pids_limit: 1024,
                oom_score_adj: None,
            },
            rootfs_size_bytes: 512 * MIB,
            layer: LayerKind::Disk,
            shutdown_timeout: Duration::from_secs(10),
        }
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            defaults: Defaults::default(),
            log_rotation: LogRotation::default(),
            log_retention: Some(LogRetention::default()),
            limits: Limits::default(),
        }
    }
}

impl Default for LogRotation {
    fn default() -> Self {
        // As the kubelet.
        Self { max_bytes: 10 * MIB, max_files: 5 }
    }
}

impl Default for LogRetention {
    fn default() -> Self {
        // A failed job is looked at on the next day; where logs are in memory, not much is kept.
        Self { keep_for: Duration::from_secs(24 * 60 * 60), removed_max_bytes: 256 * MIB, all_max_bytes: None }
    }
}

impl Default for Limits {
    fn default() -> Self {
        // A run waits mostly for the runtime's process: more than a few per core only adds memory.
        Self { containers_per_namespace: 1024, runs_in_flight_per_namespace: 64, runs_in_flight: 128 }
    }
}
