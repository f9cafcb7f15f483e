//! The shared setup of all contenders: one network namespace, one bundle, one floor; removed at the end.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::floor::FloorBundle;
use crate::harness::census::{cgroups_below, mounts};
use crate::harness::{Flist, Netns, Node, busybox_tree};
use crate::peers::{Containerd, RuncBundle};

/// The shared setup of one measurement.
pub(crate) struct Setup {
    pub(crate) netns: Netns,
    /// The configuration of contd's own dry run, in the shared network namespace.
    pub(crate) config: Value,
    pub(crate) runc: RuncBundle,
    pub(crate) floor_bundle: FloorBundle,
    tree: PathBuf,
    cgroup_parent: String,
    dir: tempfile::TempDir,
}

impl Setup {
    /// Makes the setup; `name` tells it from others.
    pub(crate) fn new(name: &str) -> Self {
        let dir = tempfile::Builder::new().prefix("contd-bench-").tempdir_in("/tmp").expect("make a directory");
        let netns = Netns::new(&format!("bench-{name}"));
        let cgroup_parent = format!("contd-bench-{}", std::process::id());
        let tree = dir.path().join("tree");
        busybox_tree(&tree);
        let config = plan(dir.path(), &netns, &tree);
        let runc = RuncBundle::new(&dir.path().join("runc"), &config, &cgroup_parent);
        let floor_bundle = floor_bundle(&dir.path().join("floor"), &tree, &config, &cgroup_parent, "floor");
        Self { netns, config, runc, floor_bundle, tree, cgroup_parent, dir }
    }

    /// Makes one more floor, for a concurrent one.
    pub(crate) fn another_floor_bundle(&self, number: usize) -> FloorBundle {
        let name = format!("floor{number}");
        floor_bundle(&self.dir.path().join(&name), &self.tree, &self.config, &self.cgroup_parent, &name)
    }

    /// Starts our own containerd, if it is installed.
    pub(crate) fn containerd(&self) -> Option<Containerd> {
        Containerd::start(&self.dir.path().join("containerd"), &self.cgroup_parent)
    }

    /// The parent of all cgroups here.
    pub(crate) fn cgroup_parent(&self) -> &str {
        &self.cgroup_parent
    }

    /// Returns a path for a file of one measurement.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Asserts that nothing is left behind, as the census of a node does.
    pub(crate) fn finish(self) {
        let Self { netns, runc, floor_bundle, cgroup_parent, dir, .. } = self;
        drop((netns, runc, floor_bundle));
        // The OCI runtimes do not remove the parents of their cgroups.
        let mut left: Vec<_> = cgroups_below(&cgroup_parent).into_iter().collect();
        left.retain(|cgroup| !cgroup.ends_with(&cgroup_parent) || fs::remove_dir(cgroup).is_err());
        assert!(left.is_empty(), "cgroups left behind: {left:?}");
        let mounted = mounts(dir.path());
        assert!(mounted.is_empty(), "mounts left behind: {mounted:?}");
        let named = dir.path().display().to_string();
        let ours = crate::harness::census::command_lines().into_iter().filter(|(_, line)| line.contains(&named));
        let left: Vec<_> = ours.collect();
        assert!(left.is_empty(), "processes left behind: {left:?}");
    }
}

/// Makes the `config.json` from contd's dry run; only root, cgroup and network namespace differ.
fn plan(dir: &Path, netns: &Netns, tree: &Path) -> Value {
    let node = Node::start();
    let flist = Flist::pack(&node.root.join("input"), tree);
    let plan = node.contd(["run", "--dry-run", "--name", "peer", flist.arg(), "/bin/true"]);
    let mut config: Value = serde_json::from_str(plan.ok()).expect("a config.json");
    node.finish();
    let namespaces = config["linux"]["namespaces"].as_array_mut().expect("a list");
    let network = namespaces.iter_mut().find(|one| one["type"] == "network").expect("a network namespace");
    network["path"] = format!("/run/netns/{}", netns.name).into();
    config["root"]["path"] = tree.display().to_string().into();
    fs::write(dir.join("config.json"), config.to_string()).expect("write the configuration");
    config
}

fn floor_bundle(dir: &Path, tree: &Path, config: &Value, cgroup_parent: &str, name: &str) -> FloorBundle {
    let compiler = Path::new(env!("CARGO_BIN_EXE_contd")).with_file_name("contd-seccomp");
    FloorBundle::make(dir, tree, config, &compiler, &format!("/{cgroup_parent}/{name}"))
}
