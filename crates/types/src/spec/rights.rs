//! Rights of the processes of a container, beyond the defaults or less.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::{MAX_LIST_LEN, SpecError, check_absolute, check_text, shorten};

/// The largest seccomp profile, in bytes: docker's own has 12 KiB.
const MAX_PROFILE_BYTES: usize = 128 * 1024;
/// The bounds of the kernel's OOM score adjustment.
const OOM_SCORES: std::ops::RangeInclusive<i16> = -1000..=1000;
/// The capabilities, in the kernel's order (capability.h): the position is the number.
const CAPABILITIES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];
/// The sysctls of `kernel.` that belong to the IPC namespace (ipc_namespaces(7)).
pub const IPC_SYSCTLS: [&str; 8] = [
    "kernel.msgmax",
    "kernel.msgmnb",
    "kernel.msgmni",
    "kernel.sem",
    "kernel.shmall",
    "kernel.shmmax",
    "kernel.shmmni",
    "kernel.shm_rmid_forced",
];
/// The sysctls of POSIX message queues, which belong to the IPC namespace.
const MQUEUE_SYSCTLS: &str = "fs.mqueue.";
/// The sysctls of the network, which belong to the network namespace.
const NET_SYSCTLS: &str = "net.";

/// Rights of the processes of a container. The defaults are those of containerd.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Rights {
    /// All capabilities, all devices of the host, no seccomp filter, nothing of `/proc` and `/sys` hidden or read-only: as much as a
    /// process of the host's root, but for its namespaces.
    pub is_privileged: bool,
    /// Capabilities beyond the defaults.
    pub cap_add: BTreeSet<Capability>,
    /// Capabilities that are taken away.
    pub cap_drop: BTreeSet<Capability>,
    /// Whether a program may give its process more rights than it had (set-user-id, file capabilities).
    pub may_gain_privileges: bool,
    /// The filter of system calls.
    pub seccomp: Seccomp,
    /// Devices of the host.
    pub devices: Vec<DeviceSpec>,
    /// Sysctls of the container's own namespaces.
    pub sysctls: BTreeMap<String, String>,
    /// Groups of its user beside those of `/etc/group`, each a name in the container's root or a number.
    pub additional_groups: Vec<String>,
    /// Limits of each process.
    pub ulimits: BTreeMap<UlimitKind, Ulimit>,
    /// How willingly the kernel ends it when memory runs out, -1000 to 1000; `None` is the node's default.
    pub oom_score_adj: Option<i16>,
}

impl Rights {
    /// Checks all that can be checked without the machine; `has_own_network` tells whether the network namespace is the container's.
    ///
    /// # Errors
    /// The first [`SpecError`] found.
    pub(super) fn validate(&self, has_own_network: bool) -> Result<(), SpecError> {
        let lists = [
            ("devices", self.devices.len()),
            ("sysctls", self.sysctls.len()),
            ("additional groups", self.additional_groups.len()),
        ];
        if let Some((field, len)) = lists.into_iter().find(|(_, len)| *len > MAX_LIST_LEN) {
            return Err(SpecError::TooMany { field, len });
        }
        for device in &self.devices {
            check_absolute("device", &device.source)?;
            check_absolute("device", &device.target)?;
        }
        for (name, value) in &self.sysctls {
            check_sysctl(name, value, has_own_network)?;
        }
        for group in &self.additional_groups {
            // The second part of a user is a group.
            super::UserSpec::new(format!("0:{group}")).map_err(|_| SpecError::BadGroup { given: shorten(group) })?;
        }
        if let Seccomp::Profile(text) = &self.seccomp
            && text.len() > MAX_PROFILE_BYTES
        {
            return Err(SpecError::TooLarge { bytes: text.len() });
        }
        for (kind, ulimit) in &self.ulimits {
            if !ulimit.is_ordered() {
                return Err(SpecError::BadUlimit { given: format!("{kind}={ulimit}") });
            }
        }
        match self.oom_score_adj {
            Some(score) if !OOM_SCORES.contains(&score) => Err(SpecError::BadOomScore { given: score }),
            _ => Ok(()),
        }
    }

