//! The contract of [`Bundles`], tested on the fake and on the real implementation.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use contd_durable::{Fault, FaultyFs, RealFs};
use contd_types::{ContainerId, ContainerName, ContainerSpec, CpuLimit, Entrypoint, NamespaceId};

use crate::{BundleError, BundleKey, BundleRequest, Bundles, Call, Defaults, DirBundles, FakeBundles, Netns, Outcome};

struct Case {
    namespace: NamespaceId,
    id: ContainerId,
    spec: ContainerSpec,
    root: tempfile::TempDir,
    defaults: Defaults,
}

impl Case {
    fn new(namespace: &str, number: u8) -> Self {
        let mut spec = ContainerSpec::new(ContainerName::new("web").expect("valid"), "/x.fl");
        spec.entrypoint = Some(Entrypoint::Line("/bin/true".into()));
        let cpu = CpuLimit::from_millis(500).expect("valid");
        Self {
            namespace: NamespaceId::new(namespace).expect("valid"),
            id: ContainerId::from_random([number; 16]),
            spec,
            root: tempfile::tempdir().expect("tempdir"),
            defaults: Defaults { memory_bytes: 64 << 20, cpu, pids_limit: 100, oom_score_adj: None },
        }
    }

    fn request(&self) -> BundleRequest<'_> {
        BundleRequest {
            namespace: &self.namespace,
            id: &self.id,
            spec: &self.spec,
            root: self.root.path(),
            netns: Netns::Private,
            cgroup_parent: "contd",
            defaults: &self.defaults,
        }
    }

    fn key(&self) -> BundleKey {
        BundleKey { namespace: self.namespace.clone(), id: self.id.clone() }
    }
}

/// Runs a test of the contract on both implementations.
fn on_both(test: impl Fn(&dyn Bundles)) {
    test(&FakeBundles::new());
    let state = tempfile::tempdir().expect("tempdir");
    test(&DirBundles::new(Arc::new(RealFs), state.path()));
}

#[test]
fn what_is_written_is_listed_until_it_is_removed() {
    on_both(|bundles| {
        let (one, other) = (Case::new("b", 2), Case::new("a", 1));
        assert_eq!(bundles.list().expect("list"), []);
        bundles.write(&one.request()).expect("write");
        bundles.write(&other.request()).expect("write");
        assert_eq!(bundles.list().expect("list"), [other.key(), one.key()]);
        bundles.remove(&one.namespace, &one.id).expect("remove");
        assert_eq!(bundles.list().expect("list"), [other.key()]);
    });
}

#[test]
fn writing_twice_gives_the_same_place() {
    on_both(|bundles| {
        let case = Case::new("a", 1);
        let first = bundles.write(&case.request()).expect("write");
        assert_eq!(bundles.write(&case.request()).expect("write again"), first);
        assert_eq!(bundles.list().expect("list"), [case.key()]);
    });
}

#[test]
fn removing_twice_or_what_never_was_is_fine() {
    on_both(|bundles| {
        let case = Case::new("a", 1);
        bundles.remove(&case.namespace, &case.id).expect("never was");
        bundles.write(&case.request()).expect("write");
        bundles.remove(&case.namespace, &case.id).expect("remove");
        bundles.remove(&case.namespace, &case.id).expect("remove again");
    });
}

#[test]
fn two_namespaces_do_not_share_a_place() {
    on_both(|bundles| {
        let (one, other) = (Case::new("a", 1), Case::new("b", 1));
        assert_ne!(bundles.write(&one.request()).expect("a"), bundles.write(&other.request()).expect("b"));
        bundles.remove(&one.namespace, &one.id).expect("remove");
        assert_eq!(bundles.list().expect("list"), [other.key()]);
    });
}

#[test]
fn a_request_that_cannot_run_leaves_nothing() {
    on_both(|bundles| {
        let mut case = Case::new("a", 1);
        case.spec.entrypoint = None;
        let refused = bundles.write(&case.request());
        assert!(matches!(refused, Err(BundleError::MissingEntrypoint { .. })), "got {refused:?}");
        assert_eq!(bundles.list().expect("list"), []);
    });
}

