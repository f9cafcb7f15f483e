//! A `contd-flistfs` with its mount, started and ended as the daemon does it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use contd_flist::FetchedFlist;
use contd_lease::{LeaseDir, LeaseState};
use contd_protocol::flistfs::{CacheLimits, SERVE_SPEC_VERSION, ServeSpec};

use crate::census::command_lines;
use crate::control;
use crate::run_dir::RunDir;
use crate::tools::{binary, run};

/// The time limit for a server to end after its Shutdown.
const END_TIMEOUT: Duration = Duration::from_secs(10);

/// A server. Dropping it does not end it: the run directory does.
pub(crate) struct Server {
    dir: PathBuf,
    /// The root of the mounted tree.
    pub(crate) root: PathBuf,
}

impl Server {
    /// Writes the server's configuration, with the block cache in `cache`.
    pub(crate) fn prepare(run_dir: &RunDir, flist: &FetchedFlist, cache: &Path) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let dir = run_dir.dir("f").join(COUNT.fetch_add(1, Ordering::Relaxed).to_string());
        let root = dir.join("mnt");
        LeaseDir::new(&dir).reserve("bench", &dir.join("sock")).expect("reserve a lease");
        fs::create_dir(&root).expect("make the mount point");
        fs::create_dir_all(cache).expect("make the cache");
        let spec = ServeSpec {
            version: SERVE_SPEC_VERSION,
            flist: flist.path.clone(),
            hash: flist.hash.clone(),
            mount_point: root.clone(),
            cache: cache.to_owned(),
            source: flist.path.display().to_string(),
            cache_limits: CacheLimits::default(),
            limited_routes: None,
            operation: None,
        };
        fs::write(dir.join("serve.json"), serde_json::to_vec(&spec).expect("encode")).expect("write what to serve");
        Self { dir, root }
    }

    /// Starts the server; returns when the mount is ready.
    pub(crate) fn launch(&self) {
        run(Command::new(binary("contd-flistfs")).arg("--dir").arg(&self.dir));
    }

    /// Does both [`Self::prepare`] and [`Self::launch`].
    pub(crate) fn start(run_dir: &RunDir, flist: &FetchedFlist, cache: &Path) -> Self {
        let server = Self::prepare(run_dir, flist, cache);
        server.launch();
        server
    }

    /// Returns the process that answers requests; `None` when there is none.
    pub(crate) fn serving_pid(&self) -> Option<i32> {
        control::serving_pid(&self.dir.join("sock"))
    }

    /// Returns all processes of the server.
    pub(crate) fn processes(&self) -> Vec<i32> {
        let named = format!("{} ", self.dir.display());
        command_lines().into_iter().filter(|(_, line)| line.contains(&named)).map(|(pid, _)| pid).collect()
    }

    /// Unmounts the tree and ends the server.
    pub(crate) fn stop(self) {
        control::shut_down(&self.dir.join("sock")).expect("shut the server down");
        self.forget();
    }

    /// Waits until all its processes have ended, and removes its directory.
    pub(crate) fn forget(self) {
        let lease = LeaseDir::new(&self.dir);
        let begin = Instant::now();
        while matches!(lease.probe(), Ok(LeaseState::Held(_))) || !self.processes().is_empty() {
            assert!(begin.elapsed() < END_TIMEOUT, "a flist server does not end: {:?}", self.processes());
            std::thread::sleep(Duration::from_millis(2));
        }
        lease.retire().expect("retire the lease");
    }
}
