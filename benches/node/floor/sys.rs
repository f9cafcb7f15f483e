//! The system calls of the floor. Each one panics when it fails: a floor with a missing step would be too fast.

use std::ffi::{CStr, CString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr::null;

use nix::libc;

use super::bundle::Bundle;

/// The namespaces of a new child; the network namespace is joined, and the cgroup namespace is made after the cgroups.
pub(super) const NEW_NAMESPACES: u64 =
    (libc::CLONE_NEWPID | libc::CLONE_NEWNS | libc::CLONE_NEWUTS | libc::CLONE_NEWIPC).cast_unsigned() as u64;

const CAPABILITY_VERSION_3: u32 = 0x2008_0522;
const SECCOMP_SET_MODE_FILTER: libc::c_uint = 1;
const CLOSE_RANGE_CLOEXEC: libc::c_uint = 4;
/// A number above every capability of any kernel so far.
const MAX_CAPABILITIES: u32 = 64;

#[track_caller]
fn check(result: libc::c_long, what: &str) -> libc::c_long {
    assert!(result >= 0, "the floor: {what}: {}", io::Error::last_os_error());
    result
}

fn pointer(text: Option<&CStr>) -> *const libc::c_char {
    text.map_or(null(), CStr::as_ptr)
}

/// Forks into new namespaces; 0 in the child.
pub(super) fn clone3(flags: u64) -> i32 {
    // SAFETY: all zeroes is a valid value of a struct of integers.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = flags;
    args.exit_signal = libc::SIGCHLD.cast_unsigned().into();
    // SAFETY: `args` is a valid clone_args of the given size that outlives the call; without CLONE_VM the child has its
    // own copy of all memory, and this process has one thread, so no lock can be held by another.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw mut args, size_of_val(&args)) };
    i32::try_from(check(pid, "clone3")).expect("a pid")
}

/// Makes a panic end this process: a child must never unwind into the server's loop.
pub(super) fn end_on_panic() {
    std::panic::set_hook(Box::new(|panic| {
        eprintln!("{panic}");
        std::process::abort();
    }));
}

/// Waits for a child; returns its wait status.
pub(super) fn reap(pid: i32) -> i32 {
    let mut status = 0;
    // SAFETY: `status` is a valid place for one int.
    check(unsafe { libc::waitpid(pid, &raw mut status, 0) }.into(), "wait for the child");
    status
}

/// Ends a child that was never told to go.
pub(super) fn exit_at_once() -> ! {
    // SAFETY: it has no arguments in memory and does not return.
    unsafe { libc::_exit(0) }
}

pub(super) fn new_cgroup_namespace() {
    // SAFETY: no memory is passed.
    check(unsafe { libc::unshare(libc::CLONE_NEWCGROUP) }.into(), "a new cgroup namespace");
}

pub(super) fn join_network(path: &CStr) {
    // SAFETY: `path` is a C string that outlives the call.
    let fd = unsafe { libc::open(path.as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC) };
    check(fd.into(), "open the network namespace");
    // SAFETY: no memory is passed.
    check(unsafe { libc::setns(fd, libc::CLONE_NEWNET) }.into(), "join the network namespace");
    // SAFETY: the descriptor was opened here and is used nowhere else.
    check(unsafe { libc::close(fd) }.into(), "close the network namespace");
}

pub(super) fn set_hostname(name: &CStr) {
    // SAFETY: the pointer and the length describe the bytes of `name`.
    check(unsafe { libc::sethostname(name.as_ptr(), name.count_bytes()) }.into(), "set the host name");
}

/// mount(2) with C strings.
#[track_caller]
pub(super) fn mount_c(
    source: Option<&CStr>,
    target: &CStr,
    fs_type: Option<&CStr>,
    flags: libc::c_ulong,
    options: Option<&CStr>,
) {
    let (source, fs_type, options) = (pointer(source), pointer(fs_type), pointer(options));
    // SAFETY: each pointer is null or a C string that outlives the call.
    let result = unsafe { libc::mount(source, target.as_ptr(), fs_type, flags, options.cast()) };
    check(result.into(), &format!("mount {}", target.to_string_lossy()));
}

/// mount(2) with paths, for the preparation.
#[track_caller]
pub(super) fn mount(source: &str, target: &Path, fs_type: &str, flags: libc::c_ulong, options: &str) {
    let c = |text: &[u8]| CString::new(text).expect("no NUL");
    let (source, fs_type, options) = (c(source.as_bytes()), c(fs_type.as_bytes()), c(options.as_bytes()));
    mount_c(Some(&source), &c(target.as_os_str().as_bytes()), Some(&fs_type), flags, Some(&options));
}

/// Unmounts after the measurement.
pub(super) fn unmount(target: &Path) {
    let _gone = nix::mount::umount2(target, nix::mount::MntFlags::MNT_DETACH);
}

/// Makes `root` the root and drops the old one.
pub(super) fn pivot(root: &CStr) {
    // SAFETY: `root` is a C string that outlives the call.
    check(unsafe { libc::chdir(root.as_ptr()) }.into(), "enter the root");
    // SAFETY: both are C strings that outlive the call.
    check(unsafe { libc::syscall(libc::SYS_pivot_root, c".".as_ptr(), c".".as_ptr()) }, "pivot");
    // SAFETY: a C string that outlives the call.
    check(unsafe { libc::umount2(c".".as_ptr(), libc::MNT_DETACH) }.into(), "drop the old root");
    // SAFETY: a C string that outlives the call.
    check(unsafe { libc::chdir(c"/".as_ptr()) }.into(), "enter the new root");
}

/// Makes a directory, if it does not exist.
pub(super) fn make_dir(path: &CStr) {
    // SAFETY: `path` is a C string that outlives the call.
    let result = unsafe { libc::mkdir(path.as_ptr(), 0o755) };
    let is_there = io::Error::last_os_error().raw_os_error() == Some(libc::EEXIST);
    assert!(result == 0 || is_there, "the floor: make {}: {}", path.to_string_lossy(), io::Error::last_os_error());
}

pub(super) fn make_node(path: &CStr, major: u32, minor: u32) {
    let device = libc::makedev(major, minor);
    // SAFETY: `path` is a C string that outlives the call.
    check(unsafe { libc::mknod(path.as_ptr(), libc::S_IFCHR | 0o666, device) }.into(), "make a device");
    // The umask took the bits of group and others.
    // SAFETY: `path` is a C string that outlives the call.
    check(unsafe { libc::chmod(path.as_ptr(), 0o666) }.into(), "open a device to all");
}

pub(super) fn make_link(target: &CStr, link: &CStr) {
    // SAFETY: both are C strings that outlive the call.
    check(unsafe { libc::symlink(target.as_ptr(), link.as_ptr()) }.into(), "link");
}

/// Binds a path over itself; tells whether the path exists.
pub(super) fn bind_over_itself(path: &CStr) -> bool {
    let flags = libc::MS_BIND | libc::MS_REC;
    // SAFETY: the paths are C strings that outlive the call, the rest is null.
    let result = unsafe { libc::mount(path.as_ptr(), path.as_ptr(), null(), flags, null()) };
    let is_missing = io::Error::last_os_error().raw_os_error() == Some(libc::ENOENT);
    assert!(result == 0 || is_missing, "the floor: bind {}: {}", path.to_string_lossy(), io::Error::last_os_error());
    result == 0
}

pub(super) fn remount_read_only(path: &CStr) {
    // Keep the flags of the mount of /proc, or the kernel refuses.
    let kept = libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC;
    mount_c(None, path, None, libc::MS_BIND | libc::MS_REMOUNT | libc::MS_RDONLY | kept, None);
}

/// Masks a path: a file by `/dev/null`, a directory by an empty one.
pub(super) fn mask(path: &CStr) {
    // SAFETY: the paths are C strings that outlive the call, the rest is null.
    let result = unsafe { libc::mount(c"/dev/null".as_ptr(), path.as_ptr(), null(), libc::MS_BIND, null()) };
    if result == 0 {
        return;
    }
    match io::Error::last_os_error().raw_os_error() {
        Some(libc::ENOENT) => {}
        Some(libc::ENOTDIR) => mount_c(Some(c"tmpfs"), path, Some(c"tmpfs"), libc::MS_RDONLY, None),
        _ => panic!("the floor: mask {}: {}", path.to_string_lossy(), io::Error::last_os_error()),
    }
}

/// Drops every right that the bundle does not give; loads the filter last.
pub(super) fn restrict(bundle: &Bundle) {
    let limit = libc::rlimit { rlim_cur: bundle.nofile, rlim_max: bundle.nofile };
    // SAFETY: `limit` is a valid rlimit that outlives the call.
    check(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) }.into(), "set the limit of files");
    for number in 0..MAX_CAPABILITIES {
        let is_kept = bundle.capabilities & (1 << number) != 0;
        // SAFETY: no memory is passed.
        if !is_kept && unsafe { libc::prctl(libc::PR_CAPBSET_DROP, number) } < 0 {
            // The kernel has no capability of this number, and none above.
            break;
        }
    }
    // SAFETY: one group, in memory that outlives the call.
    check(unsafe { libc::setgroups(1, &raw const ROOT_GROUP) }.into(), "set the groups");
    set_capabilities(bundle.capabilities);
    // SAFETY: no memory is passed.
    check(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) }.into(), "no new privileges");
    // SAFETY: no memory is passed; the descriptors stay open until the exec.
    check(unsafe { libc::syscall(libc::SYS_close_range, 3, u32::MAX, CLOSE_RANGE_CLOEXEC) }, "close at exec");
    let len = u16::try_from(bundle.filter.len()).expect("a short program");
    let program = libc::sock_fprog { len, filter: bundle.filter.as_ptr().cast_mut() };
    let flags = libc::c_ulong::from(bundle.filter_flags);
    // SAFETY: `program` describes so many instructions, which the kernel only reads.
    let result = unsafe { libc::syscall(libc::SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &raw const program) };
    check(result, "load the filter");
}

static ROOT_GROUP: libc::gid_t = 0;

fn set_capabilities(set: u64) {
    let header: [u32; 2] = [CAPABILITY_VERSION_3, 0];
    let (low, high) = (set as u32, (set >> 32) as u32);
    // Effective, permitted, inheritable: first the low halves.
    let sets: [u32; 6] = [low, low, 0, high, high, 0];
    // SAFETY: the header and two sets of three numbers, laid out as capset(2) has it, outlive the call.
    check(unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), sets.as_ptr()) }, "set the capabilities");
}

/// Executes the program; never returns.
pub(super) fn execute(args: &[CString], env: &[CString]) -> ! {
    let list = |texts: &[CString]| -> Vec<*const libc::c_char> {
        texts.iter().map(|text| text.as_ptr()).chain([null()]).collect()
    };
    let (argv, envp) = (list(args), list(env));
    // SAFETY: both lists end with null and point to C strings that outlive the call.
    unsafe { libc::execve(argv[0], argv.as_ptr(), envp.as_ptr()) };
    panic!("the floor: execute: {}", io::Error::last_os_error());
}
