//! What is mounted into a container: the defaults first, then the caller's in the caller's order.
//!
//! A mount keeps its type and its options. For a bind `rbind` and `rprivate` are added where the caller says nothing
//! about recursion or propagation. `ro` makes the bound tree's top mount read-only, as `mount -o bind,ro` does; mounts
//! below the source keep what they are unless `rro` is given. A symlink in the target is followed inside the root by the
//! runtime, which also refuses to put anything but a procfs on the container's `/proc`.

use std::io;
use std::path::{Component, Path};

use contd_types::{ContainerSpec, MountSpec};
use oci_spec::OciSpecError;
use oci_spec::runtime::{Mount, MountBuilder};

use crate::error::BundleError;

/// File systems that any container may have: what the caller has already, and memory that its own limit counts.
const PLAIN_TYPES: [&str; 2] = ["bind", "tmpfs"];
/// Directories whose content is the container's isolation.
const GUARDED_DIRS: [&str; 2] = ["proc", "sys"];
/// Options that say how far a bind reaches.
const BIND_OPTIONS: [&str; 2] = ["bind", "rbind"];
/// Options that say how mounts travel below a bind.
const PROPAGATION_OPTIONS: [&str; 8] =
    ["private", "rprivate", "slave", "rslave", "shared", "rshared", "unbindable", "runbindable"];

struct DefaultMount {
    target: &'static str,
    fs_type: &'static str,
    options: &'static [&'static str],
}

/// containerd's (`oci.defaultMounts` and `oci.WithCgroup`): the order matters, what lies below comes later.
const DEFAULTS: [DefaultMount; 8] = [
    DefaultMount { target: "/proc", fs_type: "proc", options: &["nosuid", "noexec", "nodev"] },
    DefaultMount { target: "/dev", fs_type: "tmpfs", options: &["nosuid", "strictatime", "mode=755", "size=65536k"] },
    DefaultMount {
        target: "/dev/pts",
        fs_type: "devpts",
        options: &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
    },
    DefaultMount {
        target: "/dev/shm",
        fs_type: "tmpfs",
        options: &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"],
    },
    DefaultMount { target: "/dev/mqueue", fs_type: "mqueue", options: &["nosuid", "noexec", "nodev"] },
    DefaultMount { target: "/sys", fs_type: "sysfs", options: &["nosuid", "noexec", "nodev", "ro"] },
    DefaultMount { target: "/run", fs_type: "tmpfs", options: &["nosuid", "strictatime", "mode=755", "size=65536k"] },
    DefaultMount {
        target: "/sys/fs/cgroup",
        fs_type: "cgroup",
        options: &["nosuid", "noexec", "nodev", "relatime", "ro"],
    },
];

/// Makes the list of mounts.
pub(crate) fn mounts(spec: &ContainerSpec) -> Result<Vec<Mount>, BundleError> {
    let refused = |source: OciSpecError| BundleError::Assemble { name: spec.name.to_string(), source };
    let mut mounts = Vec::with_capacity(DEFAULTS.len() + spec.mounts.len());
    for mount in &DEFAULTS {
        let options = mount.options.iter().map(|option| (*option).to_owned()).collect::<Vec<_>>();
        mounts.push(build(mount.target, mount.fs_type, mount.fs_type, options).map_err(refused)?);
    }
    for mount in &spec.mounts {
        check(mount, spec.is_elevated)?;
        let source = if mount.source.is_empty() { &mount.fs_type } else { &mount.source };
        mounts.push(build(&mount.target, &mount.fs_type, source, options(mount)).map_err(refused)?);
    }
    Ok(mounts)
}

fn build(target: &str, fs_type: &str, source: &str, options: Vec<String>) -> Result<Mount, OciSpecError> {
    MountBuilder::default().destination(target).typ(fs_type).source(source).options(options).build()
}

