//! The mounts of a container: the defaults first, then the caller's, ordered by depth.
//!
//! A default at or below the target of a caller's mount is left out: the caller's replaces it. [`contd_types::mount`]
//! says what each option means. The runtime follows a symlink in the target inside the root; this module follows it
//! too, because the place it leads to decides whether the mount is allowed.

use std::io;
use std::path::{Path, PathBuf};

use contd_types::{ContainerSpec, MountSpec};
use nix::sys::statfs::statfs;
use oci_spec::OciSpecError;
use oci_spec::runtime::{Mount, MountBuilder};

use crate::error::BundleError;
use crate::root_file::Inside;

/// File systems that any container may mount: binds of the caller's files, and memory that the container's own limit
/// counts.
const PLAIN_TYPES: [&str; 2] = ["bind", "tmpfs"];
/// Directories whose content makes up the container's isolation.
const GUARDED_DIRS: [&str; 2] = ["/proc", "/sys"];
/// File systems that give access to the kernel, by their statfs(2) magic (linux/magic.h). A bind of one, whatever its
/// path, would give a container the host's instead of its own.
const KERNEL_FILE_SYSTEMS: [(u32, &str); 13] = [
    (0x9fa0, "procfs"),
    (0x6265_6572, "sysfs"),
    (0x0027_e0eb, "cgroup"),
    (0x6367_7270, "cgroup2"),
    (0x6462_6720, "debugfs"),
    (0x7472_6163, "tracefs"),
    (0x7363_6673, "securityfs"),
    (0xf97c_ff8c, "selinuxfs"),
    (0x6265_6570, "configfs"),
    (0xcafe_4a11, "bpf"),
    (0xde5e_81e4, "efivarfs"),
    (0x6165_676c, "pstore"),
    (0x6e73_6673, "nsfs"),
];

/// Where memory is shared; its size is a setting.
const SHM: &str = "/dev/shm";

struct DefaultMount {
    target: &'static str,
    fs_type: &'static str,
    options: &'static [&'static str],
}

