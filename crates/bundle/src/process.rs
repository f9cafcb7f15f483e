//! The `process` section: command, environment, and rights of the first process.

use std::collections::{BTreeSet, HashSet};

use contd_types::{Capability as Name, ContainerSpec, Entrypoint, Rights, Ulimit, UlimitKind};
use oci_spec::OciSpecError;
use oci_spec::runtime::{
    Capabilities, Capability, LinuxCapabilitiesBuilder, PosixRlimit, PosixRlimitBuilder, PosixRlimitType, Process,
    ProcessBuilder, UserBuilder,
};

use crate::error::BundleError;
use crate::nofile;
use crate::program;
use crate::request::BundleRequest;
use crate::user::{self, Identity};

/// The `PATH` of a container whose image and spec give none.
pub const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// `RLIM_INFINITY`.
const NO_LIMIT: u64 = u64::MAX;
/// The `TERM` of a container with a terminal, as docker and podman set it.
const DEFAULT_TERM: &str = "xterm";

/// The capabilities of root in a container: the fourteen of containerd (`oci.defaultUnixCaps`).
pub(crate) const DEFAULT_CAPABILITIES: [Capability; 14] = [
    Capability::Chown,
    Capability::DacOverride,
    Capability::Fsetid,
    Capability::Fowner,
    Capability::Mknod,
    Capability::NetRaw,
    Capability::Setgid,
    Capability::Setuid,
    Capability::Setfcap,
    Capability::Setpcap,
    Capability::NetBindService,
    Capability::SysChroot,
    Capability::Kill,
    Capability::AuditWrite,
];

/// Makes the process section.
pub(crate) fn process(request: &BundleRequest<'_>) -> Result<Process, BundleError> {
    let spec = request.spec;
    let args = args(spec)?;
    let mut identity = user::look_up(request.root, spec.user.as_ref())?;
    user::add_groups(request.root, &mut identity, &spec.rights.additional_groups)?;
    let env = env(spec, &identity.home);
    program::check_readable(request, &args, &env)?;
    let failed = |source| BundleError::Assemble { name: spec.name.to_string(), source };
    let mut process = assemble(spec, args, env, &identity).map_err(failed)?;
    process.set_oom_score_adj(spec.rights.oom_score_adj.map(i32::from).or(request.defaults.oom_score_adj));
    Ok(process)
}

fn assemble(
    spec: &ContainerSpec,
    args: Vec<String>,
    env: Vec<String>,
    identity: &Identity,
) -> Result<Process, OciSpecError> {
    let granted = capabilities(spec);
    let none = Capabilities::new();
    // The inheritable and ambient sets stay empty: only root, or a file with capabilities, gains any by an exec.
    let capabilities = LinuxCapabilitiesBuilder::default()
        .bounding(granted.clone())
        .effective(granted.clone())
        .permitted(granted)
        .inheritable(none.clone())
        .ambient(none)
        .build()?;
    ProcessBuilder::default()
        .terminal(spec.has_terminal)
        .user(
            UserBuilder::default()
                .uid(identity.uid)
                .gid(identity.gid)
                .additional_gids(identity.groups.clone())
                .build()?,
        )
        .args(args)
        .env(env)
        .cwd(spec.working_dir.as_deref().unwrap_or("/"))
        .capabilities(capabilities)
        .rlimits(rlimits(spec)?)
        .no_new_privileges(!(spec.rights.may_gain_privileges || spec.rights.is_privileged))
        .build()
}

/// Makes the limits of a process: the caller's, and that of open files, which every container has.
fn rlimits(spec: &ContainerSpec) -> Result<Vec<PosixRlimit>, OciSpecError> {
    let make = |kind: UlimitKind, soft: u64, hard: u64| {
        PosixRlimitBuilder::default().typ(rlimit_type(kind)).soft(soft).hard(hard).build()
    };
    let own = spec
        .rights
        .ulimits
        .iter()
        .map(|(kind, Ulimit { soft, hard })| make(*kind, soft.unwrap_or(NO_LIMIT), hard.unwrap_or(NO_LIMIT)));
    let mut limits: Vec<PosixRlimit> = own.collect::<Result<_, _>>()?;
    if !spec.rights.ulimits.contains_key(&UlimitKind::Nofile) {
        let most = nofile::limit();
        limits.push(make(UlimitKind::Nofile, most, most)?);
    }
    Ok(limits)
}

