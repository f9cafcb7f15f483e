//! Capabilities, identities and the other attributes of a process.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag};
use nix::sys::signal::SigSet;
use nix::unistd::{Gid, Uid, dup2_stderr, dup2_stdin, dup2_stdout};
use rustix::thread::CapabilitySet;

use super::check;
use crate::plan::CapabilitySets;

/// The highest capability that a set can hold.
const CAPABILITY_BITS: u32 = 64;
fn prctl(option: libc::c_int, two: libc::c_ulong, three: libc::c_ulong) -> io::Result<()> {
    let zero: libc::c_ulong = 0;
    // SAFETY: only options that take integers are given (see the callers in this file).
    check(unsafe { libc::prctl(option, two, three, zero, zero) }).map(drop)
}

/// Drops all capabilities except these from the bounding set. Those that the kernel does not know are in no set.
pub(crate) fn bound(kept: u64) -> io::Result<()> {
    for number in 0..CAPABILITY_BITS {
        if kept & (1 << number) != 0 {
            continue;
        }
        match prctl(libc::PR_CAPBSET_DROP, libc::c_ulong::from(number), 0) {
            Ok(()) => {}
            // The first number that the kernel does not know; there are no higher ones.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => return Ok(()),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Sets the permitted, effective and inheritable sets.
pub(crate) fn set_capabilities(sets: &CapabilitySets) -> io::Result<()> {
    let set = CapabilitySet::from_bits_retain;
    let sets = rustix::thread::CapabilitySets {
        effective: set(sets.effective),
        permitted: set(sets.permitted),
        inheritable: set(sets.inheritable),
    };
    Ok(rustix::thread::set_capabilities(None, sets)?)
}

/// Sets the ambient set to those of these that are permitted and inheritable: the kernel allows no other.
pub(crate) fn set_ambient(set: u64) -> io::Result<()> {
    prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL as libc::c_ulong, 0)?;
    for number in (0..CAPABILITY_BITS).filter(|number| set & (1 << number) != 0) {
        prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_RAISE as libc::c_ulong, libc::c_ulong::from(number))?;
    }
    Ok(())
}

/// Keeps the permitted set when the user changes from root.
pub(crate) fn keep_capabilities(keep: bool) -> io::Result<()> {
    prctl(libc::PR_SET_KEEPCAPS, libc::c_ulong::from(keep), 0)
}

/// Keeps every later exec from gaining rights.
pub(crate) fn set_no_new_privileges() -> io::Result<()> {
    prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0)
}

/// Sets whether processes of the same user may look into this process: its memory, its descriptors, its program.
pub(crate) fn set_dumpable(is_dumpable: bool) -> io::Result<()> {
    prctl(libc::PR_SET_DUMPABLE, libc::c_ulong::from(is_dumpable), 0)
}

/// Sets the groups, the group and the user, in this order; real, effective, saved and file system id of each.
pub(crate) fn set_user(uid: u32, gid: u32, groups: Option<&[u32]>) -> io::Result<()> {
    if let Some(groups) = groups {
        let groups: Vec<Gid> = groups.iter().copied().map(Gid::from_raw).collect();
        nix::unistd::setgroups(&groups)?;
    }
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    nix::unistd::setresgid(gid, gid, gid)?;
    Ok(nix::unistd::setresuid(uid, uid, uid)?)
}

/// Sets a resource limit.
pub(crate) fn set_rlimit(resource: u32, soft: u64, hard: u64) -> io::Result<()> {
    let limit = libc::rlimit { rlim_cur: soft, rlim_max: hard };
    // SAFETY: setrlimit reads one rlimit, a live local.
    check(unsafe { libc::setrlimit(resource, &raw const limit) }).map(drop)
}

/// Sets the personality.
pub(crate) fn set_personality(persona: u64) -> io::Result<()> {
    // SAFETY: personality takes an integer only.
    check(unsafe { libc::personality(persona) }).map(drop)
}

/// Makes this process the leader of a new session.
pub(crate) fn new_session() -> io::Result<()> {
    match nix::unistd::setsid() {
        // It leads a session already.
        Ok(_) | Err(Errno::EPERM) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// The kernel's `struct sigaction`; all zeros are the default action with nothing masked. The C library's own call
/// refuses the two signals that it reserves, and the parent may have ignored these too.
#[repr(C)]
#[derive(Default)]
struct KernelSigaction {
    handler: usize,
    flags: libc::c_ulong,
    restorer: usize,
    mask: u64,
}

fn default_action(signal: libc::c_int) -> io::Result<()> {
    let action = KernelSigaction::default();
    let old = std::ptr::null_mut::<KernelSigaction>();
    let mask_bytes = std::mem::size_of::<u64>();
    // SAFETY: rt_sigaction reads one kernel sigaction, a live local that is no shorter than the kernel's on any machine (some
    // have no restorer and then read less), and writes nothing as `old` is null. The default action is no handler.
    let result = unsafe { libc::syscall(libc::SYS_rt_sigaction, signal, &raw const action, old, mask_bytes) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Sets every signal to its default action and unblocks all.
pub(crate) fn reset_signals() -> io::Result<()> {
    /// The highest number, real-time signals included.
    const LAST_SIGNAL: libc::c_int = 64;
    for signal in 1..=LAST_SIGNAL {
        if signal == libc::SIGKILL || signal == libc::SIGSTOP {
            continue;
        }
        default_action(signal)?;
    }
    Ok(SigSet::empty().thread_set_mask()?)
}

/// Duplicates `fd` to the descriptor `number`, which stays open across an exec.
pub(crate) fn duplicate_to(fd: BorrowedFd<'_>, number: i32) -> io::Result<()> {
    if fd.as_raw_fd() == number {
        nix::fcntl::fcntl(fd, FcntlArg::F_SETFD(FdFlag::empty()))?;
        return Ok(());
    }
    Ok(match number {
        0 => dup2_stdin(fd),
        1 => dup2_stdout(fd),
        2 => dup2_stderr(fd),
        _ => Err(Errno::EBADF),
    }?)
}

/// Sets the NIS domain name.
pub(crate) fn set_domainname(name: &str) -> io::Result<()> {
    Ok(rustix::system::setdomainname(name.as_bytes())?)
}