/// containerd's defaults (`oci.defaultMounts` and `oci.WithCgroup`) without the tmpfs on `/run`, which would hide the
/// image's files there; docker, podman and CRI have none either. The order matters: a mount comes after the one it lies
/// on.
const DEFAULTS: [DefaultMount; 7] = [
    DefaultMount { target: "/proc", fs_type: "proc", options: &["nosuid", "noexec", "nodev"] },
    DefaultMount { target: "/dev", fs_type: "tmpfs", options: &["nosuid", "strictatime", "mode=755", "size=65536k"] },
    DefaultMount {
        target: "/dev/pts",
        fs_type: "devpts",
        options: &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
    },
    DefaultMount { target: SHM, fs_type: "tmpfs", options: &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"] },
    DefaultMount { target: "/dev/mqueue", fs_type: "mqueue", options: &["nosuid", "noexec", "nodev"] },
    DefaultMount { target: "/sys", fs_type: "sysfs", options: &["nosuid", "noexec", "nodev", "ro"] },
    DefaultMount {
        target: "/sys/fs/cgroup",
        fs_type: "cgroup",
        options: &["nosuid", "noexec", "nodev", "relatime", "ro"],
    },
];

/// Makes the list of mounts of a container with this root.
pub(crate) fn mounts(spec: &ContainerSpec, root: &Path) -> Result<Vec<Mount>, BundleError> {
    let refused = |source: OciSpecError| BundleError::Assemble { name: spec.name.to_string(), source };
    let inside = Inside::open(root).map_err(|source| BundleError::Root {
        name: spec.name.to_string(),
        root: root.to_owned(),
        source,
    })?;
    for mount in &spec.mounts {
        check(mount, spec, &inside)?;
    }
    let mut own: Vec<&MountSpec> = spec.mounts.iter().collect();
    // The sort is stable: mounts of equal depth keep their order.
    own.sort_by_key(|mount| mount.depth());
    let mut mounts = Vec::with_capacity(DEFAULTS.len() + own.len());
    for mount in DEFAULTS.iter().filter(|mount| !is_replaced(mount.target, &own)) {
        let mut options = mount.options.iter().map(|option| (*option).to_owned()).collect::<Vec<_>>();
        if let Some(size) = spec.resources.shm_bytes.filter(|_| mount.target == SHM) {
            options.retain(|option| !option.starts_with("size="));
            options.push(format!("size={size}"));
        }
        if spec.rights.is_privileged && mount.target.starts_with("/sys") {
            options.retain(|option| option != "ro");
            options.push("rw".to_owned());
        }
        mounts.push(build(mount.target, mount.fs_type, mount.fs_type, options).map_err(refused)?);
    }
    for mount in own {
        let options = mount.runtime_options();
        let options = options.map_err(|source| BundleError::Spec { name: spec.name.to_string(), source })?;
        let source = if mount.source.is_empty() { &mount.fs_type } else { &mount.source };
        mounts.push(build(&mount.place(), &mount.fs_type, source, options).map_err(refused)?);
    }
    Ok(mounts)
}

fn build(target: &str, fs_type: &str, source: &str, options: Vec<String>) -> Result<Mount, OciSpecError> {
    MountBuilder::default().destination(target).typ(fs_type).source(source).options(options).build()
}

/// Tells whether a caller's mount has this target, or covers it.
fn is_replaced(target: &str, own: &[&MountSpec]) -> bool {
    own.iter().any(|mount| Path::new(target).starts_with(mount.place()))
}

fn check(mount: &MountSpec, spec: &ContainerSpec, inside: &Inside) -> Result<(), BundleError> {
    let target = || mount.target.clone();
    let place = PathBuf::from(mount.place());
    // If the target cannot be followed, the runtime refuses it with the kernel's reason.
    let leads_to = inside.follow(&place).unwrap_or_else(|_| place.clone());
    let is_trusted = spec.is_elevated || spec.rights.is_privileged;
    if !is_trusted {
        if !PLAIN_TYPES.contains(&mount.fs_type.as_str()) {
            return Err(BundleError::MountTypeRefused { fs_type: mount.fs_type.clone(), target: target() });
        }
        if is_guarded(&place) || is_guarded(&leads_to) {
            return Err(BundleError::MountTargetRefused { target: target(), leads_to });
        }
    }
    let is_dir = if mount.is_bind() {
        let from = Path::new(&mount.source);
        let is_dir = look_at(from, mount)?.is_dir();
        if let Some(kind) = kernel_file_system(from).filter(|_| !is_trusted) {
            return Err(BundleError::MountSourceRefused { from: from.to_owned(), kind, target: target() });
        }
        is_dir
    } else {
        true
    };
    let is_root_known = !is_covered(&leads_to, spec, mount) && !is_covered(&place, spec, mount);
    match inside.open_plain(&leads_to).and_then(|found| found.metadata()) {
        Ok(found) if is_root_known && found.is_dir() != is_dir => {
            let from = mount.is_bind().then(|| PathBuf::from(&mount.source));
            Err(BundleError::MountKind { from, fs_type: mount.fs_type.clone(), target: target(), is_dir })
        }
        _ => Ok(()),
    }
}

fn look_at(from: &Path, mount: &MountSpec) -> Result<std::fs::Metadata, BundleError> {
    let target = mount.target.clone();
    std::fs::metadata(from).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {
            BundleError::MissingMountSource { from: from.to_owned(), target }
        }
        _ => BundleError::MountSource { from: from.to_owned(), target, source },
    })
}

/// Returns the type of a kernel file system, if the path is in one.
fn kernel_file_system(path: &Path) -> Option<&'static str> {
    let magic = statfs(path).ok().and_then(|found| u32::try_from(found.filesystem_type().0).ok())?;
    KERNEL_FILE_SYSTEMS.iter().find(|(known, _)| *known == magic).map(|(_, name)| *name)
}

/// Tells whether a path is at or below a directory whose content makes up the container's isolation.
fn is_guarded(path: &Path) -> bool {
    GUARDED_DIRS.iter().any(|guarded| path.starts_with(guarded))
}

