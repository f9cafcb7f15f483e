//! The devices of the host that a container is given: its own wishes, `/dev/fuse` for an elevated one, all for a privileged one.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use contd_types::{ContainerSpec, DeviceSpec};
use nix::sys::stat::{major, minor};
use oci_spec::OciSpecError;
use oci_spec::runtime::{
    LinuxDevice, LinuxDeviceBuilder, LinuxDeviceCgroup, LinuxDeviceCgroupBuilder, LinuxDeviceType,
};

use crate::error::BundleError;

/// The device by which an elevated container serves file systems: its numbers are the kernel's (misc 229), so it need not exist here.
const FUSE: (&str, u64, u64) = ("/dev/fuse", 10, 229);
/// Names in `/dev` that a privileged container does not get from the host: it has its own of these.
const NOT_GIVEN: [&str; 7] = ["pts", "shm", "fd", "mqueue", "console", "ptmx", "core"];
/// How deep the host's `/dev` is looked through.
const MAX_DEPTH: u32 = 4;
/// The bits of a mode that are rights.
const RIGHTS: u32 = 0o7777;

/// A device of the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct GivenDevice {
    target: PathBuf,
    kind: LinuxDeviceType,
    major: i64,
    minor: i64,
    mode: u32,
    uid: u32,
    gid: u32,
    access: String,
}

impl GivenDevice {
    /// Looks at a device of the host.
    fn look(source: &Path, target: PathBuf, access: String) -> io::Result<Self> {
        let found = fs::metadata(source)?;
        let kind = match found.file_type() {
            kind if kind.is_char_device() => LinuxDeviceType::C,
            kind if kind.is_block_device() => LinuxDeviceType::B,
            _ => {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidInput,
                    "it is neither a character nor a block device",
                ));
            }
        };
        let number = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        let (major, minor) = (number(major(found.rdev())), number(minor(found.rdev())));
        let (mode, uid, gid) = (found.mode() & RIGHTS, found.uid(), found.gid());
        Ok(Self { target, kind, major, minor, mode, uid, gid, access })
    }

    /// Makes its node.
    pub(crate) fn node(&self) -> Result<LinuxDevice, OciSpecError> {
        LinuxDeviceBuilder::default()
            .path(self.target.clone())
            .typ(self.kind)
            .major(self.major)
            .minor(self.minor)
            .file_mode(self.mode)
            .uid(self.uid)
            .gid(self.gid)
            .build()
    }

    /// Makes the rule that allows its use.
    pub(crate) fn rule(&self) -> Result<LinuxDeviceCgroup, OciSpecError> {
        LinuxDeviceCgroupBuilder::default()
            .allow(true)
            .typ(self.kind)
            .major(self.major)
            .minor(self.minor)
            .access(self.access.clone())
            .build()
    }
}

/// Looks at the devices of a container.
pub(crate) fn given(spec: &ContainerSpec) -> Result<Vec<GivenDevice>, BundleError> {
    let mut given = Vec::new();
    if spec.rights.is_privileged {
        walk(Path::new("/dev"), MAX_DEPTH, &mut given);
    }
    if spec.is_elevated && !spec.rights.is_privileged {
        let (target, major, minor) = FUSE;
        let number = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        given.push(GivenDevice {
            target: target.into(),
            kind: LinuxDeviceType::C,
            major: number(major),
            minor: number(minor),
            mode: 0o666,
            uid: 0,
            gid: 0,
            access: "rwm".to_owned(),
        });
    }
    for DeviceSpec { source, target, read, write, mknod } in &spec.rights.devices {
        let letters = [(*read, 'r'), (*write, 'w'), (*mknod, 'm')];
        let access = letters.into_iter().filter(|(has, _)| *has).map(|(_, letter)| letter).collect();
        let device = GivenDevice::look(Path::new(source), target.into(), access).map_err(|error| {
            BundleError::Device { name: spec.name.to_string(), device: source.into(), source: error }
        })?;
        // The caller's own wish for a place counts.
        given.retain(|other| other.target != device.target);
        given.push(device);
    }
    Ok(given)
}

/// Finds the devices below a directory. What vanishes meanwhile, or cannot be looked at, is not given.
fn walk(dir: &Path, depth: u32, found: &mut Vec<GivenDevice>) {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    for entry in entries {
        let (name, path) = (entry.file_name(), entry.path());
        if NOT_GIVEN.iter().any(|other| name == *other) {
            continue;
        }
        // A link is another name of something that is found as well.
        match entry.file_type() {
            Ok(kind) if kind.is_dir() && depth > 0 => walk(&path, depth - 1, found),
            Ok(kind) if kind.is_char_device() || kind.is_block_device() => {
                found.extend(GivenDevice::look(&path, path.clone(), "rwm".to_owned()));
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use contd_types::ContainerName;

    fn spec() -> ContainerSpec {
        ContainerSpec::new(ContainerName::new("web").expect("valid"), "/x.fl")
    }

    #[test]
    fn a_device_keeps_its_numbers_and_has_the_access_that_was_asked_for() {
        let mut spec = spec();
        spec.rights.devices = vec!["/dev/null:/dev/nothing:r".parse().expect("valid")];
        let given = given(&spec).expect("there");
        let [device] = given.as_slice() else { panic!("{given:?}") };
        assert_eq!((device.major, device.minor, device.access.as_str()), (1, 3, "r"));
        assert_eq!(device.target, Path::new("/dev/nothing"));
    }

    #[test]
    fn what_is_no_device_is_refused_by_its_path() {
        let mut spec = spec();
        for path in ["/dev/none", "/etc/passwd", "/dev"] {
            spec.rights.devices = vec![path.parse().expect("a path")];
            let error = given(&spec).expect_err(path);
            assert!(matches!(&error, BundleError::Device { device, .. } if device == Path::new(path)), "{error:?}");
        }
    }

    #[test]
    fn a_privileged_container_is_given_what_the_host_has_and_no_link_or_terminal() {
        let mut spec = spec();
        spec.rights.is_privileged = true;
        let given = given(&spec).expect("there");
        assert!(given.iter().any(|device| device.target == Path::new("/dev/zero")));
        assert!(!given.iter().any(|device| device.target.starts_with("/dev/pts") || device.target.ends_with("ptmx")));
    }
}
