//! The kernel's mount table, as far as roots need it.

use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

pub use contd_mountinfo::Mount;

use crate::provider::RootfsError;

/// All mounts of this namespace, at one moment.
#[derive(Debug, Clone)]
pub struct MountTable(Vec<Mount>);

impl MountTable {
    /// Reads it.
    ///
    /// # Errors
    /// [`RootfsError::Disk`] without a usable `/proc`.
    pub fn read() -> Result<Self, RootfsError> {
        let failed = |source| RootfsError::Disk { what: "read", path: PathBuf::from(contd_mountinfo::PATH), source };
        contd_mountinfo::read().map(Self).map_err(failed)
    }

    /// Tells whether something is mounted there. `path` must be without symlinks, as the table has it.
    pub fn is_mounted(&self, path: &Path) -> bool {
        self.0.iter().any(|entry| entry.point == path)
    }

    /// Lists all mounts.
    pub fn all(&self) -> impl Iterator<Item = &Mount> {
        self.0.iter()
    }

    /// Lists what is mounted below a directory, which must be without symlinks; what is mounted on it is not below it.
    pub fn below<'a>(&'a self, dir: &'a Path) -> impl Iterator<Item = &'a Mount> {
        self.0.iter().filter(move |mount| mount.point != dir && mount.point.starts_with(dir))
    }

    /// Tells whether an overlay has this directory as its upper one.
    pub(crate) fn is_upper(&self, upper: &Path) -> bool {
        let mut wanted = b"upperdir=".to_vec();
        wanted.extend_from_slice(upper.as_os_str().as_bytes());
        self.0.iter().any(|entry| entry.super_options.split(|byte| *byte == b',').any(|option| option == wanted))
    }
}

/// Tells whether something is mounted on a path, without looking at every mount of the node; an absent one is no mount
/// point.
///
/// The kernel names the mount that an open path lies on: it is another one for a mount point than for its parent.
pub(crate) fn is_mount_point(path: &Path) -> Result<bool, RootfsError> {
    let failed = |source| RootfsError::Disk { what: "look at", path: path.to_owned(), source };
    let Some(parent) = path.parent() else { return Ok(true) };
    match mount_of(path) {
        Ok(own) => Ok(own != mount_of(parent).map_err(failed)?),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(false),
        // A dead FUSE server: there is one.
        Err(error) if error.raw_os_error() == Some(nix::libc::ENOTCONN) => Ok(true),
        Err(error) => Err(failed(error)),
    }
}

fn mount_of(path: &Path) -> io::Result<u64> {
    let flags = nix::libc::O_PATH | nix::libc::O_NOFOLLOW;
    let open = std::fs::File::options().read(true).custom_flags(flags).open(path)?;
    let text = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", open.as_raw_fd()))?;
    let number = text.lines().find_map(|line| line.strip_prefix("mnt_id:")?.trim().parse().ok());
    number.ok_or_else(|| io::Error::other("the kernel does not say which mount it lies on"))
}

/// Resolves symlinks of a configured directory, so that the table can be searched for what lies in it.
pub(crate) fn resolve(path: &Path) -> io::Result<PathBuf> {
    std::fs::canonicalize(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_points_with_spaces_and_uppers_are_found() {
        let table = MountTable(contd_mountinfo::parse(
            b"30 1 0:27 / /a\\040b rw shared:1 master:2 - overlay o rw,lowerdir=/l,upperdir=/u/upper,workdir=/w\n\
              31 1 0:28 / /plain rw - tmpfs t rw\n\nnonsense\n",
        ));
        assert!(table.is_mounted(Path::new("/a b")) && table.is_mounted(Path::new("/plain")));
        assert!(!table.is_mounted(Path::new("/a")));
        assert!(table.is_upper(Path::new("/u/upper")) && !table.is_upper(Path::new("/u/upp")));
    }

    #[test]
    fn a_mount_point_is_told_from_a_directory_and_from_nothing() {
        let dir = tempfile::tempdir().unwrap();
        assert!(is_mount_point(Path::new("/proc")).unwrap() && is_mount_point(Path::new("/")).unwrap());
        assert!(!is_mount_point(dir.path()).unwrap());
        assert!(!is_mount_point(&dir.path().join("absent/too")).unwrap());
        // A bind of the same file system is one as well.
        let point = dir.path().join("point");
        std::fs::create_dir(&point).unwrap();
        let flags = nix::mount::MsFlags::MS_BIND;
        nix::mount::mount(Some(dir.path()), &point, None::<&str>, flags, None::<&str>)
            .expect("this test mounts: run it as root");
        let is_one = is_mount_point(&point);
        nix::mount::umount2(&point, nix::mount::MntFlags::MNT_DETACH).unwrap();
        assert!(is_one.unwrap() && !is_mount_point(&point).unwrap());
    }

    #[test]
    fn what_lies_below_a_directory_is_told_with_its_kind_and_source() {
        let table = MountTable(contd_mountinfo::parse(
            b"30 1 0:27 / /s rw - tmpfs t rw\n31 1 0:28 / /s/a\\040b rw - overlay contd rw,upperdir=/u\n\
              32 1 0:28 / /sa rw - tmpfs t rw\n",
        ));
        let below: Vec<&Mount> = table.below(Path::new("/s")).collect();
        let [only] = below.as_slice() else { panic!("got {below:?}") };
        assert_eq!((only.point.as_path(), only.fs_type.as_str()), (Path::new("/s/a b"), "overlay"));
        assert_eq!(only.source, "contd");
    }
}
