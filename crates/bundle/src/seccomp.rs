//! Makes the seccomp rules of a container from the profile's data.

use std::borrow::Cow;
use std::sync::OnceLock;

use contd_types::{ContainerSpec, Rights, Seccomp};
use oci_spec::OciSpecError;
use oci_spec::runtime::{
    Arch, Capabilities, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompArgBuilder, LinuxSeccompBuilder,
    LinuxSyscall, LinuxSyscallBuilder,
};
use serde_json::value::RawValue;

use crate::error::BundleError;
use crate::profile::{Action, Condition, GROUPS, Group, When};
use crate::{json, process, seccomp_file};

/// Makes the profile for a process whose bounding set is `bounding`, on this machine.
pub(crate) fn profile(bounding: &Capabilities) -> Result<LinuxSeccomp, OciSpecError> {
    profile_for(std::env::consts::ARCH, bounding)
}

/// Makes the rules of a container; `None` for one without.
///
/// # Errors
/// The caller's profile cannot be used.
pub(crate) fn of(spec: &ContainerSpec) -> Result<Option<LinuxSeccomp>, BundleError> {
    let name = || spec.name.to_string();
    let capabilities = process::capabilities(spec);
    match &spec.rights.seccomp {
        Seccomp::Default if !spec.rights.is_privileged => {
            profile(&capabilities).map(Some).map_err(|source| BundleError::Assemble { name: name(), source })
        }
        Seccomp::Default | Seccomp::Unconfined => Ok(None),
        Seccomp::Profile(text) => seccomp_file::parse(text, &capabilities)
            .map(Some)
            .map_err(|source| BundleError::SeccompProfile { name: name(), source }),
    }
}

/// Returns the encoded rules of a container; `None` for one without. The usual ones are made once: made anew for each container, they
/// would be most of the memory that the daemon allocates for it.
pub(crate) fn text(spec: &ContainerSpec) -> Result<Option<Cow<'static, RawValue>>, BundleError> {
    static PLAIN: OnceLock<Box<RawValue>> = OnceLock::new();
    static ELEVATED: OnceLock<Box<RawValue>> = OnceLock::new();
    let Rights { cap_add, cap_drop, seccomp, is_privileged, .. } = &spec.rights;
    let is_usual = !is_privileged && *seccomp == Seccomp::Default && cap_add.is_empty() && cap_drop.is_empty();
    let made = is_usual.then_some(if spec.is_elevated { &ELEVATED } else { &PLAIN });
    if let Some(text) = made.and_then(OnceLock::get) {
        return Ok(Some(Cow::Borrowed(text)));
    }
    let Some(rules) = of(spec)? else { return Ok(None) };
    let text =
        json::encode_profile(&rules).map_err(|source| BundleError::Encode { name: spec.name.to_string(), source })?;
    Ok(Some(match made {
        // If two threads make it at once, either text will do; they are equal.
        Some(made) => Cow::Borrowed(made.get_or_init(|| text)),
        None => Cow::Owned(text),
    }))
}

/// Makes a profile that refuses every system call.
pub(crate) fn nothing() -> Result<LinuxSeccomp, OciSpecError> {
    LinuxSeccompBuilder::default().default_action(LinuxSeccompAction::ScmpActErrno).build()
}

fn profile_for(arch: &str, bounding: &Capabilities) -> Result<LinuxSeccomp, OciSpecError> {
    let applying = GROUPS.iter().filter(|group| applies(group.when, arch, bounding));
    LinuxSeccompBuilder::default()
        .default_action(LinuxSeccompAction::ScmpActErrno)
        .architectures(architectures(arch))
        .syscalls(applying.map(rule).collect::<Result<Vec<_>, _>>()?)
        .build()
}

fn applies(when: When, arch: &str, bounding: &Capabilities) -> bool {
    match when {
        When::Always => true,
        When::Arch(wanted) => arch == wanted,
        When::With(capability) => bounding.contains(&capability),
        When::Without(capability) => !bounding.contains(&capability),
    }
}

