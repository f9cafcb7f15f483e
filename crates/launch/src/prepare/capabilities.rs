//! `process.capabilities`: converts names to bit sets.

use crate::config::Capabilities;
use crate::fault::Fault;
use crate::plan::CapabilitySets;

/// The names by number: linux/capability.h.
const NAMES: [&str; 41] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
];

/// Makes the five sets; one that is absent is empty.
pub(super) fn sets(capabilities: Option<&Capabilities>) -> Result<CapabilitySets, Fault> {
    let Some(capabilities) = capabilities else { return Ok(CapabilitySets::default()) };
    let Capabilities { bounding, effective, inheritable, permitted, ambient } = capabilities;
    Ok(CapabilitySets {
        bounding: set("bounding", bounding.as_deref())?,
        effective: set("effective", effective.as_deref())?,
        inheritable: set("inheritable", inheritable.as_deref())?,
        permitted: set("permitted", permitted.as_deref())?,
        ambient: set("ambient", ambient.as_deref())?,
    })
}

fn set(name: &str, words: Option<&[String]>) -> Result<u64, Fault> {
    let mut bits = 0;
    for word in words.unwrap_or_default() {
        let number = NAMES.iter().position(|known| *known == word.as_str());
        let unknown = || {
            let field = format!("process.capabilities.{name}");
            Fault::invalid(field, format!("{word:?} is no capability"))
        };
        bits |= 1u64 << number.ok_or_else(unknown)?;
    }
    Ok(bits)
}