fn check(mount: &MountSpec, is_elevated: bool) -> Result<(), BundleError> {
    let target = || mount.target.clone();
    if !is_elevated && !PLAIN_TYPES.contains(&mount.fs_type.as_str()) {
        return Err(BundleError::MountTypeRefused { fs_type: mount.fs_type.clone(), target: target() });
    }
    if !is_elevated && is_guarded(&mount.target) {
        return Err(BundleError::MountTargetRefused { target: target() });
    }
    if let Some(option) = mount.options.iter().find(|option| is_misplaced(mount, option)) {
        return Err(BundleError::MountOptionRefused { option: option.clone(), target: target() });
    }
    if mount.fs_type != "bind" {
        return Ok(());
    }
    let from = Path::new(&mount.source);
    match std::fs::metadata(from) {
        Ok(_) => Ok(()),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            Err(BundleError::MissingMountSource { from: from.to_owned(), target: target() })
        }
        Err(source) => Err(BundleError::MountSource { from: from.to_owned(), target: target(), source }),
    }
}

/// Tells whether an option would make the mount another one than its type says: runtimes take `bind` as a bind, and
/// `remount` as a change of an existing mount, whatever the type.
fn is_misplaced(mount: &MountSpec, option: &str) -> bool {
    option == "remount" || (mount.fs_type != "bind" && BIND_OPTIONS.contains(&option))
}

/// Tells whether a path is, or lies below, a directory whose content is the container's isolation.
fn is_guarded(target: &str) -> bool {
    let first = Path::new(target).components().find_map(|part| match part {
        Component::Normal(name) => Some(name),
        _ => None,
    });
    first.is_some_and(|name| GUARDED_DIRS.iter().any(|guarded| name == *guarded))
}

fn options(mount: &MountSpec) -> Vec<String> {
    let mut options = mount.options.clone();
    if mount.fs_type == "bind" {
        let says = |choices: &[&str]| mount.options.iter().any(|option| choices.contains(&option.as_str()));
        let defaults = [(&BIND_OPTIONS[..], "rbind"), (&PROPAGATION_OPTIONS[..], "rprivate")];
        options.extend(defaults.iter().filter(|(choices, _)| !says(choices)).map(|(_, default)| (*default).to_owned()));
    }
    options
}

#[cfg(test)]
mod tests {
    use super::*;
    use contd_types::ContainerName;

    fn mounted(mount: MountSpec, is_elevated: bool) -> Result<Mount, BundleError> {
        let mut spec = ContainerSpec::new(ContainerName::new("web").expect("valid"), "/x.fl");
        spec.is_elevated = is_elevated;
        spec.mounts.push(mount);
        mounts(&spec).map(|mut mounts| mounts.pop().expect("one"))
    }

    fn mount(fs_type: &str, source: &str, target: &str, options: &[&str]) -> MountSpec {
        let options = options.iter().map(|option| (*option).to_owned()).collect();
        MountSpec { fs_type: fs_type.into(), source: source.into(), target: target.into(), options }
    }

    #[test]
    fn a_bind_gets_recursion_and_privacy_unless_it_says_otherwise() {
        for (given, made) in [
            (&[][..], &["rbind", "rprivate"][..]),
            (&["ro"], &["ro", "rbind", "rprivate"]),
            (&["bind", "ro"], &["bind", "ro", "rprivate"]),
            (&["rslave", "rbind"], &["rslave", "rbind"]),
        ] {
            let mounted = mounted(mount("bind", "/", "/data", given), false).expect("valid");
            assert_eq!(mounted.options().as_deref().expect("options"), made);
        }
    }

    #[test]
    fn a_missing_source_is_refused_and_the_hint_makes_it() {
        use contd_types::Explain;
        for missing in ["/no/such/dir", "/etc/passwd/below-a-file"] {
            let refused = mounted(mount("bind", missing, "/data", &[]), false).expect_err("missing");
            assert!(matches!(refused, BundleError::MissingMountSource { .. }), "got {refused:?}");
            assert_eq!(refused.hint().as_deref(), Some(format!("make it first: mkdir -p {missing}").as_str()));
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
    fn an_option_cannot_turn_a_mount_into_another() {
        for (fs_type, option) in [("tmpfs", "bind"), ("tmpfs", "rbind"), ("tmpfs", "remount"), ("bind", "remount")] {
            for is_elevated in [false, true] {
                let refused = mounted(mount(fs_type, "/", "/data", &[option]), is_elevated);
                assert!(matches!(refused, Err(BundleError::MountOptionRefused { .. })), "{fs_type} {option}");
            }
        }
    }
}
