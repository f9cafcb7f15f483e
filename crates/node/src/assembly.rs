//! Puts the real things behind the boundaries of the actors: disk, shims, file systems, runtimes.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use contd_actors::{Defaults, Limits, LogRetention, LogRotation, NodeConfig, NodeRuntime, Parts, Runtimes, Settings};
use contd_bundle::DirBundles;
use contd_descriptors::Named;
use contd_durable::{Fs, RealFs};
use contd_lease::BootId;
use contd_rootfs::{MountConfig, MountRootfs};
use contd_service_manager::ServiceManager;
use contd_shim_client::{ProcessShimClient, ShimClientConfig, SlotConfig};
use contd_store::{DirStore, EventJournal};
use contd_types::{CpuLimit, SpecError};

use crate::cgroups::Cgroups;
use crate::config::{Config, MIB};
use crate::error::OpenError;
use crate::judge::{Gate, Rules};
use crate::limits;
use crate::programs::{NATIVE, Programs};
use crate::vault::ManagerVault;

/// The journal's place: no namespace can begin with a dot, so it cannot meet a namespace's directory.
pub const EVENTS_DIR: &str = ".events";
/// When a new generation of the event journal is begun; two are kept, some tens of thousands of events.
const MAX_JOURNAL_BYTES: u64 = 8 * MIB;
/// Where the OCI runtime keeps its state, below the run directory: gone after a reboot, as it must be.
pub const RUNTIME_STATE_DIR: &str = "oci";
/// Where compiled seccomp filters are kept, below the cache directory: they outlive a reboot.
pub(crate) const FILTERS_DIR: &str = "seccomp";

/// Everything that the actors of a node stand on; nothing runs yet.
#[derive(Debug)]
pub(crate) struct Assembly {
    pub(crate) config: NodeConfig,
    pub(crate) parts: Parts,
    pub(crate) shims: ProcessShimClient,
    pub(crate) gate: Arc<Gate>,
}

impl Assembly {
    /// Makes it from a configuration that was checked. `manager` keeps descriptors of running containers if it is there, and
    /// `kept` are those that it, or a predecessor, has kept.
    pub(crate) fn new(
        config: &Config,
        programs: &Programs,
        cgroups: &Cgroups,
        manager: &ServiceManager,
        kept: Vec<Named>,
    ) -> Result<Self, OpenError> {
        let fs: Arc<dyn Fs> = Arc::new(RealFs);
        let store = DirStore::open(Arc::clone(&fs), &config.state_dir)?;
        let events_dir = config.state_dir.join(EVENTS_DIR);
        make_private(&*fs, &events_dir)?;
        let runtime_root = config.run_dir.join(RUNTIME_STATE_DIR);
        make_private(&*fs, &runtime_root)?;
        let journal = EventJournal::open(Arc::clone(&fs), events_dir.join("journal.jsonl"), MAX_JOURNAL_BYTES)?;
        let filters = config.cache_dir.join(FILTERS_DIR);
        let shims = ProcessShimClient::new(ShimClientConfig {
            shim_binary: programs.shim.clone(),
            run_dir: config.run_dir.clone(),
        })
        .with_slots(SlotConfig {
            count: if config.runtime.default == NATIVE { config.runtime.warm_slots } else { 0 },
            cgroup_parent: Path::new("/").join(cgroups.parent()),
            filters: filters.clone(),
            compiler: programs.seccomp.clone(),
        })
        .with_cgroup(cgroups.helpers())
        .with_vault(ManagerVault::of(manager))
        .with_kept(kept.into_iter().map(|named| (named.name, named.fd)));
        let gate = Arc::new(Gate::new(Rules::of(config)));
        let rootfs = MountRootfs::new(MountConfig {
            flistfs_binary: programs.flistfs.clone(),
            run_dir: config.run_dir.clone(),
            state_dir: config.state_dir.clone(),
            cache_dir: config.cache_dir.clone(),
        })
        .with_cache_limits(config.cache.limits())
        .with_cgroup(cgroups.helpers());
        let bundles = Arc::new(DirBundles::new(fs, &config.state_dir));
        let mut parts = Parts::new(Arc::new(store), Arc::new(shims.clone()), Arc::new(rootfs), bundles, journal);
        parts.meters = Arc::new(contd_meters::CgroupMeters::default());
        parts.judge = Arc::clone(&gate) as Arc<dyn contd_actors::Judge>;
        let runtimes = runtimes(config, programs, &runtime_root, &filters);
        Ok(Self { config: settings(config, cgroups, runtimes)?, parts, shims, gate })
    }
}

