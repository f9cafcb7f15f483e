//! The cache under real servers: limits reach them, and pruning beside them takes nothing away from a container. Wants root.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use std::fs;

use contd_flist::cache::{Prune, prune, usage};
use contd_flist::{CacheLimits, CacheOptions};
use contd_protocol::flistfs::ServeSpec;
use contd_rootfs::{MountConfig, MountRootfs, PrepareRootfs, RootfsProvider};
use contd_test_harness::mounted::{assert_overlay_matches_manifest, fixture};
use contd_types::{ContainerId, LayerKind, NamespaceId};

#[test]
fn pruning_beside_a_server_takes_nothing_from_its_containers_and_limits_reach_it() {
    let scratch = tempfile::tempdir().unwrap();
    let path = |name: &str| scratch.path().join(name);
    let limits = CacheLimits { max_bytes: 77 << 20, min_free_bytes: 0 };
    let provider = MountRootfs::new(MountConfig {
        flistfs_binary: contd_test_harness::built("contd-flistfs"),
        run_dir: path("run"),
        state_dir: path("state"),
        cache_dir: path("cache"),
    })
    .with_cache_limits(limits);
    let flist = fixture("small", scratch.path());
    let request = PrepareRootfs {
        namespace: NamespaceId::new("ns").unwrap(),
        id: ContainerId::from_random([1; 16]),
        flist: flist.display().to_string(),
        is_read_only: false,
        layer: LayerKind::Disk,
        is_layer_required: false,
        size_bytes: 4 << 20,
        is_size_required: false,
        upper_dir: None,
        is_trusted: true,
        grant: None,
        operation: None,
    };
    let prepared = provider.prepare(&request, &|_| {}).unwrap();
    let server = fs::read_dir(path("run/f")).unwrap().next().unwrap().unwrap().path();
    let spec: ServeSpec = serde_json::from_slice(&fs::read(server.join("serve.json")).unwrap()).unwrap();
    assert_eq!((spec.cache_limits.max_bytes, spec.cache_limits.min_free_bytes), (Some(77 << 20), Some(0)));

    let options = CacheOptions { limits, servers: Some(path("run/f")) };
    let hostname = fs::read(prepared.root.join("etc/hostname")).unwrap();
    let held = usage(&path("cache"), &options);
    assert!(held.kinds.blocks.amount.count > 0 && held.flists[0].is_in_use == Some(true), "{held:?}");
    let old = std::time::SystemTime::UNIX_EPOCH;
    let flist_file = fs::File::open(&spec.flist).unwrap();
    flist_file.set_times(fs::FileTimes::new().set_accessed(old)).unwrap();
    let report = prune(&path("cache"), &options, Prune::All, false).unwrap();
    assert!(report.removed.blocks == held.kinds.blocks.amount && report.in_use.count == 1, "{report:?}");
    assert!(spec.flist.exists(), "a successor of the server needs it");
    assert_eq!(fs::read(prepared.root.join("etc/hostname")).unwrap(), hostname);
    assert_overlay_matches_manifest(&prepared.root, "small");

    provider.release(&request.namespace, &request.id).unwrap();
    let report = prune(&path("cache"), &options, Prune::All, false).unwrap();
    assert_eq!((report.removed.flists.count, report.left_bytes), (1, 0), "{report:?}");
}
