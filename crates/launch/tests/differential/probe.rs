// Prints what a container sees of itself, line by line. Compiled by the test, static, for an empty root; it uses no
// crate.

use std::collections::BTreeMap;
use std::ffi::{CString, c_char, c_int, c_long};
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};

unsafe extern "C" {
    fn syscall(number: c_long, ...) -> c_long;
    fn umask(mask: u32) -> u32;
    fn getsid(pid: c_int) -> c_int;
    fn __errno_location() -> *mut c_int;
}

fn errno(result: c_long) -> i32 {
    if result < 0 { unsafe { *__errno_location() } } else { 0 }
}

fn main() {
    let host: BTreeMap<String, String> = std::env::var("HOST_NAMESPACES")
        .unwrap_or_default()
        .split(',')
        .filter_map(|pair| pair.split_once('='))
        .map(|(name, id)| (name.to_owned(), id.to_owned()))
        .collect();
    let text = |path: &str| fs::read_to_string(path).unwrap_or_else(|error| format!("{error}"));
    for line in text("/proc/self/status").lines() {
        let name = line.split(':').next().unwrap_or_default();
        let kept = ["Uid", "Gid", "Groups", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp", "SigBlk", "SigIgn"];
        if kept.contains(&name) {
            println!("status {}", line.split_whitespace().collect::<Vec<_>>().join(" "));
        }
    }
    for name in ["pid", "mnt", "uts", "ipc", "net", "cgroup", "user"] {
        let own = fs::read_link(format!("/proc/self/ns/{name}")).map(|link| link.display().to_string()).unwrap_or_default();
        println!("namespace {name} is the host's: {}", host.get(name).is_some_and(|id| *id == own));
    }
    for line in text("/proc/self/limits").lines() {
        println!("limit {}", line.split_whitespace().collect::<Vec<_>>().join(" "));
    }
    for line in text("/proc/self/mountinfo").lines() {
        println!("mount {line}");
    }
    println!("hostname {}", text("/proc/sys/kernel/hostname").trim());
    println!("domainname {}", text("/proc/sys/kernel/domainname").trim());
    println!("cwd {:?}", std::env::current_dir().map(|dir| dir.display().to_string()).map_err(|error| error.kind()));
    println!("args {:?}", std::env::args().collect::<Vec<_>>());
    let mut env: Vec<_> = std::env::vars().filter(|(name, _)| name != "HOST_NAMESPACES").collect();
    env.sort();
    println!("env {env:?}");
    println!("umask {:o}", unsafe { umask(0) });
    println!("oom_score_adj {}", text("/proc/self/oom_score_adj").trim());
    println!("session leader {}", unsafe { getsid(0) } == std::process::id() as i32);
    println!("pid {}", std::process::id());
    println!("personality {}", unsafe { syscall(135, 0xffff_ffff_u64) });
    let mut fds: Vec<String> = fs::read_dir("/proc/self/fd").map(|dir| dir.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()).unwrap_or_default();
    fds.sort();
    println!("descriptors {fds:?}");
    let mut devices: Vec<String> = Vec::new();
    for entry in fs::read_dir("/dev").into_iter().flatten().flatten() {
        let path = entry.path();
        let Ok(found) = fs::symlink_metadata(&path) else { continue };
        let kind = found.file_type();
        let kind = if kind.is_char_device() { 'c' } else if kind.is_block_device() { 'b' } else if kind.is_fifo() { 'p' } else if kind.is_dir() { 'd' } else if kind.is_symlink() { 'l' } else { '-' };
        let target = fs::read_link(&path).map(|link| link.display().to_string()).unwrap_or_default();
        devices.push(format!("{} {kind} {:o} {} {} {:x} {target}", path.display(), found.permissions().mode(), found.uid(), found.gid(), found.rdev()));
    }
    devices.sort();
    devices.iter().for_each(|device| println!("device {device}"));
    println!("loopback {}", text("/proc/net/fib_trie").contains("127.0.0.1"));
    for path in ["/", "/proc/sys/kernel/hostname", "/proc/sysrq-trigger", "/proc/kcore", "/proc/keys", "/proc/bus", "/sys/firmware", "/sys/kernel", "/dev", "/dev/shm", "/tmp", "/data", "/data/sub", "/etc/hosts", "/work"] {
        let kind = |error: std::io::Error| error.raw_os_error();
        let read = fs::metadata(path).map(|found| found.len() > 0 && found.is_file()).map_err(kind);
        let list = fs::read_dir(path).map(|dir| dir.count() > 0).map_err(kind);
        let write = if path.starts_with("/proc") { fs::OpenOptions::new().write(true).open(path).map(drop).map_err(kind) } else {
            let file = format!("{path}/written");
            let result = fs::write(&file, "x").map_err(kind);
            let _ = fs::remove_file(&file);
            result
        };
        println!("path {path} {read:?} {list:?} {write:?}");
    }
    for device in ["null", "zero", "full", "random", "tty", "fuse", "extra"] {
        let opened = fs::OpenOptions::new().read(true).open(format!("/dev/{device}")).map(drop).map_err(|error| error.raw_os_error());
        println!("open {device} {opened:?}");
    }
    let path = |text: &str| CString::new(text).unwrap_or_default();
    let (tmp, proc_, node) = (path("/tmp"), path("proc"), path("/tmp/node"));
    let none = std::ptr::null::<c_char>();
    let calls: [(&str, c_long); 15] = unsafe {
        [
            ("mount", syscall(165, proc_.as_ptr(), tmp.as_ptr(), proc_.as_ptr(), 0u64, none)),
            ("unshare", syscall(272, 0x0002_0000u64)),
            ("setns", syscall(308, 0, 0x4000_0000u64)),
            ("keyctl", syscall(250, 0u64, 0u64, 0u64)),
            ("mknod", syscall(133, node.as_ptr(), 0o060600u64, 0x0800u64)),
            ("sethostname", syscall(170, c"x".as_ptr(), 1u64)),
            ("reboot", syscall(169, 0u64, 0u64, 0u64, 0u64)),
            ("bpf", syscall(321, 99u64, 0u64, 0u64)),
            ("open_by_handle_at", syscall(304, -1, none, 0u64)),
            ("chroot", syscall(161, c"/".as_ptr())),
            ("vsock", syscall(41, 40u64, 1u64, 0u64)),
            ("settimeofday", syscall(164, none, none)),
            ("swapon", syscall(167, none, 0u64)),
            ("a call of the future", syscall(4000)),
            ("getpid of x32", syscall(0x4000_0000 | 39)),
        ]
    };
    // The results were computed in order, but errno only keeps the last: make each call again.
    let again: [(&str, &dyn Fn() -> c_long); 15] = [
        ("mount", &|| unsafe { syscall(165, c"proc".as_ptr(), c"/tmp".as_ptr(), c"proc".as_ptr(), 0u64, std::ptr::null::<c_char>()) }),
        ("unshare", &|| unsafe { syscall(272, 0x0002_0000u64) }),
        ("setns", &|| unsafe { syscall(308, 0, 0x4000_0000u64) }),
        ("keyctl", &|| unsafe { syscall(250, 99u64, 0u64, 0u64) }),
        ("mknod", &|| unsafe { syscall(133, c"/tmp/node2".as_ptr(), 0o060600u64, 0x0800u64) }),
        ("sethostname", &|| unsafe { syscall(170, c"x".as_ptr(), 1u64) }),
        ("reboot", &|| unsafe { syscall(169, 0u64, 0u64, 0u64, 0u64) }),
        ("bpf", &|| unsafe { syscall(321, 99u64, 0u64, 0u64) }),
        ("open_by_handle_at", &|| unsafe { syscall(304, -1, std::ptr::null::<c_char>(), 0u64) }),
        ("chroot", &|| unsafe { syscall(161, c"/".as_ptr()) }),
        ("vsock", &|| unsafe { syscall(41, 40u64, 1u64, 0u64) }),
        ("settimeofday", &|| unsafe { syscall(164, 1u64, 1u64) }),
        ("swapon", &|| unsafe { syscall(167, std::ptr::null::<c_char>(), 0u64) }),
        ("a call of the future", &|| unsafe { syscall(4000) }),
        ("getpid of x32", &|| unsafe { syscall(0x4000_0000 | 39) }),
    ];
    for ((name, first), (_, call)) in calls.iter().zip(again) {
        let second = errno(call());
        println!("call {name} first ok: {} errno {second}", *first >= 0);
    }
}
