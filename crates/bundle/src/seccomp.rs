//! From the profile's data to the rules for one container.

use oci_spec::OciSpecError;
use oci_spec::runtime::{
    Arch, Capabilities, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompArgBuilder, LinuxSeccompBuilder,
    LinuxSyscall, LinuxSyscallBuilder,
};

use crate::profile::{Action, Condition, GROUPS, Group, When};

/// Makes the profile for a process whose bounding set is `bounding`, on this machine.
pub(crate) fn profile(bounding: &Capabilities) -> Result<LinuxSeccomp, OciSpecError> {
    profile_for(std::env::consts::ARCH, bounding)
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

/// Returns the calling conventions that the filter covers; a call by any other is refused by the kernel.
fn architectures(arch: &str) -> Vec<Arch> {
    match arch {
        "x86_64" => vec![Arch::ScmpArchX86_64, Arch::ScmpArchX86, Arch::ScmpArchX32],
        "aarch64" => vec![Arch::ScmpArchAarch64, Arch::ScmpArchArm],
        // The machine's own one.
        _ => Vec::new(),
    }
}
