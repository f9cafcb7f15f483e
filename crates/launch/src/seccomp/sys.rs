//! The system call seccomp(2).

use std::io;

/// Loads a filter into this process.
pub(super) fn install(instructions: &[u64], flags: u32) -> io::Result<()> {
    let length = libc::c_ushort::try_from(instructions.len()).map_err(|_| io::Error::from_raw_os_error(libc::E2BIG))?;
    // The kernel only reads it, although the pointer's type is mutable.
    let program = libc::sock_fprog { len: length, filter: instructions.as_ptr().cast_mut().cast() };
    let flags = libc::c_ulong::from(flags);
    // SAFETY: seccomp reads one sock_fprog, a live local, and `len` sock_filter of 8 bytes each from the slice behind it,
    // which is as long as that and aligned for 8 bytes; it writes nothing.
    let result = unsafe {
        libc::syscall(libc::SYS_seccomp, libc::c_ulong::from(libc::SECCOMP_SET_MODE_FILTER), flags, &raw const program)
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