#[test]
fn the_fake_follows_its_script_and_remembers() {
    let case = Case::new("a", 1);
    let script = [Outcome::Fail(io::ErrorKind::StorageFull), Outcome::Delay(Duration::from_millis(1))];
    let fake = FakeBundles::scripted(script);
    assert!(matches!(fake.write(&case.request()), Err(BundleError::Store { .. })));
    fake.write(&case.request()).expect("the second works, later");
    fake.push(Outcome::Fail(io::ErrorKind::Other));
    assert!(matches!(fake.list(), Err(BundleError::List { .. })));
    assert_eq!(fake.calls(), [Call::Write(case.key()), Call::Write(case.key()), Call::List]);
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).expect("there").permissions().mode() & 0o7777
}

#[test]
fn on_disk_only_the_owner_may_look() {
    let state = tempfile::tempdir().expect("tempdir");
    let case = Case::new("a", 1);
    let bundle = DirBundles::new(Arc::new(RealFs), state.path()).write(&case.request()).expect("write");
    assert_eq!(bundle, state.path().join("a").join(case.id.as_str()).join("bundle"));
    assert_eq!(mode(&bundle.join("config.json")), 0o600);
    for dir in bundle.ancestors().take(3) {
        assert_eq!(mode(dir), 0o700, "{}", dir.display());
    }
    let text = std::fs::read_to_string(bundle.join("config.json")).expect("config");
    assert_eq!(text, crate::preview(&case.request()).expect("preview"));
}

#[test]
fn removing_takes_an_empty_container_directory_and_leaves_a_full_one() {
    let state = tempfile::tempdir().expect("tempdir");
    let bundles = DirBundles::new(Arc::new(RealFs), state.path());
    let (empty, full) = (Case::new("a", 1), Case::new("a", 2));
    for case in [&empty, &full] {
        bundles.write(&case.request()).expect("write");
    }
    let record = state.path().join("a").join(full.id.as_str()).join("record");
    std::fs::write(&record, "x").expect("record");
    for case in [&empty, &full] {
        bundles.remove(&case.namespace, &case.id).expect("remove");
    }
    assert!(record.exists());
    assert!(!state.path().join("a").join(empty.id.as_str()).exists());
}

#[test]
fn strange_names_in_the_state_directory_are_not_bundles() {
    let state = tempfile::tempdir().expect("tempdir");
    for dir in ["a/short/bundle", ".hidden/00000000000000000000000000000000/bundle", "a/.tmp"] {
        std::fs::create_dir_all(state.path().join(dir)).expect("dir");
    }
    std::fs::write(state.path().join("journal"), "x").expect("file");
    assert_eq!(DirBundles::new(Arc::new(RealFs), state.path()).list().expect("list"), []);
}

/// An upper bound of the steps of one write or remove: if more are needed the test would not end, so it fails.
const MAX_STEPS: usize = 64;

#[test]
fn a_write_or_remove_that_failed_at_any_step_can_be_repeated() {
    for fault in [Fault::Before, Fault::Torn, Fault::After] {
        repeat_after(fault);
    }
}

#[track_caller]
fn repeat_after(fault: Fault) {
    let case = Case::new("a", 1);
    for step in 1..MAX_STEPS {
        let state = tempfile::tempdir().expect("tempdir");
        let fs = Arc::new(FaultyFs::new());
        let bundles = DirBundles::new(fs.clone(), state.path());
        fs.fail_at(step, nix::libc::EIO, fault);
        let first = bundles.write(&case.request()).and_then(|_| bundles.remove(&case.namespace, &case.id));
        fs.heal();
        let has_ended = first.is_ok();
        let bundle = bundles.write(&case.request()).expect("repeat");
        assert_eq!(
            std::fs::read_to_string(bundle.join("config.json")).expect("config"),
            crate::preview(&case.request()).expect("preview"),
            "{fault:?} at step {step}"
        );
        bundles.remove(&case.namespace, &case.id).expect("remove");
        assert!(!bundle.exists(), "{fault:?} at step {step}");
        if has_ended {
            assert!(step > 6, "{fault:?}: only {} steps were made to fail", step - 1);
            return;
        }
    }
    panic!("{MAX_STEPS} steps were not enough");
}