/// Tells whether another mount covers this path: then the mount's target is not in the root.
fn is_covered(path: &Path, spec: &ContainerSpec, but: &MountSpec) -> bool {
    let others = spec.mounts.iter().filter(|mount| !std::ptr::eq(*mount, but)).map(MountSpec::place);
    let defaults = DEFAULTS.iter().map(|mount| mount.target.to_owned()).filter(|target| Path::new(target) != path);
    others.chain(defaults).any(|place| path.starts_with(place))
}

#[cfg(test)]
mod tests {
    use super::*;
    use contd_types::{ContainerName, Explain};
    use std::os::unix::fs::symlink;

    fn spec(mounts: Vec<MountSpec>) -> ContainerSpec {
        ContainerSpec { mounts, ..ContainerSpec::new(ContainerName::new("web").expect("valid"), "/x.fl") }
    }

    fn root() -> tempfile::TempDir {
        let root = tempfile::tempdir().expect("tempdir");
        for dir in ["etc", "proc", "sys", "data"] {
            std::fs::create_dir(root.path().join(dir)).expect("dir");
        }
        std::fs::write(root.path().join("etc/passwd"), "x").expect("file");
        root
    }

    fn mounted(mount: MountSpec, is_elevated: bool) -> Result<Mount, BundleError> {
        let spec = ContainerSpec { is_elevated, ..spec(vec![mount]) };
        mounts(&spec, root().path()).map(|mut mounts| mounts.pop().expect("one"))
    }

    fn mount(fs_type: &str, source: &str, target: &str, options: &[&str]) -> MountSpec {
        let options = options.iter().map(|option| (*option).to_owned()).collect();
        MountSpec { fs_type: fs_type.into(), source: source.into(), target: target.into(), options }
    }

    fn places(own: &[MountSpec]) -> Vec<String> {
        let made = mounts(&spec(own.to_vec()), root().path()).expect("valid");
        made.iter().map(|mount| mount.destination().display().to_string()).collect()
    }

    #[test]
    fn a_bind_gets_recursion_and_privacy_unless_it_says_otherwise() {
        for (given, made) in [
            (&[][..], &["rbind", "rprivate"][..]),
            (&["ro"], &["rbind", "rro", "rprivate"]),
            (&["ro", "norecursive"], &["rbind", "ro", "rprivate"]),
            (&["bind", "ro"], &["bind", "ro", "rprivate"]),
            (&["rslave", "rbind"], &["rbind", "rslave"]),
        ] {
            let mounted = mounted(mount("bind", "/", "/data", given), false).expect("valid");
            assert_eq!(mounted.options().as_deref().expect("options"), made);
        }
    }

    #[test]
    fn a_missing_source_is_refused_and_the_hint_makes_it() {
        for (missing, hint) in [
            ("/no/such/dir", "mkdir -p /no/such/dir"),
            ("/etc/passwd/below-a-file", "mkdir -p /etc/passwd/below-a-file"),
            ("/no such/it's", "mkdir -p \"/no such/it's\""),
        ] {
            let refused = mounted(mount("bind", missing, "/data", &[]), false).expect_err("missing");
            assert!(matches!(refused, BundleError::MissingMountSource { .. }), "got {refused:?}");
            assert!(refused.hint().is_some_and(|words| words.ends_with(hint)), "{:?}", refused.hint());
        }
    }

    #[test]
    fn only_an_elevated_container_mounts_other_file_systems() {
        for fs_type in ["proc", "sysfs", "cgroup", "ext4", "overlay", "mqueue", "none"] {
            let refused = mounted(mount(fs_type, fs_type, "/data", &[]), false);
            assert!(matches!(refused, Err(BundleError::MountTypeRefused { .. })), "{fs_type}: {refused:?}");
            assert!(mounted(mount(fs_type, fs_type, "/data", &[]), true).is_ok(), "{fs_type}");
        }
    }

    #[test]
    fn only_an_elevated_container_mounts_on_proc_and_sys() {
        for target in ["/proc", "/proc/sys/kernel", "//proc//x", "/./sys/fs", "/sys/"] {
            let refused = mounted(mount("bind", "/", target, &[]), false);
            assert!(matches!(refused, Err(BundleError::MountTargetRefused { .. })), "{target}: {refused:?}");
            assert!(mounted(mount("bind", "/", target, &[]), true).is_ok(), "{target}");
        }
        for target in ["/procs", "/system", "/a/proc"] {
            assert!(mounted(mount("bind", "/", target, &[]), false).is_ok(), "{target}");
        }
    }