fn rlimit_type(kind: UlimitKind) -> PosixRlimitType {
    match kind {
        UlimitKind::As => PosixRlimitType::RlimitAs,
        UlimitKind::Core => PosixRlimitType::RlimitCore,
        UlimitKind::Cpu => PosixRlimitType::RlimitCpu,
        UlimitKind::Data => PosixRlimitType::RlimitData,
        UlimitKind::Fsize => PosixRlimitType::RlimitFsize,
        UlimitKind::Locks => PosixRlimitType::RlimitLocks,
        UlimitKind::Memlock => PosixRlimitType::RlimitMemlock,
        UlimitKind::Msgqueue => PosixRlimitType::RlimitMsgqueue,
        UlimitKind::Nice => PosixRlimitType::RlimitNice,
        UlimitKind::Nofile => PosixRlimitType::RlimitNofile,
        UlimitKind::Nproc => PosixRlimitType::RlimitNproc,
        UlimitKind::Rss => PosixRlimitType::RlimitRss,
        UlimitKind::Rtprio => PosixRlimitType::RlimitRtprio,
        UlimitKind::Rttime => PosixRlimitType::RlimitRttime,
        UlimitKind::Sigpending => PosixRlimitType::RlimitSigpending,
        UlimitKind::Stack => PosixRlimitType::RlimitStack,
    }
}

/// Returns the bounding, effective and permitted set, which are the same: of the defaults, or of all for a privileged container,
/// what is not dropped, and what is added. What is named alone counts more than `ALL`.
pub(crate) fn capabilities(spec: &ContainerSpec) -> Capabilities {
    let Rights { cap_add, cap_drop, is_privileged, .. } = &spec.rights;
    let (adds_all, drops_all) = (cap_add.iter().any(Name::is_all), cap_drop.iter().any(Name::is_all));
    let has = |set: &BTreeSet<Name>, capability: &Capability| {
        set.iter().any(|name| of_name(name.as_str()) == Some(*capability))
    };
    let is_default = |capability: &Capability| {
        DEFAULT_CAPABILITIES.contains(capability) || (spec.is_elevated && *capability == Capability::SysAdmin)
    };
    let known = on_this_kernel();
    let all =
        Name::names().filter_map(of_name).filter(|capability| known.is_none_or(|last| number(*capability) <= last));
    all.filter(|capability| {
        let base = *is_privileged || adds_all || (is_default(capability) && !drops_all);
        has(cap_add, capability) || (base && !has(cap_drop, capability))
    })
    .collect()
}

/// Returns the capability of a name without `CAP_`.
fn of_name(name: &str) -> Option<Capability> {
    name.parse().ok()
}

/// Returns the kernel's number of a capability.
fn number(capability: Capability) -> usize {
    Name::names().position(|name| of_name(name) == Some(capability)).unwrap_or(usize::MAX)
}

/// Returns the last capability that this kernel knows: a runtime refuses those behind it.
fn on_this_kernel() -> Option<usize> {
    std::fs::read_to_string("/proc/sys/kernel/cap_last_cap").ok()?.trim().parse().ok()
}

/// Returns program and arguments.
pub(crate) fn args(spec: &ContainerSpec) -> Result<Vec<String>, BundleError> {
    let name = || spec.name.to_string();
    let args = match &spec.entrypoint {
        None => return Err(BundleError::MissingEntrypoint { name: name() }),
        Some(Entrypoint::Args(args) | Entrypoint::Exact(args)) => args.clone(),
        Some(Entrypoint::Line(line)) => {
            shlex::split(line).ok_or_else(|| BundleError::UnbalancedEntrypoint { name: name() })?
        }
    };
    // A line of only a comment or empty quotes has no program either.
    match args.first() {
        Some(program) if !program.is_empty() => Ok(args),
        _ => Err(BundleError::MissingEntrypoint { name: name() }),
    }
}

