//! One bundle with a hostile image, and beside it files of the host that must not change.
//!
//! ```text
//! <scene>/bundle/config.json
//!         bundle/root/…       the image: all that a container may change
//!         outside/canary      the host's, with a secret
//!         outside/dir/
//! ```

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use contd_bundle::{BundleRequest, Defaults, Netns};
use contd_cgroup::{Cgroup, Hierarchies};
use contd_types::{ContainerId, ContainerName, ContainerSpec, CpuLimit, Entrypoint, NamespaceId, UserSpec};
use serde_json::{Value, json};

use crate::census::{self, Census};
use crate::programs::{Programs, programs};
use crate::run::{Outcome, Running};

/// The content of the canary. No container may see it.
pub(crate) const SECRET: &str = "the host's secret";
pub(crate) const EPERM: i32 = 1;
pub(crate) const ENOENT: i32 = 2;
pub(crate) const EACCES: i32 = 13;
pub(crate) const EINVAL: i32 = 22;
pub(crate) const ETXTBSY: i32 = 26;
pub(crate) const EROFS: i32 = 30;
pub(crate) const ENOSYS: i32 = 38;

/// The way in which a container is started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Start {
    Cold,
    Warm,
}

/// The scene.
pub(crate) struct Scene {
    dir: tempfile::TempDir,
    programs: &'static Programs,
    pub(crate) start: Start,
    /// The parent of the cgroups.
    parent: String,
    before: Census,
}

/// Runs a test on a cold start and on a warm one, and asserts each time that the host is as before.
#[track_caller]
pub(crate) fn on_both(test: impl Fn(&Scene)) {
    for start in [Start::Cold, Start::Warm] {
        let scene = Scene::prepare(start);
        test(&scene);
        scene.assert_untouched();
    }
}

impl Scene {
    /// Makes the image and the host's files.
    pub(crate) fn prepare(start: Start) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let programs = programs();
        let dir = tempfile::Builder::new().prefix("contd-escape-").tempdir_in(&programs.dir).unwrap();
        let root = dir.path().join("bundle/root");
        for sub in ["bin", "etc", "tmp", "work", "dir"] {
            fs::create_dir_all(root.join(sub)).unwrap();
        }
        fs::hard_link(&programs.busybox, root.join("bin/busybox")).unwrap();
        symlink("busybox", root.join("bin/sh")).unwrap();
        fs::hard_link(&programs.attack, root.join("attack")).unwrap();
        fs::write(root.join("etc/passwd"), "root:x:0:0::/root:/bin/sh\n").unwrap();
        fs::create_dir_all(dir.path().join("outside/dir")).unwrap();
        fs::write(dir.path().join("outside/canary"), SECRET).unwrap();
        fs::write(dir.path().join("bundle/config.json"), "").unwrap();
        let parent = format!("contd-escape-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let before = Census::take(dir.path(), &images(dir.path()), &parent);
        Self { dir, programs, start, parent, before }
    }

    /// Returns the path of the image.
    pub(crate) fn root(&self) -> PathBuf {
        self.dir.path().join("bundle/root")
    }

    /// Returns the directory of the host's files that must not change.
    pub(crate) fn outside(&self) -> PathBuf {
        self.dir.path().join("outside")
    }

