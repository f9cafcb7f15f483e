//! The seccomp profile as data: the system calls that a container may make, grouped by purpose.
//!
//! Source: the behaviour of containerd's default profile (`contrib/seccomp/seccomp_default.go`, release line 2), looked
//! up there and written down anew, grouped by purpose and ordered within a group. Two deliberate differences: the
//! kernel version is not checked, since every kernel that can run contd is newer than 4.8, and only the architectures
//! that contd runs on are listed. The runtimes skip a name that an older libseccomp does not know.
//!
//! A call that is not named here gives EPERM. Missing on purpose, because the kernel does not tell containers apart
//! there or its history is bad: keyrings (`add_key`, `keyctl`, `request_key`), `userfaultfd`, `io_uring_*`, `kexec_*`,
//! `swapon`, `pivot_root`, `nfsservctl`, `vm86`, `_sysctl`, `uselib`, `move_pages`.

use oci_spec::runtime::{Capability, LinuxSeccompOperator};

/// Calls that are treated alike.
pub(crate) struct Group {
    /// The purpose of the calls, for people and tests.
    #[cfg_attr(not(test), expect(dead_code, reason = "documents the data; tests name the group that is wrong"))]
    pub(crate) purpose: &'static str,
    /// The containers that the group applies to.
    pub(crate) when: When,
    /// The result of the call.
    pub(crate) action: Action,
    /// The condition on an argument; `None` is no condition.
    pub(crate) condition: Option<Condition>,
    /// The calls.
    pub(crate) names: &'static [&'static str],
}

/// The containers that a group applies to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum When {
    /// All containers.
    Always,
    /// Containers on this architecture, by its Rust name.
    Arch(&'static str),
    /// Containers whose bounding set has this capability.
    With(Capability),
    /// Containers whose bounding set lacks this capability.
    Without(Capability),
}

/// The result of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    /// The call is made.
    Allow,
    /// The call fails with this errno.
    Errno(u32),
}

/// A condition on one argument of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Condition {
    pub(crate) index: usize,
    pub(crate) operator: LinuxSeccompOperator,
    pub(crate) value: u64,
    pub(crate) value_two: Option<u64>,
}

/// "Not implemented": a libc then falls back to the older call, whereas it gives up on EPERM.
const ENOSYS: u32 = 38;
/// Sockets to the hypervisor: they belong to no network namespace, so they would bypass it.
const AF_VSOCK: u64 = 40;
/// CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID and NEWNET together.
const CLONE_NEW_NAMESPACES: u64 = 0x7E02_0000;