fn rule(group: &Group) -> Result<LinuxSyscall, OciSpecError> {
    let names = group.names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    let rule = LinuxSyscallBuilder::default().names(names);
    let rule = match group.action {
        Action::Allow => rule.action(LinuxSeccompAction::ScmpActAllow),
        Action::Errno(errno) => rule.action(LinuxSeccompAction::ScmpActErrno).errno_ret(errno),
    };
    match group.condition {
        Some(condition) => rule.args(vec![argument(condition)?]).build(),
        None => rule.build(),
    }
}

fn argument(condition: Condition) -> Result<LinuxSeccompArg, OciSpecError> {
    let argument =
        LinuxSeccompArgBuilder::default().index(condition.index).op(condition.operator).value(condition.value);
    match condition.value_two {
        Some(second) => argument.value_two(second).build(),
        None => argument.build(),
    }
}

/// Returns the calling conventions that the filter covers; the kernel refuses calls by any other.
fn architectures(arch: &str) -> Vec<Arch> {
    match arch {
        "x86_64" => vec![Arch::ScmpArchX86_64, Arch::ScmpArchX86, Arch::ScmpArchX32],
        "aarch64" => vec![Arch::ScmpArchAarch64, Arch::ScmpArchArm],
        // Only the machine's own one.
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use oci_spec::runtime::{Capability, LinuxSeccompOperator};

    use super::*;
    use crate::process::capabilities;

    /// Returns the names that a rule without a condition allows.
    fn freely_allowed(profile: &LinuxSeccomp) -> BTreeSet<String> {
        let rules = profile.syscalls().iter().flatten();
        rules
            .filter(|rule| rule.action() == LinuxSeccompAction::ScmpActAllow && rule.args().is_none())
            .flat_map(|rule| rule.names().clone())
            .collect()
    }

    fn granted(is_elevated: bool) -> Capabilities {
        let name = contd_types::ContainerName::new("web").expect("valid");
        capabilities(&ContainerSpec { is_elevated, ..ContainerSpec::new(name, "/x.fl") })
    }

    fn plain() -> LinuxSeccomp {
        profile_for("x86_64", &granted(false)).expect("valid")
    }

    fn elevated() -> LinuxSeccomp {
        profile_for("x86_64", &granted(true)).expect("valid")
    }

    fn rules_for<'a>(profile: &'a LinuxSeccomp, name: &str) -> Vec<&'a LinuxSyscall> {
        let rules = profile.syscalls().iter().flatten();
        rules.filter(|rule| rule.names().iter().any(|known| known == name)).collect()
    }

    #[test]
    fn what_is_not_named_is_refused_with_an_errno() {
        assert_eq!(plain().default_action(), LinuxSeccompAction::ScmpActErrno);
        let allowed = freely_allowed(&elevated());
        for never in [
            "add_key",
            "keyctl",
            "request_key",
            "userfaultfd",
            "io_uring_setup",
            "io_uring_enter",
            "io_uring_register",
            "kexec_load",
            "kexec_file_load",
            "pivot_root",
            "swapon",
            "swapoff",
            "move_pages",
            "uselib",
            "vm86",
            "nfsservctl",
            "reboot",
            "init_module",
            "open_by_handle_at",
            "settimeofday",
            "iopl",
            "acct",
            "vhangup",
        ] {
            assert!(!allowed.contains(never), "{never} is allowed even to an elevated container");
        }
    }

    #[test]
    fn what_stands_under_the_text_allows_nothing() {
        let nothing = nothing().expect("valid");
        assert_eq!(nothing.default_action(), LinuxSeccompAction::ScmpActErrno);
        assert_eq!(nothing.syscalls(), &None);
    }

    #[test]
    fn namespaces_and_mounts_need_sys_admin() {
        let (plain, elevated) = (freely_allowed(&plain()), freely_allowed(&elevated()));
        for admin in [
            "bpf",
            "clone",
            "clone3",
            "fanotify_init",
            "fsconfig",
            "fsmount",
            "fsopen",
            "fspick",
            "lookup_dcookie",
            "mount",
            "mount_setattr",
            "move_mount",
            "open_tree",
            "perf_event_open",
            "quotactl",
            "setdomainname",
            "sethostname",
            "setns",
            "syslog",
            "umount",
            "umount2",
            "unshare",
        ] {
            assert!(!plain.contains(admin), "{admin} is allowed without CAP_SYS_ADMIN");
            assert!(elevated.contains(admin), "{admin} is refused with CAP_SYS_ADMIN");
        }
    }

    #[test]
    fn every_group_of_a_capability_counts_only_with_it() {
        for group in GROUPS {
            let When::With(capability) = group.when else { continue };
            let without = Capabilities::new();
            let with = Capabilities::from([capability]);
            assert!(!applies(group.when, "x86_64", &without), "{}", group.purpose);
            assert!(applies(group.when, "x86_64", &with), "{}", group.purpose);
        }
    }

    #[test]
    fn ordinary_programs_and_debuggers_are_not_hindered() {
        let allowed = freely_allowed(&plain());
        for needed in [
            "execve",
            "openat",
            "read",
            "write",
            "futex",
            "mmap",
            "ptrace",
            "process_vm_readv",
            "chroot",
            "arch_prctl",
            "statx",
            "close_range",
            "epoll_pwait2",
            "rseq",
            "faccessat2",
            "landlock_restrict_self",
            "seccomp",
        ] {
            assert!(allowed.contains(needed), "{needed} is refused");
        }
    }

    #[test]
    fn clone_makes_no_namespaces_without_sys_admin() {
        let plain = plain();
        let rules = rules_for(&plain, "clone");
        let [rule] = rules.as_slice() else { panic!("{rules:?}") };
        let argument = rule.args().as_ref().and_then(|args| args.first()).expect("a condition");
        assert_eq!(argument.op(), LinuxSeccompOperator::ScmpCmpMaskedEq);
        assert_eq!((argument.index(), argument.value(), argument.value_two()), (0, 0x7E02_0000, Some(0)));
    }

    #[test]
    fn clone3_says_not_implemented_without_sys_admin() {
        let plain = plain();
        let rules = rules_for(&plain, "clone3");
        let [rule] = rules.as_slice() else { panic!("{rules:?}") };
        assert_eq!((rule.action(), rule.errno_ret()), (LinuxSeccompAction::ScmpActErrno, Some(38)));
    }

    #[test]
    fn sockets_are_of_any_family_but_vsock() {
        let plain = plain();
        let rules = rules_for(&plain, "socket");
        let [rule] = rules.as_slice() else { panic!("{rules:?}") };
        let argument = rule.args().as_ref().and_then(|args| args.first()).expect("a condition");
        assert_eq!((argument.op(), argument.value()), (LinuxSeccompOperator::ScmpCmpNe, 40));
    }

    #[test]
    fn only_harmless_personalities_are_allowed() {
        let plain = plain();
        let values: BTreeSet<u64> = rules_for(&plain, "personality")
            .iter()
            .map(|rule| rule.args().as_ref().and_then(|args| args.first()).expect("a condition").value())
            .collect();
        assert_eq!(values, BTreeSet::from([0, 8, 0x20000, 0x20008, 0xffff_ffff]));
    }

    #[test]
    fn each_machine_has_its_calling_conventions_and_its_own_calls() {
        let arm = profile_for("aarch64", &granted(false)).expect("valid");
        assert_eq!(arm.architectures().as_deref().expect("some"), [Arch::ScmpArchAarch64, Arch::ScmpArchArm]);
        assert!(freely_allowed(&arm).contains("cacheflush") && !freely_allowed(&arm).contains("arch_prctl"));
        let x86 = [Arch::ScmpArchX86_64, Arch::ScmpArchX86, Arch::ScmpArchX32];
        assert_eq!(plain().architectures().as_deref().expect("some"), x86);
    }

    #[test]
    fn every_group_says_its_purpose_and_is_in_order_without_repetition() {
        let mut always = BTreeSet::new();
        for group in GROUPS {
            assert!(!group.purpose.is_empty() && !group.names.is_empty());
            // The order of LC_ALL=C, which puts `_` first.
            assert!(group.names.is_sorted(), "{}: {:?}", group.purpose, group.names);
            if group.when == When::Always && group.condition.is_none() {
                for name in group.names {
                    assert!(always.insert(*name), "{name} is in two groups");
                }
            }
        }
        assert!(!always.contains("clone") && applies(When::Without(Capability::SysAdmin), "", &Capabilities::new()));
    }
}
