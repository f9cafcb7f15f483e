//! A node that runs: opened from a configuration, or put together step by step by a daemon that has a predecessor.

use std::fs::DirBuilder;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use actix::Addr;
use contd_actors::messages::{Reconfigure, Shutdown};
use contd_actors::{Supervisor, ask_api, tell};
use contd_descriptors::Named;
use contd_service_manager::ServiceManager;
use contd_shim_client::ProcessShimClient;
use contd_types::{ApiError, SpecError};
use tracing::warn;

use crate::assembly::{Assembly, changeable};
use crate::cache_mode;
use crate::cgroups::Cgroups;
use crate::config::Config;
use crate::error::OpenError;
use crate::judge::{Gate, Rules};
use crate::lock::{NodeLock, Role};
use crate::programs::{self, Programs};

/// How long the actors may take to come to rest; runs under way have a bound of their own inside.
const SHUTDOWN_DEADLINE: Duration = Duration::from_secs(20);

/// A configuration that was checked, with the programs it needs. Nothing was made or started; a node that runs on the same
/// directories is not touched.
#[derive(Debug, Clone)]
pub struct Plan {
    config: Config,
    programs: Programs,
    cgroups: Cgroups,
}

/// The parts of a node, put together. Nothing runs yet.
#[derive(Debug)]
pub struct Assembled {
    assembly: Assembly,
    cgroups: Cgroups,
}

/// A node that runs in this process. When it is dropped, or the process dies, its containers run on, and the next node on the
/// same directories finds them.
#[derive(Debug)]
pub struct Node {
    supervisor: Addr<Supervisor>,
    shims: ProcessShimClient,
    gate: Arc<Gate>,
    cgroups: Cgroups,
    lock: Option<NodeLock>,
}

impl Plan {
    /// Checks a configuration and finds its programs.
    ///
    /// # Errors
    /// A key that cannot work, or a program that is missing.
    pub fn new(config: Config) -> Result<Self, OpenError> {
        config.check()?;
        let programs = programs::find(&config)?;
        let cgroups = Cgroups::of(&config);
        Ok(Self { config, programs, cgroups })
    }

    /// Returns the configuration.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Returns where the cgroups of the node stand.
    #[must_use]
    pub fn cgroups(&self) -> &Cgroups {
        &self.cgroups
    }

    /// Makes the directories of the node with their modes, and closes a cache that is open to others.
    ///
    /// # Errors
    /// The first directory that cannot be made.
    pub fn make_directories(&self) -> Result<(), OpenError> {
        let dirs: [(&Path, u32); 4] = [
            (&self.config.state_dir, 0o700),
            (&self.config.run_dir, 0o711),
            (&self.config.cache_dir, 0o700),
            // Logs are for operators to read; /var/log itself exists already.
            (&self.config.log_dir, 0o755),
        ];
        for (dir, mode) in dirs {
            let made = DirBuilder::new().recursive(true).mode(mode).create(dir);
            made.map_err(|source| OpenError::Directory { path: dir.to_owned(), source })?;
        }
        cache_mode::close(&self.config.cache_dir);
        Ok(())
    }

    /// Puts the parts together. The caller holds the lock of the run directory. `manager` keeps descriptors of running
    /// containers, if there is one; `kept` are those that it or a predecessor has kept.
    ///
    /// # Errors
    /// State that cannot be opened, with its path.
    pub fn assemble(&self, manager: &ServiceManager, kept: Vec<Named>) -> Result<Assembled, OpenError> {
        let assembly = Assembly::new(&self.config, &self.programs, &self.cgroups, manager, kept)?;
        Ok(Assembled { assembly, cgroups: self.cgroups.clone() })
    }
}

impl Assembled {
    /// Starts the actors, which re-attach the containers of an earlier node. Wants an actix system, as [`crate::block_on`]
    /// makes one.
    #[must_use]
    pub fn start(self) -> Node {
        let Assembly { config, parts, shims, gate } = self.assembly;
        let supervisor = contd_actors::start(config, parts);
        Node { supervisor, shims, gate, cgroups: self.cgroups, lock: None }
    }
}

impl Node {
    /// Opens the node of a configuration: checks it, makes its directories, takes its lock, starts its actors and its warm
    /// slots. Wants an actix system, as [`crate::block_on`] makes one.
    ///
    /// # Errors
    /// Whatever keeps it from starting, with a hint; [`OpenError::Lock`] where a node runs already.
    #[expect(
        clippy::unused_async,
        reason = "async by contract: it wants an actix system, and opening may come to wait"
    )]
    pub async fn open(config: Config) -> Result<Self, OpenError> {
        let plan = Plan::new(config)?;
        plan.make_directories()?;
        let lock = NodeLock::take(&plan.config.run_dir, Role::Daemon)?;
        let node = plan.assemble(&ServiceManager::default(), Vec::new())?.start();
        node.fill_slots();
        Ok(Self { lock: Some(lock), ..node })
    }

    /// Returns the actor that answers all of [`contd_actors::messages`].
    #[must_use]
    pub fn supervisor(&self) -> &Addr<Supervisor> {
        &self.supervisor
    }

    /// Returns the rules for callers with limited rights, as they are now.
    #[must_use]
    pub fn rules(&self) -> Arc<Rules> {
        self.gate.rules()
    }

    /// Takes over what of a configuration can change while a node runs: rules, limits, logs and defaults.
    ///
    /// # Errors
    /// A limit that cannot be; then nothing has changed.
    pub fn reconfigure(&self, config: &Config) -> Result<(), SpecError> {
        tell(&self.supervisor, Reconfigure(changeable(config)?));
        self.gate.replace(Rules::of(config));
        Ok(())
    }

    /// Starts shims that wait ready for containers to come, as many as the configuration says.
    pub fn fill_slots(&self) {
        self.shims.fill_slots();
    }

    /// Lets the actors come to rest: runs under way end within bounds, and nothing new is begun. Containers run on.
    ///
    /// # Errors
    /// They did not within 20 s.
    pub async fn come_to_rest(&self) -> Result<(), ApiError> {
        ask_api(&self.supervisor, Shutdown, SHUTDOWN_DEADLINE).await
    }

    /// Ends the shims that wait for containers to come.
    pub async fn drain_slots(&self) {
        self.shims.drain_slots().await;
    }

    /// Gives away the descriptors that are held of running containers, by name, for a successor.
    #[must_use]
    pub fn release_kept(&self) -> Vec<(String, OwnedFd)> {
        self.shims.release_kept()
    }

    /// Ends the node in order. Its containers run on; the cgroup above them goes when there are none.
    pub async fn close(self) {
        if let Err(error) = self.come_to_rest().await {
            warn!(%error, "the actors did not come to rest");
        }
        self.drain_slots().await;
        self.cgroups.remove_if_empty();
        // Last of all, when nothing of ours is under way.
        drop(self.lock);
    }
}