    /// Tells whether it takes anything from the defaults, or gives beyond them, that only root may.
    pub fn gives_more(&self) -> bool {
        let Self {
            is_privileged,
            cap_add,
            cap_drop: _,
            may_gain_privileges,
            seccomp,
            devices,
            sysctls,
            additional_groups: _,
            ulimits,
            oom_score_adj,
        } = self;
        *is_privileged
            || !cap_add.is_empty()
            || *may_gain_privileges
            || *seccomp != Seccomp::Default
            || !devices.is_empty()
            || !sysctls.is_empty()
            || !ulimits.is_empty()
            || oom_score_adj.is_some_and(|score| score < 0)
    }
}

fn check_sysctl(name: &str, value: &str, has_own_network: bool) -> Result<(), SpecError> {
    check_text("sysctl", value, 1024)?;
    let refused = |why| Err(SpecError::SysctlRefused { name: shorten(name), why });
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-' | b'/');
    if name.is_empty() || !name.bytes().all(is_name) || name.split(['.', '/']).any(str::is_empty) {
        return refused("it is no name of a sysctl");
    }
    if name.starts_with(NET_SYSCTLS) {
        return if has_own_network { Ok(()) } else { refused("the network namespace belongs to others") };
    }
    let is_own = IPC_SYSCTLS.contains(&name) || name.starts_with(MQUEUE_SYSCTLS);
    if is_own { Ok(()) } else { refused("it belongs to the whole machine") }
}

/// A capability, or all of them.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Capability(String);

impl Capability {
    /// The word for all of them.
    pub const ALL: &str = "ALL";

    /// Parses a name, in any case, with or without `CAP_`.
    ///
    /// # Errors
    /// [`SpecError::BadCapability`].
    pub fn new(text: &str) -> Result<Self, SpecError> {
        let upper = text.to_ascii_uppercase();
        let name = upper.strip_prefix("CAP_").unwrap_or(&upper);
        let is_known = name == Self::ALL || CAPABILITIES.contains(&name);
        if is_known { Ok(Self(name.to_owned())) } else { Err(SpecError::BadCapability { given: shorten(text) }) }
    }

    /// Returns the name without `CAP_`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Tells whether it stands for all.
    pub fn is_all(&self) -> bool {
        self.0 == Self::ALL
    }

    /// Returns the names of all capabilities, in the kernel's order.
    pub fn names() -> impl Iterator<Item = &'static str> {
        CAPABILITIES.into_iter()
    }
}

impl TryFrom<String> for Capability {
    type Error = SpecError;
    fn try_from(text: String) -> Result<Self, SpecError> {
        Self::new(&text)
    }
}

impl From<Capability> for String {
    fn from(capability: Capability) -> Self {
        capability.0
    }
}

impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The filter of system calls.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Seccomp {
    /// containerd's profile, by the container's capabilities.
    #[default]
    Default,
    /// None.
    Unconfined,
    /// A profile as JSON, in docker's or OCI's form.
    Profile(String),
}

/// A device of the host, in a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceSpec {
    /// The device on the host, an absolute path.
    pub source: String,
    /// Where it is in the container, an absolute path.
    pub target: String,
    /// Whether it may be read.
    pub read: bool,
    /// Whether it may be written.
    pub write: bool,
    /// Whether other nodes of it may be made.
    pub mknod: bool,
}

impl FromStr for DeviceSpec {
    type Err = SpecError;