    #[test]
    fn a_link_of_the_image_does_not_lead_a_mount_over_proc_or_sys() {
        let root = root();
        for (name, says) in [
            ("abs", "/sys/firmware"),
            ("climb", "../../../proc/sys"),
            ("data/deep", "../sys"),
            ("chain", "/abs"),
            ("missing", "/nowhere/../proc"),
        ] {
            symlink(says, root.path().join(name)).expect("link");
        }
        for target in ["/abs", "/abs/x", "/climb", "/data/deep", "/data/deep/fs/cgroup", "/chain", "/missing"] {
            for fs_type in ["bind", "tmpfs"] {
                let refused = mounts(&spec(vec![mount(fs_type, "/etc", target, &[])]), root.path());
                assert!(matches!(refused, Err(BundleError::MountTargetRefused { .. })), "{target}: {refused:?}");
            }
        }
        symlink("/srv/later", root.path().join("dangling")).expect("link");
        assert!(mounts(&spec(vec![mount("tmpfs", "", "/dangling", &[])]), root.path()).is_ok());
    }

    #[test]
    fn only_an_elevated_container_binds_what_is_the_kernels_whatever_it_is_called() {
        let host = tempfile::tempdir().expect("tempdir");
        symlink("/proc/sys", host.path().join("harmless")).expect("link");
        let link = host.path().join("harmless").display().to_string();
        for source in ["/proc", "/sys", "/sys/kernel", "/proc/self/ns/net", "/sys/fs/cgroup/../../fs", link.as_str()] {
            let target = if Path::new(source).is_dir() { "/data" } else { "/etc/passwd" };
            let refused = mounted(mount("bind", source, target, &["ro"]), false);
            assert!(matches!(refused, Err(BundleError::MountSourceRefused { .. })), "{source}: {refused:?}");
            assert!(mounted(mount("bind", source, target, &["ro"]), true).is_ok(), "{source}");
        }
    }

    #[test]
    fn what_lies_deeper_is_mounted_later_and_the_rest_stays_in_order() {
        let own = ["/d/sub/x", "/z", "/d/sub", "/a", "/d"].map(|target| mount("tmpfs", "", target, &[]));
        assert_eq!(places(&own)[7..], ["/z", "/a", "/d", "/d/sub", "/d/sub/x"]);
    }

    #[test]
    fn a_mount_of_the_callers_takes_the_place_of_a_default_and_of_those_below() {
        assert_eq!(places(&[]), ["/proc", "/dev", "/dev/pts", "/dev/shm", "/dev/mqueue", "/sys", "/sys/fs/cgroup"]);
        let shm = places(&[mount("tmpfs", "", "/dev/shm/", &["size=1g"])]);
        assert_eq!(shm, ["/proc", "/dev", "/dev/pts", "/dev/mqueue", "/sys", "/sys/fs/cgroup", "/dev/shm"]);
        assert_eq!(places(&[mount("bind", "/dev", "/dev", &[])]), ["/proc", "/sys", "/sys/fs/cgroup", "/dev"]);
    }

    #[test]
    fn a_file_on_a_directory_says_so_with_both_paths() {
        for (fs_type, source, target) in
            [("bind", "/etc/passwd", "/data"), ("bind", "/etc", "/etc/passwd"), ("tmpfs", "", "/etc/passwd")]
        {
            let refused = mounted(mount(fs_type, source, target, &[]), false).expect_err("another kind");
            let words = refused.to_string();
            assert!(matches!(refused, BundleError::MountKind { .. }), "{refused:?}");
            assert!(words.contains(source) && words.contains(target) && words.contains("directory"), "{words}");
        }
        // The target is in the other mount, not in the root.
        let own = vec![mount("bind", "/etc", "/data", &[]), mount("bind", "/etc/passwd", "/data/passwd", &[])];
        assert!(mounts(&spec(own), root().path()).is_ok());
        for target in ["/dev/shm", "/missing/dir"] {
            assert!(mounted(mount("tmpfs", "", target, &[]), false).is_ok(), "{target}");
        }
    }
}
