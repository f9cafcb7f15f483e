//! Scratch ground for the tests of real roots.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use contd_lease::{LeaseDir, LeaseState, ProcessIdentity, pidfd, signal, wait_dead};
use contd_protocol::flistfs::{Process, SERVER_FILE};
use contd_rootfs::{MountConfig, MountRootfs, PrepareRootfs, PreparedRootfs, RootfsError, RootfsProvider};
use contd_types::{ContainerId, LayerKind, NamespaceId};

use contd_test_harness::{built, mounted as support};

/// Scratch ground for one test, with a provider on it.
pub(crate) struct Node {
    scratch: tempfile::TempDir,
}

impl Node {
    pub(crate) fn new() -> Self {
        let scratch = tempfile::tempdir().unwrap();
        for dir in ["run", "run/f", "state", "state/ns", "state/.removed", "cache", "upper"] {
            fs::create_dir(scratch.path().join(dir)).unwrap();
        }
        Self { scratch }
    }

    pub(crate) fn path(&self) -> &Path {
        self.scratch.path()
    }

    /// Counts what there is, once layers that are being removed are gone.
    #[track_caller]
    pub(crate) fn census(&self) -> support::Census {
        for _ in 0..1000 {
            if fs::read_dir(self.path().join("state/.removed")).unwrap().next().is_none() {
                return support::census(self.path());
            }
            std::thread::park_timeout(Duration::from_millis(10));
        }
        panic!("a layer is not removed");
    }

    /// A provider that knows nothing: what a new daemon has.
    pub(crate) fn provider(&self) -> MountRootfs {
        MountRootfs::new(MountConfig {
            flistfs_binary: built("contd-flistfs"),
            run_dir: self.path().join("run"),
            state_dir: self.path().join("state"),
            cache_dir: self.path().join("cache"),
        })
    }

    pub(crate) fn server_dir(&self) -> PathBuf {
        let dirs = support::names(&self.path().join("run/f"));
        assert_eq!(dirs.len(), 1, "{dirs:?}");
        self.path().join("run/f").join(&dirs[0])
    }

    /// Kills the server and its keeper.
    pub(crate) fn kill_server(&self) {
        let LeaseState::Held(lease) = LeaseDir::new(self.server_dir()).probe().unwrap() else { panic!("not held") };
        let text = fs::read(self.server_dir().join(SERVER_FILE)).unwrap();
        let Process { pid, start_ticks } = serde_json::from_slice(&text).unwrap();
        let both =
            [lease.process.unwrap(), ProcessIdentity { pid, start_ticks }].map(|of| pidfd(&of).unwrap().unwrap());
        // Stopped first, so that neither has the time to replace the other.
        for number in [19, 9] {
            both.iter().for_each(|pidfd| assert!(signal(pidfd, number).unwrap()));
        }
        assert!(both.iter().all(|pidfd| wait_dead(pidfd, Duration::from_secs(300)).unwrap()));
    }
}

impl Drop for Node {
    /// Only after a failed test is there still something to clear away.
    fn drop(&mut self) {
        let mountinfo = fs::read_to_string("/proc/self/mountinfo").unwrap();
        for line in mountinfo.lines().rev().filter(|line| line.contains(self.path().to_str().unwrap())) {
            let point = line.split(' ').nth(4).unwrap().replace("\\040", " ");
            let _gone = nix::mount::umount2(Path::new(&point), nix::mount::MntFlags::MNT_DETACH);
        }
    }
}

pub(crate) fn request(flist: &str, number: u8) -> PrepareRootfs {
    PrepareRootfs {
        namespace: NamespaceId::new("ns").unwrap(),
        id: ContainerId::from_random([number; 16]),
        flist: flist.to_owned(),
        is_read_only: false,
        layer: LayerKind::Disk,
        is_layer_required: false,
        size_bytes: 4 << 20,
        is_size_required: false,
        upper_dir: None,
        is_trusted: false,
        grant: None,
        operation: None,
    }
}

pub(crate) fn prepare(provider: &dyn RootfsProvider, request: &PrepareRootfs) -> Result<PreparedRootfs, RootfsError> {
    provider.prepare(request, &|_| {})
}

pub(crate) fn release(provider: &dyn RootfsProvider, request: &PrepareRootfs) -> Result<(), RootfsError> {
    provider.release(&request.namespace, &request.id)
}

pub(crate) fn options_of(root: &Path) -> String {
    let mountinfo = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let line = mountinfo.lines().rev().find(|line| line.split(' ').nth(4) == root.to_str());
    line.unwrap_or_else(|| panic!("{} is not mounted", root.display())).to_owned()
}
