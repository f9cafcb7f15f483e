//! House rules that a machine can check: which crate may know which, and that every crate inherits the one lint table.
#![expect(clippy::expect_used, clippy::indexing_slicing, reason = "tests end loudly")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use serde_json::Value;

/// Every edge between our crates. A new one is a decision: argue it in the commit that adds it here.
/// Floors, from below: failpoints, then words and files (types, durable), then identity and messages (lease, protocol), then one concern
/// each, then the actors, then the process.
const ALLOWED: [(&str, &[&str]); 22] = [
    ("contd-types", &[]),
    ("contd-access", &["contd-types"]),
    ("contd-cgroup", &[]),
    ("contd-seccomp", &[]),
    ("contd-launch", &["contd-cgroup"]),
    ("contd-failpoint", &[]),
    ("contd-test-harness", &[]),
    ("contd-durable", &["contd-failpoint"]),
    ("contd-handover", &[]),
    ("contd-lease", &["contd-durable"]),
    ("contd-protocol", &["contd-types"]),
    ("contd-logs", &["contd-failpoint", "contd-types"]),
    ("contd-flist", &["contd-types"]),
    ("contd-store", &["contd-durable", "contd-types"]),
    ("contd-bundle", &["contd-durable", "contd-types"]),
    ("contd-client", &["contd-protocol", "contd-types"]),
    (
        "contd-flistfs",
        &["contd-durable", "contd-flist", "contd-handover", "contd-lease", "contd-protocol", "contd-types"],
    ),
    ("contd-rootfs", &["contd-access", "contd-durable", "contd-flist", "contd-lease", "contd-protocol", "contd-types"]),
    (
        "contd-shim",
        &[
            "contd-cgroup",
            "contd-durable",
            "contd-failpoint",
            "contd-launch",
            "contd-lease",
            "contd-logs",
            "contd-protocol",
            "contd-types",
        ],
    ),
    (
        "contd-shim-client",
        &["contd-cgroup", "contd-durable", "contd-failpoint", "contd-lease", "contd-protocol", "contd-types"],
    ),
    (
        "contd-actors",
        &[
            "contd-bundle",
            "contd-failpoint",
            "contd-logs",
            "contd-protocol",
            "contd-rootfs",
            "contd-shim-client",
            "contd-store",
            "contd-types",
        ],
    ),
    (
        "contd",
        &[
            "contd-access",
            "contd-actors",
            "contd-bundle",
            "contd-cgroup",
            "contd-client",
            "contd-durable",
            "contd-failpoint",
            "contd-flist",
            "contd-handover",
            "contd-lease",
            "contd-logs",
            "contd-protocol",
            "contd-rootfs",
            "contd-shim-client",
            "contd-store",
            "contd-types",
        ],
    ),
];

fn metadata() -> Value {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--offline", "--format-version", "1"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("run cargo metadata");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

/// The packages of the workspace with their normal dependencies.
fn dependencies() -> BTreeMap<String, BTreeSet<String>> {
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    let packages = metadata()["packages"].as_array().expect("packages").clone();
    let normal = |package: &Value| {
        let all = package["dependencies"].as_array().expect("dependencies").iter();
        all.filter(|dependency| dependency["kind"].is_null()).map(|dependency| text(&dependency["name"])).collect()
    };
    packages.iter().map(|package| (text(&package["name"]), normal(package))).collect()
}

#[test]
fn crates_depend_only_on_what_lies_below_them() {
    let allowed: BTreeMap<&str, &[&str]> = ALLOWED.into_iter().collect();
    let found = dependencies();
    let names: Vec<&str> = found.keys().map(String::as_str).collect();
    assert_eq!(names, allowed.keys().copied().collect::<Vec<_>>(), "the list of crates");
    for (package, dependencies) in &found {
        let ours = dependencies.iter().filter(|name| name.starts_with("contd"));
        for dependency in ours {
            let may = allowed[package.as_str()].contains(&dependency.as_str());
            assert!(may, "{package} must not depend on {dependency}: see docs/decisions/0001");
        }
    }
}

#[test]
fn only_the_actors_and_the_process_know_actix() {
    for (package, dependencies) in dependencies() {
        let knows = dependencies.contains("actix") || dependencies.contains("actix-rt");
        assert!(!knows || ["contd", "contd-actors"].contains(&package.as_str()), "{package} depends on actix");
    }
}

/// The whole tree below a package, as cargo resolves it.
fn tree(package: &str) -> String {
    let output = Command::new(env!("CARGO"))
        .args(["tree", "--offline", "-p", package, "-e", "normal", "--prefix", "none", "--format", "{p}"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("run cargo tree");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("utf-8")
}

#[test]
fn the_shim_and_the_flist_server_link_no_async_runtime() {
    for package in ["contd-shim", "contd-flistfs"] {
        for line in tree(package).lines() {
            let name = line.split(' ').next().unwrap_or_default();
            assert!(!["actix", "actix-rt", "tokio", "mio"].contains(&name), "{package} links {name}");
        }
    }
}

#[test]
fn every_crate_inherits_the_lint_table() {
    for package in metadata()["packages"].as_array().expect("packages") {
        let manifest = package["manifest_path"].as_str().expect("a path");
        let table: toml::Table = std::fs::read_to_string(manifest).expect("read").parse().expect("TOML");
        let inherits = table.get("lints").and_then(|lints| lints.get("workspace")).and_then(toml::Value::as_bool);
        assert_eq!(inherits, Some(true), "{manifest}");
    }
}

#[test]
fn every_library_without_kernel_calls_forbids_unsafe_code() {
    for package in metadata()["packages"].as_array().expect("packages") {
        let manifest = Path::new(package["manifest_path"].as_str().expect("a path"));
        let source = manifest.with_file_name("src");
        for root in ["lib.rs", "main.rs"].map(|name| source.join(name)) {
            let Ok(text) = std::fs::read_to_string(&root) else { continue };
            let has_rule = text.contains("#![forbid(unsafe_code)]") || text.contains("#![deny(unsafe_code)]");
            assert!(has_rule, "{} neither forbids nor denies unsafe code", root.display());
        }
    }
}