    /// Parses `SOURCE[:TARGET][:rwm]`.
    fn from_str(text: &str) -> Result<Self, SpecError> {
        let bad = || SpecError::BadDevice { given: shorten(text) };
        let parts: Vec<&str> = text.split(':').collect();
        let (source, target, access) = match parts.as_slice() {
            [source] => (*source, *source, "rwm"),
            [source, second] if second.starts_with('/') => (*source, *second, "rwm"),
            [source, access] => (*source, *source, *access),
            [source, target, access] => (*source, *target, *access),
            _ => return Err(bad()),
        };
        let is_access = !access.is_empty() && access.bytes().all(|byte| matches!(byte, b'r' | b'w' | b'm'));
        if !is_access || !source.starts_with('/') || !target.starts_with('/') {
            return Err(bad());
        }
        let has = |letter| access.contains(letter);
        let (read, write, mknod) = (has('r'), has('w'), has('m'));
        Ok(Self { source: source.to_owned(), target: target.to_owned(), read, write, mknod })
    }
}

/// A limit of each process (setrlimit(2)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UlimitKind {
    /// Address space, bytes.
    As,
    /// Core files, bytes.
    Core,
    /// Processor time, seconds.
    Cpu,
    /// Data segment, bytes.
    Data,
    /// Files that are written, bytes.
    Fsize,
    /// File locks.
    Locks,
    /// Locked memory, bytes.
    Memlock,
    /// POSIX message queues, bytes.
    Msgqueue,
    /// The best nice value, as 20 less it.
    Nice,
    /// Open files.
    Nofile,
    /// Processes and threads of the user.
    Nproc,
    /// Resident memory; the kernel ignores it.
    Rss,
    /// Realtime priority.
    Rtprio,
    /// Realtime processor time without a pause, microseconds.
    Rttime,
    /// Signals that wait.
    Sigpending,
    /// Stack, bytes.
    Stack,
}

impl UlimitKind {
    /// All of them with their names.
    pub const ALL: [(Self, &str); 16] = [
        (Self::As, "as"),
        (Self::Core, "core"),
        (Self::Cpu, "cpu"),
        (Self::Data, "data"),
        (Self::Fsize, "fsize"),
        (Self::Locks, "locks"),
        (Self::Memlock, "memlock"),
        (Self::Msgqueue, "msgqueue"),
        (Self::Nice, "nice"),
        (Self::Nofile, "nofile"),
        (Self::Nproc, "nproc"),
        (Self::Rss, "rss"),
        (Self::Rtprio, "rtprio"),
        (Self::Rttime, "rttime"),
        (Self::Sigpending, "sigpending"),
        (Self::Stack, "stack"),
    ];

    /// Returns its name, as ulimits are written.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(kind, _)| *kind == self).map_or("", |(_, name)| name)
    }
}

impl fmt::Display for UlimitKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The values of a limit; `None` is no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ulimit {
    /// The value that holds.
    pub soft: Option<u64>,
    /// How far a process may raise it.
    pub hard: Option<u64>,
}

impl Ulimit {
    fn is_ordered(self) -> bool {
        match (self.soft, self.hard) {
            (_, None) => true,
            (None, Some(_)) => false,
            (Some(soft), Some(hard)) => soft <= hard,
        }
    }

    /// Parses `KIND=SOFT[:HARD]`; -1 and `unlimited` are no limit.
    ///
    /// # Errors
    /// [`SpecError::BadUlimit`].
    pub fn parse(text: &str) -> Result<(UlimitKind, Self), SpecError> {
        let bad = || SpecError::BadUlimit { given: shorten(text) };
        let (name, values) = text.split_once('=').ok_or_else(bad)?;
        let (kind, _) = UlimitKind::ALL.into_iter().find(|(_, known)| *known == name).ok_or_else(bad)?;
        let value = |text: &str| match text {
            "-1" | "unlimited" => Ok(None),
            number => number.parse().map(Some).map_err(|_| bad()),
        };
        let (soft, hard) = values.split_once(':').unwrap_or((values, values));
        let ulimit = Self { soft: value(soft)?, hard: value(hard)? };
        if ulimit.is_ordered() { Ok((kind, ulimit)) } else { Err(bad()) }
    }
}

