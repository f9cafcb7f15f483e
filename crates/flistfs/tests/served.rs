//! A mount that is served by threads of the test itself, so that its counters can be read.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]
#![allow(dead_code, unreachable_pub, reason = "each test binary uses a part of it")]

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use contd_flist::{BlockCache, Content, Flist, RoutePolicy, Routes};
use contd_flistfs::mount;
use contd_flistfs::ops::Ops;
use contd_flistfs::session::Session;
use contd_test_harness::mounted::unmount;

/// Makes the operations over a flist, with `<scratch>/handles` to write open files down. Small files are passed through as
/// well, so that the fixtures' are.
pub fn ops(scratch: &Path, flist: &Path, cache: &Path) -> Arc<Ops> {
    Arc::new(Ops::with_passthrough_from(content(flist, cache), scratch.join("handles"), 1))
}

pub fn content(flist: &Path, cache: &Path) -> Content {
    let flist = Flist::open(flist).unwrap();
    let routes = Routes::connect(flist.routes(), &RoutePolicy::default()).unwrap();
    Content::new(Arc::new(flist), routes, Arc::new(BlockCache::open(cache).unwrap()))
}

/// A mount and what serves it.
pub struct Served {
    pub mnt: PathBuf,
    pub ops: Arc<Ops>,
    gone: std::io::PipeReader,
}

impl Served {
    /// Mounts at `<scratch>/mnt`.
    pub fn start(scratch: &Path, ops: Arc<Ops>) -> Self {
        let mnt = scratch.join("mnt");
        std::fs::create_dir_all(&mnt).unwrap();
        let device = mount::attach(&mnt).unwrap();
        let gone = Session::begin(device, Arc::clone(&ops)).unwrap().start().unwrap();
        Self { mnt, ops, gone }
    }

    /// With passthrough, and the cache in `<scratch>/cache`.
    pub fn passing(scratch: &Path, flist: &Path) -> Self {
        Self::start(scratch, ops(scratch, flist, &scratch.join("cache")))
    }

    /// Unmounts, and waits until the kernel has let go.
    #[track_caller]
    pub fn stop(mut self) {
        unmount(&self.mnt);
        let mut rest = Vec::new();
        self.gone.read_to_end(&mut rest).unwrap();
    }
}

impl Drop for Served {
    /// Only after a failed test is there still something to clear away.
    fn drop(&mut self) {
        let _usually_not_mounted = nix::mount::umount2(&self.mnt, nix::mount::MntFlags::MNT_DETACH);
    }
}
