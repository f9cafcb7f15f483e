//! A busybox root and a request for it.
#![allow(dead_code, reason = "each test file uses its own part")]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use contd_bundle::{BundleRequest, Defaults, Netns};
use contd_types::{ContainerId, ContainerName, ContainerSpec, CpuLimit, Entrypoint, NamespaceId};

pub(crate) const APPLETS: [&str; 21] = [
    "sh", "cat", "id", "hostname", "touch", "mount", "df", "stat", "env", "pwd", "echo", "grep", "mknod", "unshare",
    "true", "ls", "dd", "ip", "head", "ulimit", "sleep",
];

pub(crate) struct Case {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) namespace: NamespaceId,
    pub(crate) id: ContainerId,
    pub(crate) spec: ContainerSpec,
    pub(crate) netns: Netns,
    pub(crate) cgroup_parent: String,
    pub(crate) defaults: Defaults,
}

impl Case {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().expect("tempdir");
        let mut bits = [0; 16];
        fill_random(&mut bits);
        let id = ContainerId::from_random(bits);
        fs::create_dir(dir.path().join("root")).expect("root");
        Self {
            spec: ContainerSpec {
                entrypoint: Some(Entrypoint::Line("/bin/true".into())),
                ..ContainerSpec::new(ContainerName::new("web-1").expect("valid"), "/x.fl")
            },
            namespace: NamespaceId::new("namespace").expect("valid"),
            cgroup_parent: format!("contd-t-{}", id.short()),
            id,
            netns: Netns::Private,
            defaults: Defaults {
                memory_bytes: 64 << 20,
                cpu: CpuLimit::from_millis(1500).expect("valid"),
                pids_limit: 77,
                oom_score_adj: None,
            },
            dir,
        }
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.dir.path().join("root")
    }

    pub(crate) fn with_request<T>(&self, work: impl FnOnce(&BundleRequest<'_>) -> T) -> T {
        let root = self.root();
        work(&BundleRequest {
            namespace: &self.namespace,
            id: &self.id,
            spec: &self.spec,
            root: &root,
            netns: self.netns.clone(),
            cgroup_parent: &self.cgroup_parent,
            defaults: &self.defaults,
        })
    }

    /// Fills the root with a static busybox and two users.
    pub(crate) fn with_busybox(self) -> Self {
        let root = self.root();
        for dir in ["bin", "etc", "tmp", "data", "srv/web", "proc", "sys", "dev", "run"] {
            fs::create_dir_all(root.join(dir)).expect("dir");
        }
        let busybox = ["/bin/busybox", "/usr/bin/busybox"].map(Path::new).into_iter().find(|path| path.exists());
        fs::copy(busybox.expect("install busybox-static"), root.join("bin/busybox")).expect("busybox");
        for applet in APPLETS {
            symlink("busybox", root.join("bin").join(applet)).expect("applet");
        }
        fs::write(root.join("etc/passwd"), "root:x:0:0::/root:/bin/sh\nweb:x:1000:1001::/srv/web:/bin/sh\n")
            .expect("w");
        fs::write(root.join("etc/group"), "root:x:0:\nweb:x:1001:\nlog:x:20:web\n").expect("w");
        self
    }
}

fn fill_random(bytes: &mut [u8]) {
    use std::io::Read;
    fs::File::open("/dev/urandom").and_then(|mut file| file.read_exact(bytes)).expect("random");
}
