//! Properties of the configuration that hold for every spec.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "a test")]

use crate::support::Case;
use contd_bundle::{BundleError, MASKED_PATHS, READONLY_PATHS, config, preview};
use contd_types::{CpuLimit, Entrypoint, MountSpec, Propagation, UserSpec};
use oci_spec::runtime::Spec;
use proptest::prelude::*;
use serde_json::{Value, json};

fn json_of(case: &Case) -> Value {
    let text = case.with_request(preview).expect("preview");
    serde_json::from_str(&text).expect("json")
}

#[test]
fn the_text_reads_back_as_the_same_configuration_and_is_the_same_each_time() {
    let mut case = Case::new();
    for is_elevated in [false, true, false] {
        case.spec.is_elevated = is_elevated;
        let (made, text) = case.with_request(|request| (config(request).unwrap(), preview(request).unwrap()));
        assert_eq!(serde_json::from_str::<Spec>(&text).expect("readable"), made);
        for _ in 0..10 {
            assert_eq!(case.with_request(preview).unwrap(), text);
        }
    }
}

#[test]
fn the_text_is_indented_and_ordered_all_through() {
    let text = Case::new().with_request(preview).unwrap();
    let value: Value = serde_json::from_str(&text).expect("json");
    assert!(value["linux"]["seccomp"]["syscalls"].as_array().unwrap().len() > 1);
    assert_eq!(serde_json::to_string_pretty(&value).unwrap() + "\n", text);
}

