//! The system calls of this crate that nix does not offer.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::unistd::{Gid, Uid, setfsgid, setfsuid};

/// The most supplementary groups that the kernel has for one process (`NGROUPS_MAX`).
const MAX_GROUPS: usize = 65_536;
/// The groups asked for at first: enough for almost every user.
const USUAL_GROUPS: usize = 64;

/// Returns the supplementary groups that the peer of a connected Unix socket had when it connected.
///
/// # Errors
/// The kernel's error; before Linux 4.13 the option does not exist.
pub fn peer_groups(socket: impl AsFd) -> io::Result<Vec<u32>> {
    let socket = socket.as_fd();
    let mut groups = vec![0_u32; USUAL_GROUPS];
    match read_peer_groups(socket, &mut groups) {
        Err(error) if error.raw_os_error() == Some(libc::ERANGE) => {
            groups.resize(MAX_GROUPS, 0);
            read_peer_groups(socket, &mut groups)?;
        }
        read => read?,
    }
    Ok(groups)
}

/// Fills `groups` and truncates it to the groups received.
fn read_peer_groups(socket: BorrowedFd<'_>, groups: &mut Vec<u32>) -> io::Result<()> {
    let bytes = size_of::<libc::gid_t>() * groups.len();
    let mut len = libc::socklen_t::try_from(bytes).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    // SAFETY: the kernel writes at most `len` bytes to the vector, which has room for just that, and the number of bytes to
    // `len`; both live until the call returns. `gid_t` is `u32` on Linux. The descriptor is open while it is borrowed.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERGROUPS,
            groups.as_mut_ptr().cast(),
            &raw mut len,
        )
    };
    check(result.into())?;
    groups.truncate(usize::try_from(len).unwrap_or(0) / size_of::<libc::gid_t>());
    Ok(())
}

/// Gives this thread, and no other, a user's rights to files. This cannot be undone: the thread must end.
///
/// The real and effective uid stay, so that the user can neither signal nor trace the process; without the file system's uid 0
/// the kernel takes away all capabilities over files (`CAP_DAC_OVERRIDE` and its like, see capabilities(7)).
pub(crate) fn take_file_rights(uid: u32, gid: u32, groups: &[u32]) -> io::Result<()> {
    // SAFETY: the pointer is good for as many numbers as the slice has, and the kernel only reads them. The raw call changes
    // the calling thread only, other than the function of the C library, which would change the whole process.
    let result = unsafe { libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) };
    check(result)?;
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    setfsgid(gid);
    setfsuid(uid);
    // These calls report no failure, they only return the previous id; so call them again to check.
    if setfsgid(gid) == gid && setfsuid(uid) == uid { Ok(()) } else { Err(io::ErrorKind::PermissionDenied.into()) }
}

/// Makes a detached copy of a mount and all mounts below it.
pub(crate) fn open_tree(source: impl AsFd) -> io::Result<OwnedFd> {
    let flags = libc::OPEN_TREE_CLONE | libc::OPEN_TREE_CLOEXEC;
    let flags = flags | libc::AT_EMPTY_PATH.cast_unsigned() | libc::AT_RECURSIVE.cast_unsigned();
    let empty: &CStr = c"";
    // SAFETY: the path is a string that ends with a NUL and lives for ever; the descriptor is open while it is borrowed.
    let fd = unsafe { libc::syscall(libc::SYS_open_tree, source.as_fd().as_raw_fd(), empty.as_ptr(), flags) };
    check(fd)?;
    let fd = i32::try_from(fd).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
    // SAFETY: the kernel has just made this descriptor for us, and nobody else knows its number.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Makes a tree of mounts private, so that it receives no mounts from elsewhere, and read-only on request.
pub(crate) fn set_attributes(tree: impl AsFd, is_read_only: bool) -> io::Result<()> {
    let attributes = libc::mount_attr {
        attr_set: if is_read_only { libc::MOUNT_ATTR_RDONLY } else { 0 },
        attr_clr: 0,
        propagation: libc::MS_PRIVATE,
        userns_fd: 0,
    };
    let (empty, flags): (&CStr, _) = (c"", libc::AT_EMPTY_PATH | libc::AT_RECURSIVE);
    let size = size_of::<libc::mount_attr>();
    // SAFETY: the path is a string that ends with a NUL; the kernel reads `size` bytes of the structure, which is as long and
    // lives until the call returns; the descriptor is open while it is borrowed.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_fd().as_raw_fd(),
            empty.as_ptr(),
            flags,
            &raw const attributes,
            size,
        )
    };
    check(result)
}

/// Attaches a detached tree of mounts at the file open as `target`.
pub(crate) fn move_mount(tree: impl AsFd, target: impl AsFd) -> io::Result<()> {
    let flags = libc::MOVE_MOUNT_F_EMPTY_PATH | libc::MOVE_MOUNT_T_EMPTY_PATH;
    let empty: &CStr = c"";
    // SAFETY: both paths are strings that end with a NUL and live for ever; both descriptors are open while they are borrowed.
    let result = unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            tree.as_fd().as_raw_fd(),
            empty.as_ptr(),
            target.as_fd().as_raw_fd(),
            empty.as_ptr(),
            flags,
        )
    };
    check(result)
}

fn check(result: libc::c_long) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn the_groups_of_a_peer_are_those_of_its_process() {
        let (one, _other) = UnixStream::pair().unwrap();
        let mut own: Vec<u32> = nix::unistd::getgroups().unwrap().into_iter().map(Gid::as_raw).collect();
        let mut groups = peer_groups(&one).unwrap();
        own.sort_unstable();
        groups.sort_unstable();
        assert_eq!(groups, own);
    }
}