fn runtimes(config: &Config, programs: &Programs, root: &Path, filters: &Path) -> Runtimes {
    let native = NodeRuntime::Native { filters: filters.to_owned(), compiler: programs.seccomp.clone() };
    let oci = |binary: &Path| NodeRuntime::Oci { binary: binary.to_owned(), root: root.to_owned() };
    let default = programs.oci.get(&config.runtime.default).map_or_else(|| native.clone(), |binary| oci(binary));
    let runtimes = Runtimes::new(default).with(NATIVE, native);
    programs.oci.iter().fold(runtimes, |runtimes, (name, binary)| runtimes.with(name.clone(), oci(binary)))
}

/// Makes the settings that may change while the node runs.
///
/// # Errors
/// A value that cannot be.
pub(crate) fn changeable(config: &Config) -> Result<Settings, SpecError> {
    let cpu = CpuLimit::from_millis(config.defaults.cpu_millis)?;
    let mut settings = Settings::default();
    settings.defaults = Defaults {
        limits: contd_bundle::Defaults {
            memory_bytes: config.defaults.memory_mib.saturating_mul(MIB),
            cpu,
            pids_limit: config.defaults.pids,
            oom_score_adj: not_spared(&std::fs::read_to_string("/proc/self/oom_score_adj").unwrap_or_default()),
        },
        rootfs_size_bytes: config.defaults.rootfs_mib.saturating_mul(MIB),
        layer: config.defaults.layer,
        shutdown_timeout: config.defaults.stop_timeout(),
    };
    settings.log_rotation =
        LogRotation { max_bytes: config.logs.max_mib.saturating_mul(MIB), max_files: config.logs.max_files };
    settings.log_retention = Some(LogRetention {
        keep_for: config.logs.keep_removed,
        removed_max_bytes: config.logs.keep_removed_max,
        all_max_bytes: config.logs.total_max,
    });
    settings.limits = Limits {
        containers_per_namespace: config.limits.containers_per_namespace,
        runs_in_flight_per_namespace: config.limits.runs_per_namespace,
        runs_in_flight: config.limits.runs,
    };
    Ok(settings)
}

fn settings(config: &Config, cgroups: &Cgroups, runtimes: Runtimes) -> Result<NodeConfig, OpenError> {
    let boot_id = BootId::current()?;
    let (state_dir, log_dir) = (config.state_dir.clone(), config.log_dir.clone());
    let mut node = NodeConfig::new(state_dir, log_dir, boot_id.to_string(), runtimes);
    node.settings = changeable(config)?;
    node.netns_dir.clone_from(&config.netns_dir);
    node.cgroup_parent = cgroups.parent();
    node.runtime_timeout = Duration::from_secs(config.runtime.timeout_s);
    node.exec_limit_bytes = contd_types::exec_limit_bytes(limits::stack());
    Ok(node)
}

/// The OOM score adjustment of containers where the kernel is to spare this daemon when memory runs out (`OOMScoreAdjust` of
/// its service): they are not meant, and would inherit it. To give it up needs no right; to take another value may.
fn not_spared(own_score: &str) -> Option<i32> {
    own_score.trim().parse::<i32>().is_ok_and(|score| score < 0).then_some(0)
}

fn make_private(fs: &dyn Fs, dir: &Path) -> Result<(), OpenError> {
    let made = fs.create_dir_all(dir, 0o700);
    made.map_err(|source| OpenError::Private { path: dir.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_spares_the_daemon_when_memory_runs_out_does_not_spare_its_containers() {
        assert_eq!(not_spared("-500\n"), Some(0));
        for as_it_is in ["0\n", "300\n", ""] {
            assert_eq!(not_spared(as_it_is), None, "{as_it_is:?}");
        }
    }
}
