//! A session that goes on where a dead one has left off, on a real mount. Wants root.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use contd_flist::{BlockCache, Content, Flist, RoutePolicy, Routes};
use contd_flistfs::mount;
use contd_flistfs::negotiate::Negotiated;
use contd_flistfs::ops::Ops;
use contd_flistfs::session::{Session, agree};
use contd_flistfs::slots::{self, Slots};
use contd_test_harness::mounted::{assert_matches_manifest, fixture};

struct Mounted(PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        mount::abandon(&self.0);
    }
}

fn ops(scratch: &Path) -> Arc<Ops> {
    let flist = Flist::open(&fixture("small", scratch)).unwrap();
    let routes = Routes::connect(flist.routes(), &RoutePolicy::default()).unwrap();
    let cache = Arc::new(BlockCache::open(&scratch.join("cache")).unwrap());
    Arc::new(Ops::new(Content::new(Arc::new(flist), routes, cache)))
}

#[test]
fn a_successor_answers_what_its_predecessor_had_taken_and_all_that_follows() {
    let scratch = tempfile::tempdir().unwrap();
    let mnt = scratch.path().join("mnt");
    std::fs::create_dir(&mnt).unwrap();
    let device = mount::attach(&mnt).unwrap();
    let _mounted = Mounted(mnt.clone());
    let kept = device.try_clone().unwrap();
    let kept_words = serde_json::to_vec(&agree(&device).unwrap()).unwrap();
    let memory = slots::create().unwrap();
    let mut first = Slots::map(&memory).unwrap();
    let asker = {
        let path = mnt.join("etc/hostname");
        std::thread::spawn(move || std::fs::metadata(path).map(|metadata| metadata.len()))
    };
    // The first server takes the lookup of `etc` and dies with it.
    let taken = first.inboxes[2].read(&kept).unwrap();
    assert!(taken.len() > 40);
    drop((first, device));
    let negotiated: Negotiated = serde_json::from_slice(&kept_words).unwrap();
    let second = Session::resume(kept, negotiated, ops(scratch.path()), Slots::map(&memory).unwrap());
    let gone = second.start().unwrap();
    let wanted = crate::support::manifest("small").into_iter().find(|entry| entry.path == "/etc/hostname").unwrap();
    assert_eq!(asker.join().unwrap().unwrap(), wanted.size.unwrap());
    assert_matches_manifest(&mnt, "small");
    contd_test_harness::mounted::unmount(&mnt);
    let mut rest = Vec::new();
    (&gone).read_to_end(&mut rest).unwrap();
    assert!(rest.is_empty());
}
