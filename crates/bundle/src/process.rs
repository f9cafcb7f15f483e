//! The `process` section: command, environment, and rights of the first process.

use std::collections::HashSet;

use contd_types::{ContainerSpec, Entrypoint};
use oci_spec::OciSpecError;
use oci_spec::runtime::{
    Capabilities, Capability, LinuxCapabilitiesBuilder, PosixRlimitBuilder, PosixRlimitType, Process, ProcessBuilder,
    UserBuilder,
};

use crate::error::BundleError;
use crate::nofile;
use crate::program;
use crate::request::BundleRequest;
use crate::user::{self, Identity};

/// The `PATH` of a container whose image and spec give none.
pub const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

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
    let identity = user::look_up(request.root, spec.user.as_ref())?;
    let env = env(spec, &identity.home);
    program::check_readable(request, &args, &env)?;
    let failed = |source| BundleError::Assemble { name: spec.name.to_string(), source };
    let mut process = assemble(spec, args, env, &identity).map_err(failed)?;
    process.set_oom_score_adj(request.defaults.oom_score_adj);
    Ok(process)
}

fn assemble(
    spec: &ContainerSpec,
    args: Vec<String>,
    env: Vec<String>,
    identity: &Identity,
) -> Result<Process, OciSpecError> {
    let granted = capabilities(spec.is_elevated);
    let none = Capabilities::new();
    // The inheritable and ambient sets stay empty: only root, or a file with capabilities, gains any by an exec.
    let capabilities = LinuxCapabilitiesBuilder::default()
        .bounding(granted.clone())
        .effective(granted.clone())
        .permitted(granted)
        .inheritable(none.clone())
        .ambient(none)
        .build()?;
    let nofile = nofile::limit();
    let rlimit = PosixRlimitBuilder::default().typ(PosixRlimitType::RlimitNofile).hard(nofile).soft(nofile).build()?;
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
        .rlimits(vec![rlimit])
        .no_new_privileges(true)
        .build()
}

/// Returns the bounding, effective and permitted set, which are the same.
pub(crate) fn capabilities(is_elevated: bool) -> Capabilities {
    let mut granted: Capabilities = DEFAULT_CAPABILITIES.into_iter().collect();
    if is_elevated {
        granted.insert(Capability::SysAdmin);
    }
    granted
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