    /// Copies a program into the image.
    pub(crate) fn install(&self, program: &Path, place: &str) {
        let place = self.root().join(place);
        fs::create_dir_all(place.parent().unwrap()).unwrap();
        fs::copy(program, &place).unwrap();
        fs::set_permissions(&place, fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// Puts a symlink into the image.
    pub(crate) fn link(&self, place: &str, says: impl AsRef<Path>) {
        let place = self.root().join(place);
        fs::create_dir_all(place.parent().unwrap()).unwrap();
        let _absent = fs::remove_file(&place);
        let _no_directory = fs::remove_dir(&place);
        symlink(says, place).unwrap();
    }

    /// Returns the bundle that contd makes by default for a container that makes these attempts.
    pub(crate) fn config(&self, attempts: &[&str]) -> Value {
        self.config_for(attempts, None).unwrap()
    }

    /// Does the same as [`Self::config`], for a user that is looked up in the image.
    pub(crate) fn config_for(&self, attempts: &[&str], user: Option<&str>) -> Result<Value, String> {
        let mut spec = ContainerSpec::new(ContainerName::new("escape").unwrap(), "/escape.fl");
        let args = ["/attack"].into_iter().chain(attempts.iter().copied());
        spec.entrypoint = Some(Entrypoint::Args(args.map(str::to_owned).collect()));
        spec.user = user.map(|user| UserSpec::new(user).unwrap());
        let request = BundleRequest {
            namespace: &NamespaceId::new("escape").unwrap(),
            id: &ContainerId::from_random([7; 16]),
            spec: &spec,
            root: &self.root(),
            netns: Netns::Private,
            cgroup_parent: "contd-escape",
            defaults: &Defaults {
                memory_bytes: 64 << 20,
                cpu: CpuLimit::from_millis(2000).unwrap(),
                pids_limit: 64,
                oom_score_adj: None,
            },
        };
        let text = contd_bundle::preview(&request).map_err(|error| error.to_string())?;
        Ok(serde_json::from_str(&text).unwrap())
    }

    /// Runs a bundle to its end.
    #[track_caller]
    pub(crate) fn run(&self, config: &Value) -> Outcome {
        self.start(config, "c").outcome()
    }

    /// Starts a bundle as the container of this name.
    pub(crate) fn start(&self, config: &Value, name: &str) -> Running {
        Running::start(self.command(Path::new(env!("CARGO_BIN_EXE_contd-launch")), config, name))
    }

    /// Returns the launcher's command line, with the given launcher.
    pub(crate) fn command(&self, launcher: &Path, config: &Value, name: &str) -> Command {
        let bundle = self.dir.path().join("bundle");
        let mut config = config.clone();
        let cgroup = self.cgroup(name);
        config["linux"]["cgroupsPath"] = json!(cgroup);
        fs::write(bundle.join("config.json"), config.to_string()).unwrap();
        let mut command = Command::new(launcher);
        command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").stdin(Stdio::null());
        command.arg("run").arg("--bundle").arg(bundle).arg("--cgroup").arg(cgroup);
        command.arg("--filters").arg(self.programs.dir.join("escape-filters"));
        command.arg("--compiler").arg(&self.programs.compiler);
        if self.start == Start::Warm {
            command.arg("--warm");
        }
        command
    }

    fn cgroup(&self, name: &str) -> PathBuf {
        Path::new("/").join(&self.parent).join(name)
    }

    /// Lists the container's processes, by their pids on the host.
    pub(crate) fn pids(&self, name: &str) -> Vec<i32> {
        let cgroup = Cgroup::open(&Hierarchies::read().unwrap(), &self.cgroup(name)).unwrap();
        cgroup.map(|cgroup| cgroup.pids().unwrap()).unwrap_or_default()
    }

    /// Removes a container that has lost its launcher.
    pub(crate) fn clean_up(&self, name: &str) {
        if let Some(cgroup) = Cgroup::open(&Hierarchies::read().unwrap(), &self.cgroup(name)).unwrap() {
            cgroup.kill_all().unwrap();
            cgroup.remove(std::time::Duration::from_secs(300)).unwrap();
        }
    }

    /// Asserts that the host is unchanged: files outside of the image, mounts, cgroups and processes.
    #[track_caller]
    pub(crate) fn assert_untouched(&self) {
        let now = self.census();
        census::remove_parents(&self.parent);
        assert_eq!(now, self.before, "{:?}: the host has changed", self.start);
    }

    /// Takes a census outside of the image.
    pub(crate) fn census(&self) -> Census {
        Census::take(self.dir.path(), &images(self.dir.path()), &self.parent)
    }

    /// Tells whether a file or a mount of the host's has changed.
    pub(crate) fn is_touched(&self) -> bool {
        !self.census().has_same_files(&self.before)
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        // A test that failed may have left a container; kill it.
        if thread::panicking() {
            for name in ["c", "hunter"] {
                self.clean_up(name);
            }
            census::remove_parents(&self.parent);
        }
    }
}

/// Lists the parts of a scene that may change: the image, and the files that the test writes.
fn images(scene: &Path) -> [PathBuf; 2] {
    ["bundle/root", "bundle/config.json"].map(|name| scene.join(name))
}

/// Removes the filter: the other layers must hold by themselves.
pub(crate) fn without_seccomp(config: &mut Value) {
    config["linux"].as_object_mut().unwrap().remove("seccomp");
}

/// Adds a capability to those of the process.
pub(crate) fn add_capability(config: &mut Value, name: &str) {
    for set in ["bounding", "effective", "permitted"] {
        config["process"]["capabilities"][set].as_array_mut().unwrap().push(json!(name));
    }
}

/// Adds a mount.
pub(crate) fn add_mount(config: &mut Value, mount: Value) {
    config["mounts"].as_array_mut().unwrap().push(mount);
}

/// Binds a file of the host, writable: where a test shows that its check can fail.
pub(crate) fn bind(config: &mut Value, source: &Path, target: &str) {
    add_mount(config, json!({"destination": target, "type": "bind", "source": source, "options": ["rbind", "rw"]}));
}
