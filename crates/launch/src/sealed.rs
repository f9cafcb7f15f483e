//! This program, out of a container's reach: executed from a read-only copy of the mount that it lies on.
//!
//! An image decides what its `/bin/sh` is: a link to `/proc/self/exe`, or a script that names it, makes the process that
//! executes it open the program that it has been until then, which is ours and the host's (CVE-2019-5736). What is opened
//! through `/proc/<pid>/exe` lies on the mount that the program was executed from. When that one is read-only nobody can
//! write to the program by it, and being in no mount namespace it cannot be made writable again either.

use std::ffi::{CString, NulError, OsString};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;

use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;
use nix::sys::statvfs::{FsFlags, fstatvfs};

use crate::sys;

/// Executes this program again, with the same arguments, from a read-only copy of its mount; returns at once when it runs
/// from a read-only mount already. To be called first in `main`, as root: descriptors that close on exec are closed.
///
/// # Errors
/// What the kernel says; the program is as it was.
pub fn seal_self() -> io::Result<()> {
    let program = own_program()?;
    if is_read_only(&program)? {
        return Ok(());
    }
    let copy = sys::open_tree(program.as_fd(), c"", false)?;
    sys::mount_set(copy.as_fd(), libc::MOUNT_ATTR_RDONLY, 0, 0, false)?;
    let args = c_strings(std::env::args_os())?;
    let env = c_strings(std::env::vars_os().map(|(mut name, value)| {
        name.push("=");
        name.push(value);
        name
    }))?;
    Err(sys::execveat(copy.as_fd(), &pointers(&args), &pointers(&env)))
}

/// Tells whether this program cannot be written to by whoever gets hold of `/proc/<pid>/exe`.
///
/// # Errors
/// What the kernel says.
pub fn is_sealed() -> io::Result<bool> {
    is_read_only(&own_program()?)
}

fn own_program() -> io::Result<OwnedFd> {
    Ok(open("/proc/self/exe", OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())?)
}

fn is_read_only(program: &OwnedFd) -> io::Result<bool> {
    Ok(fstatvfs(program)?.flags().contains(FsFlags::ST_RDONLY))
}

fn c_strings(strings: impl Iterator<Item = OsString>) -> io::Result<Vec<CString>> {
    let strings: Result<Vec<CString>, NulError> = strings.map(|text| CString::new(text.into_vec())).collect();
    Ok(strings?)
}

/// Returns what the kernel wants; valid as long as the strings are.
fn pointers(strings: &[CString]) -> Vec<*const libc::c_char> {
    strings.iter().map(|text| text.as_ptr()).chain([std::ptr::null()]).collect()
}
