//! Reads a seccomp profile of the caller's, in docker's form or in OCI's, and makes the rules for one container from it.
//!
//! docker's has, beyond OCI's, maps of architectures and conditions on each rule: which capabilities the container has, which
//! architecture and kernel the machine. What is not known is refused: to pass over a condition could allow what it forbids.

use oci_spec::OciSpecError;
use oci_spec::runtime::{
    Arch, Capabilities, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompBuilder, LinuxSyscall,
    LinuxSyscallBuilder,
};
use serde::Deserialize;

/// Why a profile cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ProfileError {
    /// It is no JSON, or none of the two forms.
    #[error("it is no seccomp profile of docker or OCI")]
    Json(#[from] serde_json::Error),
    /// The rules are not complete.
    #[error("its rules are not complete")]
    Rules(#[from] OciSpecError),
    /// It names a capability that there is not.
    #[error("it names {0:?}, which is no capability")]
    Capability(String),
    /// It names a kernel that cannot be compared.
    #[error("it names the kernel {0:?}, which is not MAJOR.MINOR")]
    Kernel(String),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Profile {
    default_action: LinuxSeccompAction,
    default_errno_ret: Option<u32>,
    #[serde(default)]
    arch_map: Vec<ArchMap>,
    #[serde(default)]
    architectures: Vec<Arch>,
    #[serde(default)]
    syscalls: Vec<Rule>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct ArchMap {
    architecture: Arch,
    #[serde(default)]
    sub_architectures: Vec<Arch>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Rule {
    /// The older form of `names`.
    name: Option<String>,
    #[serde(default)]
    names: Vec<String>,
    action: LinuxSeccompAction,
    errno_ret: Option<u32>,
    #[serde(default)]
    args: Option<Vec<LinuxSeccompArg>>,
    #[serde(default, rename = "comment")]
    _comment: Option<String>,
    #[serde(default)]
    includes: Conditions,
    #[serde(default)]
    excludes: Conditions,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Conditions {
    #[serde(default)]
    caps: Vec<String>,
    #[serde(default)]
    arches: Vec<String>,
    min_kernel: Option<String>,
}

/// The machine and the container that the conditions are about.
struct Scene<'a> {
    /// As docker names it.
    arch: &'a str,
    kernel: (u32, u32),
    bounding: &'a Capabilities,
}

/// Makes the rules of a profile for a process whose bounding set is `bounding`, on this machine.
///
/// # Errors
/// [`ProfileError`].
pub(crate) fn parse(text: &str, bounding: &Capabilities) -> Result<LinuxSeccomp, ProfileError> {
    let arch = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let release = nix::sys::utsname::uname().map(|name| name.release().to_string_lossy().into_owned());
    let kernel = release.ok().and_then(|release| version(&release)).unwrap_or_default();
    parse_for(text, &Scene { arch, kernel, bounding })
}

fn parse_for(text: &str, scene: &Scene<'_>) -> Result<LinuxSeccomp, ProfileError> {
    let profile: Profile = serde_json::from_str(text)?;
    let native = match scene.arch {
        "amd64" => Some(Arch::ScmpArchX86_64),
        "arm64" => Some(Arch::ScmpArchAarch64),
        _ => None,
    };
    let mapped = profile.arch_map.iter().find(|map| Some(map.architecture) == native);
    let architectures = match mapped {
        Some(map) => std::iter::once(map.architecture).chain(map.sub_architectures.iter().copied()).collect(),
        None => profile.architectures,
    };
    let mut rules = Vec::new();
    for rule in profile.syscalls {
        if let Some(made) = rule.for_scene(scene)? {
            rules.push(made);
        }
    }
    let made = LinuxSeccompBuilder::default().default_action(profile.default_action).syscalls(rules);
    let made = if architectures.is_empty() { made } else { made.architectures(architectures) };
    let made = match profile.default_errno_ret {
        Some(errno) => made.default_errno_ret(errno),
        None => made,
    };
    Ok(made.build()?)
}

impl Rule {
    /// Returns the rule without its conditions; `None` where they do not hold.
    fn for_scene(self, scene: &Scene<'_>) -> Result<Option<LinuxSyscall>, ProfileError> {
        if !self.includes.hold(scene)? || self.excludes.forbid(scene)? {
            return Ok(None);
        }
        let names: Vec<String> = self.names.into_iter().chain(self.name).collect();
        let rule = LinuxSyscallBuilder::default().names(names).action(self.action);
        let rule = match self.errno_ret {
            Some(errno) => rule.errno_ret(errno),
            None => rule,
        };
        let rule = match self.args {
            Some(args) if !args.is_empty() => rule.args(args),
            _ => rule,
        };
        Ok(Some(rule.build()?))
    }
}

impl Conditions {
    /// Tells whether all of them hold.
    fn hold(&self, scene: &Scene<'_>) -> Result<bool, ProfileError> {
        let has_all = self.caps.iter().map(|name| has(scene, name)).collect::<Result<Vec<_>, _>>()?;
        let is_arch = self.arches.is_empty() || self.arches.iter().any(|arch| arch == scene.arch);
        Ok(is_arch && has_all.into_iter().all(|has| has) && self.is_kernel(scene, true)?)
    }

    /// Tells whether any of them holds.
    fn forbid(&self, scene: &Scene<'_>) -> Result<bool, ProfileError> {
        let has_any = self.caps.iter().map(|name| has(scene, name)).collect::<Result<Vec<_>, _>>()?;
        let is_arch = self.arches.iter().any(|arch| arch == scene.arch);
        Ok(is_arch || has_any.into_iter().any(|has| has) || self.is_kernel(scene, false)?)
    }

    fn is_kernel(&self, scene: &Scene<'_>, without: bool) -> Result<bool, ProfileError> {
        let Some(text) = &self.min_kernel else { return Ok(without) };
        let least = version(text).ok_or_else(|| ProfileError::Kernel(text.clone()))?;
        Ok(scene.kernel >= least)
    }
}

fn has(scene: &Scene<'_>, name: &str) -> Result<bool, ProfileError> {
    let bare = name.strip_prefix("CAP_").unwrap_or(name);
    let capability = bare.parse().map_err(|_| ProfileError::Capability(name.to_owned()))?;
    Ok(scene.bounding.contains(&capability))
}

/// Returns the first two numbers of a release.
fn version(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use oci_spec::runtime::Capability;

    const DOCKERS: &str = r#"{
        "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 1,
        "archMap": [
            {"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86", "SCMP_ARCH_X32"]},
            {"architecture": "SCMP_ARCH_AARCH64", "subArchitectures": ["SCMP_ARCH_ARM"]}
        ],
        "syscalls": [
            {"names": ["read", "write"], "action": "SCMP_ACT_ALLOW"},
            {"names": ["ptrace"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "4.8"}},
            {"names": ["mount"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_SYS_ADMIN"]}},
            {"names": ["clone"], "action": "SCMP_ACT_ALLOW", "excludes": {"caps": ["CAP_SYS_ADMIN"], "arches": ["s390"]},
             "args": [{"index": 0, "value": 2114060288, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}]},
            {"names": ["arch_prctl"], "action": "SCMP_ACT_ALLOW", "includes": {"arches": ["amd64", "x32"]}}
        ]
    }"#;

    fn names(made: &LinuxSeccomp) -> Vec<String> {
        made.syscalls().iter().flatten().flat_map(|rule| rule.names().clone()).collect()
    }

    #[test]
    fn the_conditions_of_dockers_form_hold_for_this_container_on_this_machine() {
        let none = Capabilities::new();
        let plain = parse_for(DOCKERS, &Scene { arch: "amd64", kernel: (6, 1), bounding: &none }).expect("valid");
        assert_eq!(names(&plain), ["read", "write", "ptrace", "clone", "arch_prctl"]);
        assert_eq!(plain.architectures().as_ref().map(Vec::len), Some(3));
        assert_eq!(plain.default_errno_ret(), Some(1));
        let admin = Capabilities::from([Capability::SysAdmin]);
        let admin = parse_for(DOCKERS, &Scene { arch: "arm64", kernel: (4, 4), bounding: &admin }).expect("valid");
        assert_eq!(names(&admin), ["read", "write", "mount"]);
        assert_eq!(admin.architectures().as_ref().map(Vec::len), Some(2));
    }

    #[test]
    fn what_is_not_known_is_refused() {
        let none = Capabilities::new();
        let scene = Scene { arch: "amd64", kernel: (6, 1), bounding: &none };
        let plain = r#"{"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64"]}"#;
        assert!(parse_for(plain, &scene).is_ok());
        for bad in [
            "",
            "{}",
            r#"{"defaultAction": "SCMP_ACT_MAYBE"}"#,
            r#"{"defaultAction": "SCMP_ACT_ALLOW", "later": 1}"#,
            r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["x"], "action": "SCMP_ACT_KILL", "includes": {"caps": ["CAP_NO"]}}]}"#,
            r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["x"], "action": "SCMP_ACT_KILL", "includes": {"later": []}}]}"#,
            r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["x"], "action": "SCMP_ACT_KILL", "includes": {"minKernel": "new"}}]}"#,
        ] {
            assert!(parse_for(bad, &scene).is_err(), "{bad}");
        }
    }
}