/// Returns the environment: the last value of each key counts; then `PATH`, `HOME` and, with a terminal, `TERM` are added if missing.
fn env(spec: &ContainerSpec, home: &str) -> Vec<String> {
    let mut seen = HashSet::new();
    let mut env: Vec<String> = spec.env.iter().rev().filter(|entry| seen.insert(key(entry))).cloned().collect();
    env.reverse();
    if !seen.contains("PATH") {
        env.push(format!("PATH={DEFAULT_PATH}"));
    }
    if !seen.contains("HOME") {
        env.push(format!("HOME={home}"));
    }
    if spec.has_terminal && !seen.contains("TERM") {
        env.push(format!("TERM={DEFAULT_TERM}"));
    }
    env
}

fn key(entry: &str) -> &str {
    entry.split_once('=').map_or(entry, |(key, _)| key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use contd_types::ContainerName;

    fn spec() -> ContainerSpec {
        ContainerSpec::new(ContainerName::new("web").expect("valid"), "/x.fl")
    }

    fn args_of(line: &str) -> Result<Vec<String>, BundleError> {
        args(&ContainerSpec { entrypoint: Some(Entrypoint::Line(line.into())), ..spec() })
    }

    #[test]
    fn a_line_is_split_by_the_shells_rules_and_never_expanded() {
        let split = args_of(r#"sh -c 'echo "a  b" $HOME' x\ y "q'q" ''"#).expect("valid");
        assert_eq!(split, ["sh", "-c", r#"echo "a  b" $HOME"#, "x y", "q'q", ""]);
    }

    #[test]
    fn arguments_given_one_by_one_stay_as_they_are() {
        let given = vec!["sh".to_owned(), "'a b".to_owned(), String::new()];
        let kept = args(&ContainerSpec { entrypoint: Some(Entrypoint::Args(given.clone())), ..spec() });
        assert_eq!(kept.expect("valid"), given);
    }

    #[test]
    fn an_open_quote_is_refused() {
        for line in ["sh -c 'x", "sh \"", "sh \\"] {
            assert!(matches!(args_of(line), Err(BundleError::UnbalancedEntrypoint { .. })), "{line:?}");
        }
    }

    #[test]
    fn nothing_to_run_is_a_missing_entrypoint() {
        for line in ["''", "# only a comment"] {
            assert!(matches!(args_of(line), Err(BundleError::MissingEntrypoint { .. })), "{line:?}");
        }
        assert!(matches!(args(&spec()), Err(BundleError::MissingEntrypoint { .. })));
    }

    #[test]
    fn of_a_key_given_twice_the_later_value_stays_in_its_place() {
        let given = ["A=1", "B=2", "A=3", "PATH=/x", "C=a=b"].map(str::to_owned).to_vec();
        let made = env(&ContainerSpec { env: given, ..spec() }, "/root");
        assert_eq!(made, ["B=2", "A=3", "PATH=/x", "C=a=b", "HOME=/root"]);
    }

    #[test]
    fn path_and_home_are_added_only_where_they_are_missing() {
        let path = format!("PATH={DEFAULT_PATH}");
        assert_eq!(env(&spec(), "/srv"), [path, "HOME=/srv".to_owned()]);
        let given = ["HOME=".to_owned(), "PATHS=x".to_owned()].to_vec();
        let made = env(&ContainerSpec { env: given, ..spec() }, "/srv");
        assert!(made.contains(&"HOME=".to_owned()) && !made.contains(&"HOME=/srv".to_owned()), "{made:?}");
        assert!(made.iter().any(|entry| entry.starts_with("PATH=")), "{made:?}");
    }
}