#[test]
fn the_isolation_defaults_are_all_there() {
    let case = Case::new();
    let made = json_of(&case);
    let namespaces = made["linux"]["namespaces"].as_array().expect("list");
    let kinds: Vec<&str> = namespaces.iter().map(|namespace| namespace["type"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["pid", "mount", "uts", "ipc", "cgroup", "network"]);
    assert!(namespaces.iter().all(|namespace| namespace.get("path").is_none()));
    assert_eq!(made["process"]["noNewPrivileges"], json!(true));
    assert_eq!(made["linux"]["maskedPaths"], json!(MASKED_PATHS));
    assert_eq!(made["linux"]["readonlyPaths"], json!(READONLY_PATHS));
    assert_eq!(made["hostname"], json!("web-1"));
    assert_eq!(made["root"], json!({ "path": case.root(), "readonly": false }));
    assert_eq!(made["linux"]["seccomp"]["defaultAction"], json!("SCMP_ACT_ERRNO"));
    assert_eq!(made["linux"]["rootfsPropagation"], json!(EXPECTED_PRIVATE));
    assert_eq!(made["linux"]["devices"], json!([]));
    assert_eq!(made["annotations"], json!({ "tech.contd.namespace": "namespace", "tech.contd.name": "web-1" }));
    assert!(made.get("hooks").is_none() && made["process"].get("oomScoreAdj").is_none());
}

/// The word for "no propagation".
const EXPECTED_PRIVATE: &str = "private";

#[test]
fn capabilities_are_the_fourteen_in_three_sets_and_in_no_other() {
    let made = json_of(&Case::new());
    let sets = &made["process"]["capabilities"];
    let fourteen = json!([
        "CAP_AUDIT_WRITE",
        "CAP_CHOWN",
        "CAP_DAC_OVERRIDE",
        "CAP_FOWNER",
        "CAP_FSETID",
        "CAP_KILL",
        "CAP_MKNOD",
        "CAP_NET_BIND_SERVICE",
        "CAP_NET_RAW",
        "CAP_SETFCAP",
        "CAP_SETGID",
        "CAP_SETPCAP",
        "CAP_SETUID",
        "CAP_SYS_CHROOT",
    ]);
    for set in ["bounding", "effective", "permitted"] {
        assert_eq!(sets[set], fourteen, "{set}");
    }
    for set in ["inheritable", "ambient"] {
        assert_eq!(sets[set], json!([]), "{set}");
    }
}

#[test]
fn an_elevated_container_has_sys_admin_and_fuse_and_nothing_else_more() {
    let mut case = Case::new();
    let plain = json_of(&case);
    case.spec.is_elevated = true;
    let elevated = json_of(&case);
    let count = |made: &Value, path: &str| made.pointer(path).and_then(Value::as_array).map_or(0, Vec::len);
    let bounding = elevated["process"]["capabilities"]["bounding"].as_array().unwrap();
    assert!(bounding.contains(&json!("CAP_SYS_ADMIN")) && bounding.len() == 15);
    assert_eq!(count(&elevated, "/linux/resources/devices"), count(&plain, "/linux/resources/devices") + 1);
    assert_eq!(elevated["linux"]["devices"][0]["path"], json!("/dev/fuse"));
    for same in
        ["/linux/maskedPaths", "/linux/readonlyPaths", "/linux/namespaces", "/mounts", "/process/noNewPrivileges"]
    {
        assert_eq!(elevated.pointer(same), plain.pointer(same), "{same}");
    }
}

#[test]
fn devices_are_denied_first() {
    let made = json_of(&Case::new());
    let rules = made["linux"]["resources"]["devices"].as_array().unwrap();
    assert_eq!(rules[0], json!({ "allow": false, "access": "rwm" }));
    assert_eq!(rules.len(), 10);
    assert!(rules[1..].iter().all(|rule| rule["allow"] == json!(true) && rule["type"] == json!("c")));
}

#[test]
fn how_the_kernel_weighs_the_container_is_said_where_the_node_says_so() {
    let mut case = Case::new();
    case.defaults.oom_score_adj = Some(0);
    assert_eq!(json_of(&case)["process"]["oomScoreAdj"], json!(0));
}

#[test]
fn limits_come_from_the_spec_and_else_from_the_node() {
    let mut case = Case::new();
    let resources = json_of(&case)["linux"]["resources"].clone();
    assert_eq!(resources["memory"], json!({ "limit": 64 << 20 }));
    assert_eq!(resources["cpu"], json!({ "quota": 150_000, "period": 100_000, "shares": 1536 }));
    assert_eq!(resources["pids"], json!({ "limit": 77 }));
    case.spec.memory_bytes = Some(u64::MAX);
    case.spec.cpu = Some(CpuLimit::from_millis(10).unwrap());
    case.spec.pids_limit = Some(u32::MAX);
    let resources = json_of(&case)["linux"]["resources"].clone();
    assert_eq!(resources["memory"]["limit"], json!(i64::MAX));
    assert_eq!(resources["cpu"], json!({ "quota": 1000, "period": 100_000, "shares": 10 }));
    assert_eq!(resources["pids"], json!({ "limit": u32::MAX }));
}

#[test]
fn a_named_network_namespace_is_joined_by_its_path() {
    let mut case = Case::new();
    case.netns = contd_bundle::Netns::Path("/run/netns/blue".into());
    let made = json_of(&case);
    assert_eq!(made["linux"]["namespaces"][5], json!({ "type": "network", "path": "/run/netns/blue" }));
}

#[test]
fn the_cgroup_is_below_its_parent_and_the_parent_is_checked() {
    let mut case = Case::new();
    case.cgroup_parent = "contd/apps".into();
    assert_eq!(json_of(&case)["linux"]["cgroupsPath"], json!(format!("/contd/apps/{}", case.id)));
    for bad in ["", "/contd", "../x", "a/../../b", "./a"] {
        case.cgroup_parent = bad.into();
        let refused = case.with_request(config);
        assert!(matches!(refused, Err(BundleError::CgroupParent { .. })), "{bad:?}: {refused:?}");
    }
}

#[test]
fn a_root_that_is_not_an_absolute_directory_is_refused() {
    let case = Case::new();
    std::fs::write(case.root().join("file"), "").unwrap();
    for root in ["relative".into(), case.root().join("missing"), case.root().join("file")] {
        let refused = case.with_request(|request| {
            let mut request = request.clone();
            request.root = &root;
            config(&request)
        });
        assert!(matches!(refused, Err(BundleError::Root { .. })), "{}: {refused:?}", root.display());
    }
}

#[test]
fn what_the_spec_says_arrives() {
    let mut case = Case::new();
    case.spec.working_dir = Some("/srv".into());
    case.spec.user = Some(UserSpec::new("5:6").unwrap());
    case.spec.is_read_only = true;
    case.spec.rootfs_propagation = Propagation::Slave;
    case.spec.entrypoint = Some(Entrypoint::Line("sh -c 'a b'".into()));
    case.spec.env = vec!["K=1".into(), "K=2".into()];
    let made = json_of(&case);
    assert_eq!(made["process"]["cwd"], json!("/srv"));
    assert_eq!(made["process"]["user"], json!({ "uid": 5, "gid": 6, "additionalGids": [6] }));
    assert_eq!(made["root"]["readonly"], json!(true));
    assert_eq!(made["linux"]["rootfsPropagation"], json!("slave"));
    assert_eq!(made["process"]["args"], json!(["sh", "-c", "a b"]));
    assert_eq!(made["process"]["env"][0], json!("K=2"));
}

#[test]
fn an_invalid_spec_is_refused_before_anything_else() {
    let mut case = Case::new();
    case.spec.working_dir = Some("../..".into());
    assert!(matches!(case.with_request(config), Err(BundleError::Spec { .. })));
}

/// A mount at a target of its own, with options that do not contradict each other.
fn any_mount() -> impl Strategy<Value = MountSpec> {
    let target = "/(data|mnt|srv|opt)(/[a-z]{1,8}){0,3}/?";
    let words = |words: &[&'static str]| proptest::option::of(proptest::sample::select(words.to_vec()));
    let any = (words(&["ro", "rw", "readonly"]), words(&["nosuid", "nodev"]), words(&["private", "rslave"]));
    let bind = any.clone().prop_map(|(access, restriction, propagation)| (access, restriction, propagation, None));
    let tmpfs = (any, words(&["size=3m", "mode=0711"])).prop_map(|((a, b, c), d)| (a, b, c, d));
    (prop_oneof![bind.prop_map(|all| ("bind", all)), tmpfs.prop_map(|all| ("tmpfs", all))], target).prop_map(
        |((fs_type, (one, two, three, four)), target)| {
            let options = [one, two, three, four].into_iter().flatten().map(str::to_owned).collect();
            let source = if fs_type == "bind" { "/tmp" } else { "tmpfs" };
            MountSpec { source: source.into(), target, fs_type: fs_type.into(), options }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn the_callers_mounts_come_last_each_once_and_none_before_one_that_would_cover_it(
        mounts in proptest::collection::vec(any_mount(), 0..12),
        is_read_only: bool,
        is_elevated: bool,
    ) {
        let mut case = Case::new();
        let mut places = std::collections::BTreeSet::new();
        case.spec.mounts = mounts.into_iter().filter(|mount| places.insert(mount.place())).collect();
        case.spec.is_read_only = is_read_only;
        case.spec.is_elevated = is_elevated;
        let made = case.with_request(config).expect("valid");
        let all = made.mounts().as_deref().expect("mounts");
        let (defaults, own) = all.split_at(7);
        prop_assert_eq!(defaults[0].destination().to_str(), Some("/proc"));
        prop_assert_eq!(own.len(), case.spec.mounts.len());
        for (index, made) in own.iter().enumerate() {
            let place = made.destination().display().to_string();
            let given = case.spec.mounts.iter().find(|mount| mount.place() == place).expect("one of them");
            prop_assert_eq!(made.typ().as_deref(), Some(given.fs_type.as_str()));
            prop_assert_eq!(made.options(), &Some(given.runtime_options().expect("valid")));
            prop_assert!(own[index + 1..].iter().all(|later| !made.destination().starts_with(later.destination())));
        }
    }
}
