//! Paths inside the new root: finds them, makes them, makes them read-only, masks them. None can lead out of the root.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat, readlinkat};
use nix::sys::stat::{Mode, SFlag, fstat, major, minor, mkdirat, mknodat};
use nix::sys::statfs::{CGROUP_SUPER_MAGIC, CGROUP2_SUPER_MAGIC, FsType, PROC_SUPER_MAGIC, fstatfs};

use crate::fault::Fault;
use crate::sys::{self, Empty, Resolve};

/// The mode of directories and files that are made as mount points, as `runc` makes them.
const POINT_MODE: u32 = 0o755;

/// The statfs(2) magic of a sysfs: linux/magic.h.
const SYSFS_MAGIC: FsType = FsType(0x6265_6572);

/// The required type of a mount point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A directory.
    Dir,
    /// Any other type.
    File,
}

/// Makes a C string of a path; one with a NUL is refused.
pub(super) fn c_path(path: &str) -> io::Result<CString> {
    CString::new(path).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))
}

/// Finds a path inside the root.
pub(super) fn find(root: &OwnedFd, path: &str, resolve: Resolve) -> io::Result<OwnedFd> {
    sys::openat2(root.as_fd(), &c_path(path)?, libc::O_PATH, 0, resolve)
}

/// The most links in a path: the kernel's limit.
const MAX_LINKS: u32 = 40;

/// Finds a path inside the root, and makes missing parts. A dangling link is followed as the kernel would follow it
/// inside the root, and its target is made.
pub(super) fn find_or_make(root: &OwnedFd, path: &str, kind: Kind, resolve: Resolve) -> io::Result<OwnedFd> {
    match find(root, path, resolve) {
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {}
        found => return found,
    }
    // Go from directory to directory, each by its descriptor: a concurrent rename cannot lead elsewhere, and `..`
    // returns to the directory that we came from.
    let mut left = names(path);
    let mut dirs = vec![find(root, "/", resolve)?];
    let mut links = 0;
    while let (Some(name), Some(parent)) = (left.pop(), dirs.last()) {
        if name == ".." {
            // The root's parent is the root.
            dirs.truncate(1.max(dirs.len() - 1));
            continue;
        }
        let is_file = left.is_empty() && kind == Kind::File;
        let found = match open_name(parent, &name) {
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {
                make(parent, &name, is_file)?;
                open_name(parent, &name)?
            }
            found => found?,
        };
        if file_type(found.as_fd())? != SFlag::S_IFLNK {
            dirs.push(found);
            continue;
        }
        links += 1;
        if links > MAX_LINKS || resolve == Resolve::PLAIN || is_in_proc(found.as_fd())? {
            return Err(io::Error::from_raw_os_error(libc::ELOOP));
        }
        let says = readlinkat(&found, "")?;
        let says = says.to_str().ok_or_else(|| io::Error::from_raw_os_error(libc::EILSEQ))?;
        if says.starts_with('/') {
            dirs.truncate(1);
        }
        left.extend(names(says));
    }
    dirs.pop().ok_or_else(|| io::ErrorKind::NotFound.into())
}

/// Splits a path into names, in reverse order.
fn names(path: &str) -> Vec<String> {
    path.split('/').rev().filter(|name| !name.is_empty() && *name != ".").map(str::to_owned).collect()
}

/// Opens the file of a name in a directory; a link itself is opened.
fn open_name(dir: &OwnedFd, name: &str) -> io::Result<OwnedFd> {
    sys::openat2(dir.as_fd(), &c_path(name)?, libc::O_PATH | libc::O_NOFOLLOW, 0, Resolve::PLAIN)
}

/// Makes a mount point; one that another process has made meanwhile is used.
fn make(dir: &OwnedFd, name: &str, is_file: bool) -> io::Result<()> {
    let mode = Mode::from_bits_truncate(POINT_MODE);
    let made =
        if is_file { mknodat(dir.as_fd(), name, SFlag::S_IFREG, mode, 0) } else { mkdirat(dir.as_fd(), name, mode) };
    match made {
        Ok(()) | Err(Errno::EEXIST) => Ok(()),
        Err(Errno::EROFS) => {
            Err(io::Error::other(format!("{name:?} is missing, and cannot be made in a read-only file system")))
        }
        Err(errno) => Err(errno.into()),
    }
}

/// Makes the working directory if it is missing, as `runc` does.
pub(super) fn make_cwd(root: &OwnedFd, cwd: &str) -> Result<(), Fault> {
    match find_or_make(root, cwd, Kind::Dir, Resolve::IN_ROOT) {
        Ok(_) => Ok(()),
        Err(error) => Err(Fault::kernel("process.cwd", format!("make {cwd}"), &error)),
    }
}

/// Writes the sysctls into the container's own `/proc`.
pub(super) fn write_sysctls(root: &OwnedFd, sysctls: &[(String, String)]) -> Result<(), Fault> {
    for (key, value) in sysctls {
        let path = format!("/proc/sys/{}", key.replace('.', "/"));
        let write = || {
            let fd = sys::openat2(root.as_fd(), &c_path(&path)?, libc::O_WRONLY, 0, Resolve::PLAIN)?;
            nix::unistd::write(&fd, value.as_bytes()).map_err(io::Error::from).map(drop)
        };
        write().map_err(|error| Fault::kernel(format!("linux.sysctl.{key}"), format!("write {value:?}"), &error))?;
    }
    Ok(())
}

