//! `process`: of a container, or of an exec in one.

use super::capabilities;
use crate::config::{Process, Rlimit};
use crate::fault::Fault;
use crate::plan::{FdIndex, ProcessPlan};
use crate::seccomp::Program;

/// The names by number: asm-generic/resource.h.
const RLIMITS: [&str; 16] = [
    "RLIMIT_CPU",
    "RLIMIT_FSIZE",
    "RLIMIT_DATA",
    "RLIMIT_STACK",
    "RLIMIT_CORE",
    "RLIMIT_RSS",
    "RLIMIT_NPROC",
    "RLIMIT_NOFILE",
    "RLIMIT_MEMLOCK",
    "RLIMIT_AS",
    "RLIMIT_LOCKS",
    "RLIMIT_SIGPENDING",
    "RLIMIT_MSGQUEUE",
    "RLIMIT_NICE",
    "RLIMIT_RTPRIO",
    "RLIMIT_RTTIME",
];

/// Makes the plan of a process.
///
/// # Errors
/// [`Fault`] with the field.
pub fn process(
    config: &Process,
    stdio: [FdIndex; 3],
    seccomp: Option<Program>,
    personality: Option<u64>,
) -> Result<ProcessPlan, Fault> {
    let args = config.args.clone().unwrap_or_default();
    if args.is_empty() {
        return Err(Fault::invalid("process.args", "there is no program"));
    }
    if !config.cwd.starts_with('/') {
        return Err(Fault::invalid("process.cwd", format!("{:?} is not absolute", config.cwd)));
    }
    let env = config.env.clone().unwrap_or_default();
    if let Some(pair) = env.iter().find(|pair| !pair.contains('=') || pair.starts_with('=')) {
        return Err(Fault::invalid("process.env", format!("{pair:?} is not NAME=value")));
    }
    Ok(ProcessPlan {
        args,
        env,
        cwd: config.cwd.clone(),
        uid: config.user.uid,
        gid: config.user.gid,
        additional_gids: config.user.additional_gids.clone().unwrap_or_default(),
        umask: config.user.umask,
        capabilities: capabilities::sets(config.capabilities.as_ref())?,
        no_new_privileges: config.no_new_privileges,
        rlimits: rlimits(config.rlimits.as_deref().unwrap_or_default())?,
        personality,
        seccomp,
        stdio,
    })
}

fn rlimits(configs: &[Rlimit]) -> Result<Vec<(u32, u64, u64)>, Fault> {
    let mut found: Vec<(u32, u64, u64)> = Vec::with_capacity(configs.len());
    for (index, Rlimit { kind, soft, hard }) in configs.iter().enumerate() {
        let invalid = |what: String| Fault::invalid(format!("process.rlimits[{index}]"), what);
        let number = (0..).zip(RLIMITS).find(|(_, name)| *name == kind.as_str()).map(|(number, _)| number);
        let number = number.ok_or_else(|| invalid(format!("{kind:?} is no resource limit")))?;
        if found.iter().any(|(known, _, _)| *known == number) {
            return Err(invalid(format!("{kind} is there twice")));
        }
        if soft > hard {
            return Err(invalid(format!("the soft limit {soft} of {kind} is above the hard one, {hard}")));
        }
        found.push((number, *soft, *hard));
    }
    Ok(found)
}

/// Reads `linux.personality.domain`.
pub(super) fn personality(domain: &str) -> Result<u64, Fault> {
    match domain {
        "LINUX" => Ok(0),
        "LINUX32" => Ok(8),
        other => Err(Fault::invalid("linux.personality.domain", format!("{other:?} is neither LINUX nor LINUX32"))),
    }
}
