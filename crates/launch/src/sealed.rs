//! Keeps containers from changing this program's own file (CVE-2019-5736).
//!
//! Init is a copy of its caller until it executes the entrypoint, and `/proc/self/exe` there is the caller's file on
//! the host. An image whose entrypoint is a link to it, or a script for it, makes the kernel execute that file with the
//! image's own loader, which may keep a descriptor of it. To write through that descriptor, the container only has to
//! wait until no process executes the file any more (`ETXTBSY`; Linux 6.11 did not even have that).
//!
//! So the caller executes itself from a read-only mount of that one file, which is in no mount namespace:
//! `/proc/self/exe` leads to the file by that mount. The mount cannot be made writable again, not even with
//! CAP_SYS_ADMIN: once its only descriptor is closed, which the exec does, the kernel does not allow changing it.

use std::ffi::CString;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::sys::statvfs::{FsFlags, fstatvfs};

use crate::sys;

/// The link to the program that this process executes.
const OWN: &str = "/proc/self/exe";

/// Opens a program through a read-only mount of its own, to execute it by the descriptor.
///
/// # Errors
/// The program does not exist, or there is no right to mount.
pub fn open(program: &Path) -> io::Result<OwnedFd> {
    seal(&open_path(program)?)
}

/// Executes this program again from a read-only mount of its file, unless it runs from one already. Only legal as the
/// first action of a process: it starts again from the beginning.
///
/// # Errors
/// There is no right to mount. The process may continue, but must not make containers.
pub fn ensure() -> io::Result<()> {
    let own = open_path(Path::new(OWN))?;
    if is_read_only(&own)? {
        return keep_name();
    }
    let sealed = seal(&own)?;
    let args = std::env::args_os().map(|word| Ok(CString::new(word.into_vec())?));
    let env = std::env::vars_os().map(|(name, value)| {
        let pair = [name.as_bytes(), b"=", value.as_bytes()].concat();
        Ok(CString::new(pair)?)
    });
    let (args, env) = (args.collect::<io::Result<Vec<_>>>()?, env.collect::<io::Result<Vec<_>>>()?);
    Err(sys::execute_fd(sealed.as_fd(), &args, &env))
}

/// Sets this process's name to the one that it was started with: before Linux 6.14 a program executed by a descriptor
/// is named after the descriptor.
fn keep_name() -> io::Result<()> {
    let name = std::env::args_os().next().unwrap_or_default();
    let name = Path::new(&name).file_name().unwrap_or_default();
    Ok(nix::sys::prctl::set_name(&CString::new(name.as_bytes())?)?)
}

/// Tells whether a program is executed from a read-only mount, by its link in `/proc`.
///
/// # Errors
/// The process does not exist.
pub fn is_sealed(link: &Path) -> io::Result<bool> {
    is_read_only(&open_path(link)?)
}

fn open_path(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(libc::O_PATH).open(path)
}

fn is_read_only(file: &File) -> io::Result<bool> {
    Ok(fstatvfs(file)?.flags().contains(FsFlags::ST_RDONLY))
}

fn seal(file: &File) -> io::Result<OwnedFd> {
    let mount = sys::open_tree(file.as_fd(), c"", false)?;
    sys::mount_set(mount.as_fd(), libc::MOUNT_ATTR_RDONLY, 0, 0, false)?;
    Ok(mount)
}