/// Makes paths read-only; missing ones are skipped.
pub(super) fn make_all_read_only(root: &OwnedFd, paths: &[String]) -> Result<(), Fault> {
    for path in paths {
        close(root, path)
            .map_err(|error| Fault::kernel("linux.readonlyPaths", format!("make {path} read-only"), &error))?;
    }
    Ok(())
}

fn close(root: &OwnedFd, path: &str) -> io::Result<()> {
    let Some(target) = find_if_there(root, path)? else { return Ok(()) };
    let copy = sys::open_tree(target.as_fd(), c"", true)?;
    sys::mount_set(copy.as_fd(), libc::MOUNT_ATTR_RDONLY, 0, 0, false)?;
    sys::move_mount(copy.as_fd(), Empty, target.as_fd())
}

/// Masks paths: a file by `/dev/null`, a directory by an empty one; missing ones are skipped.
pub(super) fn mask_all(root: &OwnedFd, paths: &[String]) -> Result<(), Fault> {
    let mut null = None;
    for path in paths {
        mask(root, path, &mut null)
            .map_err(|error| Fault::kernel("linux.maskedPaths", format!("mask {path}"), &error))?;
    }
    Ok(())
}

fn mask(root: &OwnedFd, path: &str, null: &mut Option<OwnedFd>) -> io::Result<()> {
    let Some(target) = find_if_there(root, path)? else { return Ok(()) };
    let cover = if is_dir(target.as_fd())? {
        let fs = sys::fs_open(c"tmpfs")?;
        sys::fs_create(fs.as_fd())?;
        sys::fs_mount(fs.as_fd(), libc::MOUNT_ATTR_RDONLY)?
    } else {
        let null = match null {
            Some(null) => null,
            None => null.insert(open_null(root)?),
        };
        sys::open_tree(null.as_fd(), c"", false)?
    };
    sys::move_mount(cover.as_fd(), Empty, target.as_fd())
}

/// Opens the container's `/dev/null` and checks that it is the device: an image could bring a link or a file.
fn open_null(root: &OwnedFd) -> io::Result<OwnedFd> {
    let null = find(root, "/dev/null", Resolve::PLAIN)?;
    let stat = fstat(&null)?;
    let is_device = SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT == SFlag::S_IFCHR;
    if is_device && (major(stat.st_rdev), minor(stat.st_rdev)) == (1, 3) {
        Ok(null)
    } else {
        Err(io::Error::other("the container's /dev/null is not the null device"))
    }
}

fn find_if_there(root: &OwnedFd, path: &str) -> io::Result<Option<OwnedFd>> {
    match find(root, path, Resolve::IN_ROOT) {
        Ok(found) => Ok(Some(found)),
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR)) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Splits a path into its directory, which is found or made, and its last name.
pub(super) fn parent_of<'a>(root: &OwnedFd, path: &'a str) -> io::Result<(OwnedFd, &'a str)> {
    let (parent, name) = path.trim_end_matches('/').rsplit_once('/').unwrap_or(("", path));
    if name.is_empty() || name == "." || name == ".." {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    let parent = if parent.is_empty() { "/" } else { parent };
    Ok((find_or_make(root, parent, Kind::Dir, Resolve::IN_ROOT)?, name))
}

/// Tells whether a file is in a procfs.
pub(super) fn is_in_proc(place: BorrowedFd<'_>) -> io::Result<bool> {
    Ok(fstatfs(place)?.filesystem_type() == PROC_SUPER_MAGIC)
}

/// Tells whether a file is in `/sys`: in a sysfs, in a cgroup file system, or in a directory of links to cgroups that
/// is mounted in a sysfs.
pub(super) fn is_in_sys(place: BorrowedFd<'_>) -> io::Result<bool> {
    let mut dir = place.try_clone_to_owned()?;
    loop {
        let found = fstatfs(&dir)?.filesystem_type();
        if [SYSFS_MAGIC, CGROUP_SUPER_MAGIC, CGROUP2_SUPER_MAGIC].contains(&found) {
            return Ok(true);
        }
        // A file in such a directory is not one of its links. The root's parent is the root.
        if !is_dir(dir.as_fd())? {
            return Ok(false);
        }
        let parent = openat(&dir, "..", OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
        let (here, above) = (fstat(&dir)?, fstat(&parent)?);
        if (here.st_dev, here.st_ino) == (above.st_dev, above.st_ino) {
            return Ok(false);
        }
        dir = parent;
    }
}

/// Tells whether a file is a directory.
pub(super) fn is_dir(place: BorrowedFd<'_>) -> io::Result<bool> {
    Ok(file_type(place)? == SFlag::S_IFDIR)
}

fn file_type(place: BorrowedFd<'_>) -> io::Result<SFlag> {
    Ok(SFlag::from_bits_truncate(fstat(place)?.st_mode) & SFlag::S_IFMT)
}
