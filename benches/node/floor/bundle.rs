//! The floor's bundle: read and converted to C strings once, before anything is measured.

use std::ffi::CString;
use std::fs;
use std::path::Path;

use serde_json::Value;

/// Capabilities by number (linux/capability.h): those of our default bundle.
const CAPABILITIES: [(&str, u32); 14] = [
    ("CAP_CHOWN", 0),
    ("CAP_DAC_OVERRIDE", 1),
    ("CAP_FOWNER", 3),
    ("CAP_FSETID", 4),
    ("CAP_KILL", 5),
    ("CAP_SETGID", 6),
    ("CAP_SETUID", 7),
    ("CAP_SETPCAP", 8),
    ("CAP_NET_BIND_SERVICE", 10),
    ("CAP_NET_RAW", 13),
    ("CAP_SYS_CHROOT", 18),
    ("CAP_MKNOD", 27),
    ("CAP_AUDIT_WRITE", 29),
    ("CAP_SETFCAP", 31),
];
/// Mount options that are flags; other options are passed to the file system as text.
const FLAGS: [(&str, libc::c_ulong); 6] = [
    ("ro", libc::MS_RDONLY),
    ("nosuid", libc::MS_NOSUID),
    ("nodev", libc::MS_NODEV),
    ("noexec", libc::MS_NOEXEC),
    ("relatime", libc::MS_RELATIME),
    ("strictatime", libc::MS_STRICTATIME),
];

use nix::libc;

/// A mount of the configuration.
pub(super) struct Mount {
    pub(super) source: CString,
    pub(super) target: CString,
    pub(super) fs_type: CString,
    pub(super) flags: libc::c_ulong,
    pub(super) options: CString,
}

/// The steps of init, with all their arguments.
pub(super) struct Bundle {
    pub(super) root: CString,
    pub(super) mounts: Vec<Mount>,
    pub(super) masked: Vec<CString>,
    pub(super) readonly: Vec<CString>,
    pub(super) hostname: CString,
    pub(super) netns: CString,
    pub(super) capabilities: u64,
    pub(super) nofile: u64,
    pub(super) filter_flags: u32,
    /// The instructions (`struct sock_filter`), one after the other.
    pub(super) filter: Vec<libc::sock_filter>,
    pub(super) args: Vec<CString>,
    pub(super) env: Vec<CString>,
    /// The v1 hierarchies to mount read-only, by name and mount option.
    pub(super) hierarchies: Vec<(CString, CString)>,
    pub(super) cgroup: String,
    /// The writes to the cgroup tree: hierarchy, file and value, in order.
    pub(super) limits: Vec<(&'static str, &'static str, String)>,
}

/// Makes a C string.
pub(super) fn c(text: &str) -> CString {
    CString::new(text).expect("no NUL")
}

fn text(value: &Value) -> &str {
    value.as_str().expect("text")
}

fn list(value: &Value) -> Vec<CString> {
    value.as_array().expect("a list").iter().map(|item| c(text(item))).collect()
}

impl Bundle {
    /// Reads `config.json` and `filter` from a directory; the root is `rootfs` in it.
    pub(super) fn read(dir: &Path) -> Self {
        let json = fs::read_to_string(dir.join("config.json")).expect("read config.json");
        let config: Value = serde_json::from_str(&json).expect("JSON");
        let (linux, process) = (&config["linux"], &config["process"]);
        let network = linux["namespaces"].as_array().expect("a list").iter().find(|one| one["type"] == "network");
        let filter = fs::read(dir.join("filter")).expect("read the filter");
        let (flags, program) = filter.split_first_chunk::<4>().expect("flags");
        assert_eq!((&process["user"]["uid"], &process["user"]["gid"]), (&0.into(), &0.into()), "the floor is root's");
        Self {
            root: c(dir.join("rootfs").to_str().expect("utf-8")),
            mounts: config["mounts"].as_array().expect("a list").iter().map(mount).collect(),
            masked: list(&linux["maskedPaths"]),
            readonly: list(&linux["readonlyPaths"]),
            hostname: c(text(&config["hostname"])),
            netns: c(text(&network.expect("a network namespace")["path"])),
            capabilities: process["capabilities"]["bounding"].as_array().expect("a list").iter().map(bit).sum(),
            nofile: process["rlimits"][0]["hard"].as_u64().expect("a number"),
            filter_flags: u32::from_le_bytes(*flags),
            filter: program.chunks_exact(8).map(instruction).collect(),
            args: list(&process["args"]),
            env: list(&process["env"]),
            hierarchies: hierarchies(),
            cgroup: text(&linux["cgroupsPath"]).trim_start_matches('/').to_owned(),
            limits: limits(&linux["resources"]),
        }
    }
}

fn bit(name: &Value) -> u64 {
    let found = CAPABILITIES.iter().find(|(known, _)| name == known);
    1 << found.unwrap_or_else(|| panic!("the floor does not know {name}")).1
}

fn instruction(bytes: &[u8]) -> libc::sock_filter {
    let half = |at: usize| u16::from_ne_bytes([bytes[at], bytes[at + 1]]);
    let k = u32::from_ne_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]);
    libc::sock_filter { code: half(0), jt: bytes[2], jf: bytes[3], k }
}

fn mount(mount: &Value) -> Mount {
    let mut flags = 0;
    let mut options = Vec::new();
    for option in mount["options"].as_array().expect("a list") {
        match FLAGS.iter().find(|(name, _)| option == name) {
            Some((_, flag)) => flags |= flag,
            None => options.push(text(option)),
        }
    }
    let field = |name: &str| c(text(&mount[name]));
    let (source, target, fs_type) = (field("source"), field("destination"), field("type"));
    Mount { source, target, fs_type, flags, options: c(&options.join(",")) }
}

/// Lists this machine's v1 hierarchies, as a cgroup mount of the container shows them.
fn hierarchies() -> Vec<(CString, CString)> {
    let text = fs::read_to_string("/proc/self/cgroup").expect("read /proc/self/cgroup");
    let option = |line: &str| line.split(':').nth(1).expect("a hierarchy").to_owned();
    let names = text.lines().map(option).filter(|option| !option.is_empty());
    names.map(|option| (c(option.trim_start_matches("name=")), c(&option))).collect()
}

fn limits(resources: &Value) -> Vec<(&'static str, &'static str, String)> {
    let number = |value: &Value| value.as_i64().expect("a number").to_string();
    let cpu = &resources["cpu"];
    let mut limits = vec![
        ("memory", "memory.limit_in_bytes", number(&resources["memory"]["limit"])),
        ("cpu", "cpu.shares", number(&cpu["shares"])),
        ("cpu", "cpu.cfs_period_us", number(&cpu["period"])),
        ("cpu", "cpu.cfs_quota_us", number(&cpu["quota"])),
        ("pids", "pids.max", number(&resources["pids"]["limit"])),
    ];
    for rule in resources["devices"].as_array().expect("a list") {
        let part = |name: &str| rule[name].as_i64().map_or_else(|| "*".to_owned(), |number| number.to_string());
        let kind = rule["type"].as_str().unwrap_or("a");
        let line = format!("{kind} {}:{} {}", part("major"), part("minor"), text(&rule["access"]));
        let file = if rule["allow"] == true { "devices.allow" } else { "devices.deny" };
        limits.push(("devices", file, line));
    }
    limits
}
