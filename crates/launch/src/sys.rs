//! The kernel calls that need `unsafe`, each behind a safe signature. Numbers are those of the kernel's uapi headers.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag};
use nix::sched::CloneFlags;
use nix::sys::stat::Mode;

pub(crate) mod mount;
mod network;
pub(crate) mod rights;

pub(crate) use mount::{
    Empty, fs_configure, fs_create, fs_mount, fs_open, mount_set, mount_set_at, move_mount, open_tree, pivot_to_cwd,
    set_propagation, unmount_cwd,
};
pub(crate) use network::bring_loopback_up;

/// The parent of a cloned process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Parent {
    /// The caller.
    Caller,
    /// The caller's parent: `CLONE_PARENT`.
    Grand,
}

/// The result of a clone, in each of the two processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cloned {
    /// This is the new process.
    Child,
    /// This is the caller; the new process has this pid.
    Parent(i32),
}

/// A flag of `clone3` only. Not libc's constant: that has the type of `clone`'s flags, in which the value does not fit.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// Clones this process, as fork does, into new namespaces. Only legal with one thread.
pub(crate) fn clone_process(flags: u64, parent: Parent, into_cgroup: Option<BorrowedFd<'_>>) -> io::Result<Cloned> {
    // SAFETY: clone_args is plain old data for which all zeros is a valid value: no pointers, no stack of its own.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = flags;
    match parent {
        Parent::Caller => args.exit_signal = u64::from(libc::SIGCHLD.unsigned_abs()),
        // With CLONE_PARENT the kernel uses the caller's exit signal and wants 0 here.
        Parent::Grand => args.flags |= u64::from(libc::CLONE_PARENT.unsigned_abs()),
    }
    if let Some(dir) = into_cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = u64::try_from(dir.as_raw_fd()).map_err(io::Error::other)?;
    }
    let size = std::mem::size_of::<libc::clone_args>();
    // SAFETY: clone3 reads `size` bytes of the live local `args`. Without a stack and without CLONE_VM the child goes on
    // here in a copy of this memory, as after fork. fork's danger, a lock held by another thread, does not exist: the
    // launcher has one thread (see `Launcher::fork`).
    cloned(unsafe { libc::syscall(libc::SYS_clone3, &raw mut args, size) })
}

/// Does the same as [`clone_process`] with [`Parent::Grand`], by clone(2): seccomp filters can examine its arguments
/// and allow it, but refuse clone3.
pub(crate) fn clone_under_filter() -> io::Result<Cloned> {
    let none: libc::c_ulong = 0;
    let flags = libc::c_ulong::from(libc::CLONE_PARENT.unsigned_abs() | libc::SIGCHLD.unsigned_abs());
    // SAFETY: without a stack, CLONE_VM and pointers the kernel touches no memory of ours, and the child goes on here in a
    // copy of it, as after fork; every argument but the flags is zero, so their order, which differs between machines, does
    // not count. There is one thread, as for `clone_process`.
    cloned(unsafe { libc::syscall(libc::SYS_clone, flags, none, none, none, none) })
}

fn cloned(result: libc::c_long) -> io::Result<Cloned> {
    match result {
        0 => Ok(Cloned::Child),
        pid if pid > 0 => Ok(Cloned::Parent(i32::try_from(pid).map_err(io::Error::other)?)),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Enters a namespace of a kind (`CLONE_NEW*`), or several namespaces of a process by its pidfd.
pub(crate) fn setns(fd: BorrowedFd<'_>, flag: u64) -> io::Result<()> {
    Ok(nix::sched::setns(fd, clone_flags(flag)?)?)
}

/// Makes a new namespace of a kind.
pub(crate) fn unshare(flag: u64) -> io::Result<()> {
    Ok(nix::sched::unshare(clone_flags(flag)?)?)
}

fn clone_flags(flag: u64) -> io::Result<CloneFlags> {
    Ok(CloneFlags::from_bits_retain(i32::try_from(flag).map_err(io::Error::other)?))
}

/// How `openat2` resolves a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Resolve(ResolveFlag);

impl Resolve {
    /// Resolves as if the directory were the root; follows no magic link.
    pub(crate) const IN_ROOT: Self = Self(ResolveFlag::RESOLVE_IN_ROOT.union(ResolveFlag::RESOLVE_NO_MAGICLINKS));
    /// Resolves as [`Self::IN_ROOT`], and follows no symlink at all.
    pub(crate) const PLAIN: Self = Self(Self::IN_ROOT.0.union(ResolveFlag::RESOLVE_NO_SYMLINKS));
}

/// The most retries of `openat2`, which wants one for a `..` whenever a rename or mount anywhere on the host came
/// between. Only an attacker can cause so many in a row.
const MAX_RESOLVE_ATTEMPTS: u32 = 1000;

/// Opens a path below a directory.
pub(crate) fn openat2(
    dir: BorrowedFd<'_>,
    path: &CStr,
    flags: i32,
    mode: u32,
    resolve: Resolve,
) -> io::Result<OwnedFd> {
    let flags = OFlag::from_bits_retain(flags) | OFlag::O_CLOEXEC;
    let how = OpenHow::new().flags(flags).mode(Mode::from_bits_retain(mode)).resolve(resolve.0);
    let mut attempts = 0;
    loop {
        attempts += 1;
        match nix::fcntl::openat2(dir, path, how) {
            Err(Errno::EAGAIN) if attempts < MAX_RESOLVE_ATTEMPTS => {}
            opened => return Ok(opened?),
        }
    }
}

/// Sets the close-on-exec flag of every descriptor from `first` on.
pub(crate) fn close_on_exec_from(first: u32) -> io::Result<()> {
    // SAFETY: close_range takes three integers; with CLOSE_RANGE_CLOEXEC nothing is closed now, so no owner is cheated.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Executes a program in place of this one; returns only when that fails.
pub(crate) fn execve(path: &CStr, args: &[*const libc::c_char], env: &[*const libc::c_char]) -> io::Error {
    debug_assert!(args.last().is_some_and(|last| last.is_null()) && env.last().is_some_and(|last| last.is_null()));
    // SAFETY: the path is NUL-terminated; both arrays end with a null pointer and their other elements point to
    // NUL-terminated strings that live as long as the caller's `Strings`, which outlives this call (see `exec::Strings`).
    unsafe { libc::execve(path.as_ptr(), args.as_ptr(), env.as_ptr()) };
    io::Error::last_os_error()
}

/// Executes the program that a descriptor names (`O_PATH` is enough) in place of this one; returns only when that
/// fails.
pub(crate) fn execute_fd(program: BorrowedFd<'_>, args: &[CString], env: &[CString]) -> io::Error {
    match nix::unistd::execveat(program, c"", args, env, AtFlags::AT_EMPTY_PATH) {
        Ok(never) => match never {},
        Err(errno) => errno.into(),
    }
}

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