const fn allow(purpose: &'static str, names: &'static [&'static str]) -> Group {
    allow_when(purpose, When::Always, names)
}

const fn allow_when(purpose: &'static str, when: When, names: &'static [&'static str]) -> Group {
    Group { purpose, when, action: Action::Allow, condition: None, names }
}

const fn personality(purpose: &'static str, value: u64) -> Group {
    let operator = LinuxSeccompOperator::ScmpCmpEq;
    let condition = Some(Condition { index: 0, operator, value, value_two: None });
    Group { purpose, when: When::Always, action: Action::Allow, condition, names: &["personality"] }
}

/// The profile.
#[rustfmt::skip]
pub(crate) const GROUPS: &[Group] = &[
    allow("open, close and copy descriptors", &[
        "close", "close_range", "creat", "dup", "dup2", "dup3", "fcntl", "fcntl64", "flock", "name_to_handle_at", "open",
        "openat", "openat2",
    ]),
    allow("read and write", &[
        "_llseek", "cachestat", "copy_file_range", "fadvise64", "fadvise64_64", "fallocate", "fdatasync", "fsync",
        "ftruncate", "ftruncate64", "lseek", "pread64", "preadv", "preadv2", "pwrite64", "pwritev", "pwritev2", "read",
        "readahead", "readv", "sendfile", "sendfile64", "splice", "sync", "sync_file_range", "syncfs", "tee", "truncate",
        "truncate64", "vmsplice", "write", "writev",
    ]),
    allow("look at files", &[
        "access", "faccessat", "faccessat2", "fstat", "fstat64", "fstatat64", "fstatfs", "fstatfs64", "getcwd", "getdents",
        "getdents64", "listmount", "lstat", "lstat64", "newfstatat", "readlink", "readlinkat", "stat", "stat64", "statfs",
        "statfs64", "statmount", "statx",
    ]),
    allow("change names and attributes of files", &[
        "chdir", "chmod", "chown", "chown32", "fchdir", "fchmod", "fchmodat", "fchmodat2", "fchown", "fchown32", "fchownat",
        "futimesat", "lchown", "lchown32", "link", "linkat", "mkdir", "mkdirat", "mknod", "mknodat", "rename", "renameat",
        "renameat2", "rmdir", "symlink", "symlinkat", "umask", "unlink", "unlinkat", "utime", "utimensat",
        "utimensat_time64", "utimes",
    ]),
    allow("extended attributes", &[
        "fgetxattr", "flistxattr", "fremovexattr", "fsetxattr", "getxattr", "getxattrat", "lgetxattr", "listxattr",
        "listxattrat", "llistxattr", "lremovexattr", "lsetxattr", "removexattr", "removexattrat", "setxattr", "setxattrat",
    ]),
    allow("watch files", &[
        "fanotify_mark", "inotify_add_watch", "inotify_init", "inotify_init1", "inotify_rm_watch",
    ]),
    allow("wait for many descriptors", &[
        "_newselect", "epoll_create", "epoll_create1", "epoll_ctl", "epoll_ctl_old", "epoll_pwait", "epoll_pwait2",
        "epoll_wait", "epoll_wait_old", "eventfd", "eventfd2", "poll", "ppoll", "ppoll_time64", "pselect6",
        "pselect6_time64", "select",
    ]),
    allow("asynchronous reads and writes, without io_uring", &[
        "io_cancel", "io_destroy", "io_getevents", "io_pgetevents", "io_pgetevents_time64", "io_setup", "io_submit",
        "ioprio_get", "ioprio_set",
    ]),
    allow("control devices", &["ioctl"]),
    allow("memory", &[
        "brk", "madvise", "map_shadow_stack", "membarrier", "memfd_create", "memfd_secret", "mincore", "mlock", "mlock2",
        "mlockall", "mmap", "mmap2", "mprotect", "mremap", "mseal", "msync", "munlock", "munlockall", "munmap",
        "pkey_alloc", "pkey_free", "pkey_mprotect", "process_mrelease", "remap_file_pages",
    ]),
    allow("processes and threads", &[
        "execve", "execveat", "exit", "exit_group", "fork", "get_robust_list", "get_thread_area", "getpgid", "getpgrp",
        "getpid", "getppid", "getsid", "gettid", "pidfd_open", "pidfd_send_signal", "prctl", "rseq", "set_robust_list",
        "set_thread_area", "set_tid_address", "setpgid", "setsid", "uretprobe", "vfork", "wait4", "waitid", "waitpid",
    ]),
    allow("locks between threads", &[
        "futex", "futex_requeue", "futex_time64", "futex_wait", "futex_waitv", "futex_wake",
    ]),
    allow("scheduling", &[
        "getcpu", "getpriority", "sched_get_priority_max", "sched_get_priority_min", "sched_getaffinity", "sched_getattr",
        "sched_getparam", "sched_getscheduler", "sched_rr_get_interval", "sched_rr_get_interval_time64",
        "sched_setaffinity", "sched_setattr", "sched_setparam", "sched_setscheduler", "sched_yield", "setpriority",
    ]),
    allow("users, groups and capabilities", &[
        "capget", "capset", "getegid", "getegid32", "geteuid", "geteuid32", "getgid", "getgid32", "getgroups",
        "getgroups32", "getresgid", "getresgid32", "getresuid", "getresuid32", "getuid", "getuid32", "setfsgid",
        "setfsgid32", "setfsuid", "setfsuid32", "setgid", "setgid32", "setgroups", "setgroups32", "setregid", "setregid32",
        "setresgid", "setresgid32", "setresuid", "setresuid32", "setreuid", "setreuid32", "setuid", "setuid32",
    ]),
    allow("limits and accounts of oneself", &[
        "getrlimit", "getrusage", "prlimit64", "setrlimit", "sysinfo", "times", "ugetrlimit", "uname",
    ]),
    allow("signals", &[
        "kill", "pause", "restart_syscall", "rt_sigaction", "rt_sigpending", "rt_sigprocmask", "rt_sigqueueinfo",
        "rt_sigreturn", "rt_sigsuspend", "rt_sigtimedwait", "rt_sigtimedwait_time64", "rt_tgsigqueueinfo", "sigaltstack",
        "signalfd", "signalfd4", "sigprocmask", "sigreturn", "tgkill", "tkill",
    ]),
    // Setting the clock this way still needs CAP_SYS_TIME: adjtimex without it only reads.
    allow("time and timers", &[
        "adjtimex", "alarm", "clock_adjtime", "clock_adjtime64", "clock_getres", "clock_getres_time64", "clock_gettime",
        "clock_gettime64", "clock_nanosleep", "clock_nanosleep_time64", "getitimer", "gettimeofday", "nanosleep",
        "setitimer", "time", "timer_create", "timer_delete", "timer_getoverrun", "timer_gettime", "timer_gettime64",
        "timer_settime", "timer_settime64", "timerfd_create", "timerfd_gettime", "timerfd_gettime64", "timerfd_settime",
        "timerfd_settime64",
    ]),
    allow("pipes, queues, semaphores and shared memory", &[
        "ipc", "mq_getsetattr", "mq_notify", "mq_open", "mq_timedreceive", "mq_timedreceive_time64", "mq_timedsend",
        "mq_timedsend_time64", "mq_unlink", "msgctl", "msgget", "msgrcv", "msgsnd", "pipe", "pipe2", "semctl", "semget",
        "semop", "semtimedop", "semtimedop_time64", "shmat", "shmctl", "shmdt", "shmget",
    ]),
    allow("sockets, once made", &[
        "accept", "accept4", "bind", "connect", "getpeername", "getsockname", "getsockopt", "listen", "recv", "recvfrom",
        "recvmmsg", "recvmmsg_time64", "recvmsg", "send", "sendmmsg", "sendmsg", "sendto", "setsockopt", "shutdown",
        "socketcall", "socketpair",
    ]),
    allow("randomness", &["getrandom"]),
    allow("give up rights", &[
        "landlock_add_rule", "landlock_create_ruleset", "landlock_restrict_self", "lsm_get_self_attr", "lsm_list_modules",
        "lsm_set_self_attr", "seccomp",
    ]),
    allow("trace one's own processes: since Linux 4.8 a tracer cannot lift the filter of the traced", &[
        "process_vm_readv", "process_vm_writev", "ptrace",
    ]),

    Group {
        purpose: "make a socket of any family but vsock",
        when: When::Always,
        action: Action::Allow,
        condition: Some(Condition {
            index: 0, operator: LinuxSeccompOperator::ScmpCmpNe, value: AF_VSOCK, value_two: None,
        }),
        names: &["socket"],
    },
    personality("PER_LINUX", 0x0000),
    personality("PER_LINUX32, for 32-bit programs", 0x0008),
    personality("PER_LINUX with UNAME26", 0x0002_0000),
    personality("PER_LINUX32 with UNAME26", 0x0002_0008),
    personality("only ask", 0xffff_ffff),

    allow_when("thread areas and segments", When::Arch("x86_64"), &["arch_prctl", "modify_ldt"]),
    allow_when("32-bit calls and caches", When::Arch("aarch64"), &[
        "arm_fadvise64_64", "arm_sync_file_range", "breakpoint", "cacheflush", "set_tls", "sync_file_range2",
    ]),

    Group {
        purpose: "threads and processes, but no new namespaces",
        when: When::Without(Capability::SysAdmin),
        action: Action::Allow,
        // The flags are the first argument on x86_64 and aarch64 (not on s390x).
        condition: Some(Condition {
            index: 0, operator: LinuxSeccompOperator::ScmpCmpMaskedEq, value: CLONE_NEW_NAMESPACES, value_two: Some(0),
        }),
        names: &["clone"],
    },
    Group {
        purpose: "its flags are behind a pointer, which no filter can look at",
        when: When::Without(Capability::SysAdmin),
        action: Action::Errno(ENOSYS),
        condition: None,
        names: &["clone3"],
    },
    allow_when("namespaces, mounts and the like", When::With(Capability::SysAdmin), &[
        "bpf", "clone", "clone3", "fanotify_init", "fsconfig", "fsmount", "fsopen", "fspick", "lookup_dcookie", "mount",
        "mount_setattr", "move_mount", "open_tree", "perf_event_open", "quotactl", "quotactl_fd", "setdomainname",
        "sethostname", "setns", "syslog", "umount", "umount2", "unshare",
    ]),
    allow_when("another root directory", When::With(Capability::SysChroot), &["chroot"]),
    allow_when("files by handle", When::With(Capability::DacReadSearch), &["open_by_handle_at"]),
    allow_when("reboot", When::With(Capability::SysBoot), &["reboot"]),
    allow_when("kernel modules", When::With(Capability::SysModule), &["delete_module", "finit_module", "init_module"]),
    allow_when("process accounting", When::With(Capability::SysPacct), &["acct"]),
    allow_when("other processes", When::With(Capability::SysPtrace), &[
        "kcmp", "pidfd_getfd", "process_madvise", "process_vm_readv", "process_vm_writev", "ptrace",
    ]),
    allow_when("input and output ports", When::With(Capability::SysRawio), &["ioperm", "iopl"]),
    allow_when("set the clock", When::With(Capability::SysTime), &[
        "clock_settime", "clock_settime64", "settimeofday", "stime",
    ]),
    allow_when("hang up terminals", When::With(Capability::SysTtyConfig), &["vhangup"]),
    allow_when("where memory lies", When::With(Capability::SysNice), &[
        "get_mempolicy", "mbind", "set_mempolicy", "set_mempolicy_home_node",
    ]),
    allow_when("the kernel's log", When::With(Capability::Syslog), &["syslog"]),
    allow_when("kernel programs", When::With(Capability::Bpf), &["bpf"]),
    allow_when("performance counters", When::With(Capability::Perfmon), &["perf_event_open"]),
];