impl fmt::Display for Ulimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |value: Option<u64>| value.map_or_else(|| "unlimited".to_owned(), |value| value.to_string());
        write!(f, "{}:{}", text(self.soft), text(self.hard))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_are_written_in_any_usual_way_and_unknown_ones_are_refused() {
        for text in ["net_admin", "NET_ADMIN", "CAP_NET_ADMIN", "cap_net_admin"] {
            assert_eq!(Capability::new(text).expect(text).as_str(), "NET_ADMIN");
        }
        assert!(Capability::new("all").expect("a word").is_all());
        for bad in ["", "CAP_", "NET", "CAP_CAP_KILL", "KILL "] {
            assert!(Capability::new(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn devices_have_a_place_and_an_access_of_their_own_if_they_say_so() {
        let parsed = |text: &str| {
            let DeviceSpec { source, target, read, write, mknod } = text.parse().expect(text);
            (source, target, [read, write, mknod])
        };
        let same = |path: &str| (path.to_owned(), path.to_owned());
        for (text, (source, target), access) in [
            ("/dev/fuse", same("/dev/fuse"), [true, true, true]),
            ("/dev/fuse:r", same("/dev/fuse"), [true, false, false]),
            ("/dev/a:/dev/b", ("/dev/a".to_owned(), "/dev/b".to_owned()), [true, true, true]),
            ("/dev/a:/dev/b:rw", ("/dev/a".to_owned(), "/dev/b".to_owned()), [true, true, false]),
        ] {
            assert_eq!(parsed(text), (source, target, access), "{text}");
        }
        for bad in ["", "dev/fuse", "/dev/a:", "/dev/a:x", "/dev/a:/dev/b:", "/dev/a:/b:r:w"] {
            assert!(bad.parse::<DeviceSpec>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn ulimits_are_a_kind_and_one_or_two_values_in_order() {
        let of = |text: &str| Ulimit::parse(text).expect(text);
        assert_eq!(of("nofile=64"), (UlimitKind::Nofile, Ulimit { soft: Some(64), hard: Some(64) }));
        assert_eq!(of("core=0:-1"), (UlimitKind::Core, Ulimit { soft: Some(0), hard: None }));
        assert_eq!(of("memlock=unlimited").1.to_string(), "unlimited:unlimited");
        for bad in ["", "nofile", "nofile=", "files=1", "nofile=2:1", "nofile=-1:1", "nofile=x"] {
            assert!(Ulimit::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn only_sysctls_of_the_containers_own_namespaces_are_taken() {
        let check = |name: &str, has_own_network| check_sysctl(name, "1", has_own_network);
        assert_eq!(check("net.ipv4.ip_forward", true), Ok(()));
        assert_eq!(check("net.ipv4.conf.eth0/1.forwarding", true), Ok(()));
        assert!(check("net.ipv4.ip_forward", false).is_err());
        assert_eq!(check("kernel.shmmax", false), Ok(()));
        assert_eq!(check("fs.mqueue.msg_max", false), Ok(()));
        for bad in ["kernel.panic", "vm.swappiness", "", "net..a", "../net", "kernel.shmmax ", "kernel.hostname"] {
            assert!(check(bad, true).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn what_takes_rights_away_gives_none() {
        let mut rights = Rights { cap_drop: [Capability::new("all").expect("a word")].into(), ..Rights::default() };
        (rights.oom_score_adj, rights.additional_groups) = (Some(500), vec!["5".into()]);
        assert!(!rights.gives_more() && rights.validate(false).is_ok());
        for more in [
            Rights { is_privileged: true, ..Rights::default() },
            Rights { may_gain_privileges: true, ..Rights::default() },
            Rights { seccomp: Seccomp::Unconfined, ..Rights::default() },
            Rights { oom_score_adj: Some(-1), ..Rights::default() },
        ] {
            assert!(more.gives_more(), "{more:?}");
        }
    }
}
