//! Containers as JSON: flat, with friendly names. Programs rely on these fields; add, never rename.

use std::borrow::Cow;
use std::collections::BTreeMap;

use contd_types::{
    ContainerInfo, ContainerSummary, Entrypoint, ExecInfo, Exit, ExitCause, ExitSource, LayerKind, MountSpec,
    NameService, Network, Propagation, Resources, Rights, State, Timestamp,
};
use serde::Serialize;

/// The meaning of `inspect`'s fields; shown by its help.
pub(crate) const FIELDS_HELP: &str = "\
Fields: id, name, namespace; status (creating, created, starting, running, paused, stopping, stopped, backoff, failed,
recovering, deleting); pid (null unless it runs); exit_code (in a shell's form; null unless it has ended); exit (code or
signal, at, oom_kills, known_by); last_exit (also of the run before); failure (step and reason); lingering (why a deleted
container is not gone yet); created, started, finished (RFC 3339); restart_count, restart_attempt, restart_at; log_path;
flist, tags, labels; command (list, or one line); env, network (none, or ns:NAME), mounts, working_dir, user;
memory_bytes, cpus, pids_limit, layer, rootfs_size_bytes (null without a limit), open_files (the values in force: the
container's own, or the node's default when it was made); runtime; upper_dir, read_only, elevated, rootfs_propagation,
restart, stop_signal, stop_timeout_seconds, auto_remove; interactive (standard input is open), tty; hostname, names (hosts,
servers, search, options), rights (capabilities, devices, sysctls, ulimits, seccomp and others that were asked for), resources (shares and limits beyond
these), annotations, log_max_bytes, log_max_files; execs (id, pid, command, tty, started of each executed process
that has not ended; null when its shim does not say).";

/// Everything about a container.
#[derive(Debug, Serialize)]
pub(crate) struct ContainerView<'a> {
    id: &'a str,
    name: &'a str,
    namespace: &'a str,
    status: String,
    pid: Option<i32>,
    exit_code: Option<u8>,
    exit: Option<ExitView<'a>>,
    last_exit: Option<ExitView<'a>>,
    failure: Option<FailureView<'a>>,
    lingering: Option<&'a str>,
    created: String,
    started: Option<String>,
    finished: Option<String>,
    restart_count: u32,
    restart_attempt: Option<u32>,
    restart_at: Option<String>,
    log_path: &'a str,
    flist: &'a str,
    tags: &'a [String],
    labels: &'a BTreeMap<String, String>,
    command: Option<CommandView<'a>>,
    env: &'a [String],
    network: String,
    mounts: Vec<MountView<'a>>,
    working_dir: Option<&'a str>,
    user: Option<String>,
    memory_bytes: Option<u64>,
    cpus: Option<f64>,
    pids_limit: Option<u32>,
    rootfs_size_bytes: Option<u64>,
    layer: Option<LayerKind>,
    open_files: Option<u64>,
    runtime: Option<&'a str>,
    upper_dir: Option<&'a str>,
    read_only: bool,
    elevated: bool,
    rootfs_propagation: &'static str,
    restart: String,
    stop_signal: Option<String>,
    stop_timeout_seconds: Option<f64>,
    auto_remove: bool,
    interactive: bool,
    tty: bool,
    hostname: Option<&'a str>,
    names: &'a NameService,
    rights: &'a Rights,
    resources: &'a Resources,
    annotations: &'a BTreeMap<String, String>,
    log_max_bytes: Option<u64>,
    log_max_files: Option<u32>,
}

/// Everything about a container and its executed processes.
#[derive(Debug, Serialize)]
pub(crate) struct InspectView<'a> {
    #[serde(flatten)]
    container: ContainerView<'a>,
    execs: Option<Vec<ExecView<'a>>>,
}

#[derive(Debug, Serialize)]
struct ExecView<'a> {
    id: String,
    pid: i32,
    command: &'a [String],
    tty: bool,
    started: String,
}

impl<'a> InspectView<'a> {
    /// Joins both; `execs` is `None` when they are not known.
    pub(crate) fn of(info: &'a ContainerInfo, execs: Option<&'a [ExecInfo]>) -> Self {
        let view = |exec: &'a ExecInfo| ExecView {
            id: exec.exec.to_string(),
            pid: exec.pid.0,
            command: &exec.args,
            tty: exec.has_terminal,
            started: exec.since.to_string(),
        };
        Self { container: info.into(), execs: execs.map(|execs| execs.iter().map(view).collect()) }
    }
}

/// One line of `ps --format json`: a part of [`ContainerView`], with the same names.
#[derive(Debug, Serialize)]
pub(crate) struct SummaryView<'a> {
    id: &'a str,
    name: &'a str,
    namespace: &'a str,
    status: String,
    pid: Option<i32>,
    exit_code: Option<u8>,
    lingering: Option<&'a str>,
    flist: &'a str,
    created: String,
    started: Option<String>,
    restart_count: u32,
    tags: &'a [String],
    labels: &'a BTreeMap<String, String>,
    command: Option<CommandView<'a>>,
}

/// The end of a run.
#[derive(Debug, Serialize)]
pub(crate) struct ExitView<'a> {
    code: Option<u8>,
    signal: Option<String>,
    reason: Option<&'a str>,
    shell_code: u8,
    at: String,
    oom_kills: u64,
    known_by: &'static str,
    output_complete: bool,
}

#[derive(Debug, Serialize)]
struct FailureView<'a> {
    step: String,
    reason: &'a str,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
enum CommandView<'a> {
    Line(&'a str),
    Args(&'a [String]),
}

#[derive(Debug, Serialize)]
struct MountView<'a> {
    source: &'a str,
    target: &'a str,
    #[serde(rename = "type")]
    fs_type: &'a str,
    options: &'a [String],
}

impl<'a> From<&'a ContainerInfo> for ContainerView<'a> {
    fn from(info: &'a ContainerInfo) -> Self {
        let (spec, state, in_force) = (&info.spec, &info.state, info.in_force.as_ref());
        let (restart_attempt, restart_at) = match state {
            State::Backoff { attempt, until, .. } => (Some(*attempt), Some(until.to_string())),
            _ => (None, None),
        };
        let failure = match state {
            State::Failed { step, reason } => Some(FailureView { step: step.to_string(), reason }),
            _ => None,
        };
        Self {
            id: info.id.as_str(),
            name: spec.name.as_str(),
            namespace: info.namespace.as_str(),
            status: state.name().to_string(),
            pid: state.pid().map(|pid| pid.0),
            exit_code: state.exit().map(Exit::shell_code),
            exit: state.exit().map(ExitView::from),
            last_exit: info.last_exit.as_ref().map(ExitView::from),
            failure,
            lingering: lingering(state),
            created: info.created_at.to_string(),
            started: time(info.started_at),
            finished: time(info.finished_at),
            restart_count: info.restart_count,
            restart_attempt,
            restart_at,
            log_path: &info.log_path,
            flist: &spec.flist,
            tags: &spec.tags,
            labels: &spec.labels,
            command: spec.entrypoint.as_ref().map(CommandView::from),
            env: &spec.env,
            network: network(&spec.network),
            mounts: spec.mounts.iter().map(MountView::from).collect(),
            working_dir: spec.working_dir.as_deref(),
            user: spec.user.as_ref().map(ToString::to_string),
            memory_bytes: in_force.map(|limits| limits.memory_bytes).or(spec.memory_bytes),
            cpus: in_force.map(|limits| limits.cpu).or(spec.cpu).map(|cpu| f64::from(cpu.millis()) / 1000.0),
            pids_limit: in_force.map(|limits| limits.pids_limit).or(spec.pids_limit),
            rootfs_size_bytes: in_force.map_or(spec.rootfs_size_bytes, |limits| limits.rootfs_size_bytes),
            layer: in_force.map_or(spec.layer, |limits| limits.layer),
            open_files: in_force.and_then(|limits| limits.open_files),
            runtime: in_force.map(|made| made.runtime.as_str()).or(spec.runtime.as_deref()),
            upper_dir: spec.upper_dir.as_deref(),
            read_only: spec.is_read_only,
            elevated: spec.is_elevated,
            rootfs_propagation: propagation(spec.rootfs_propagation),
            restart: spec.restart.to_string(),
            stop_signal: spec.stop_signal.map(|signal| signal.to_string()),
            stop_timeout_seconds: spec.shutdown_timeout.map(|timeout| timeout.as_secs_f64()),
            auto_remove: spec.is_auto_removed,
            interactive: spec.is_interactive,
            tty: spec.has_terminal,
            hostname: spec.hostname.as_deref(),
            names: &spec.names,
            rights: &spec.rights,
            resources: &spec.resources,
            annotations: &spec.annotations,
            log_max_bytes: spec.log_max_bytes,
            log_max_files: spec.log_max_files,
        }
    }
}

impl<'a> From<&'a ContainerSummary> for SummaryView<'a> {
    fn from(summary: &'a ContainerSummary) -> Self {
        Self {
            id: summary.id.as_str(),
            name: summary.name.as_str(),
            namespace: summary.namespace.as_str(),
            status: summary.state.name().to_string(),
            pid: summary.state.pid().map(|pid| pid.0),
            exit_code: summary.state.exit().map(Exit::shell_code),
            lingering: lingering(&summary.state),
            flist: &summary.flist,
            created: summary.created_at.to_string(),
            started: time(summary.started_at),
            restart_count: summary.restart_count,
            tags: &summary.tags,
            labels: &summary.labels,
            command: summary.entrypoint.as_ref().map(CommandView::from),
        }
    }
}

impl<'a> From<&'a Exit> for ExitView<'a> {
    fn from(exit: &'a Exit) -> Self {
        let (code, signal, reason) = match &exit.cause {
            ExitCause::Code(code) => (Some(*code), None, None),
            ExitCause::Signal(signal) => (None, Some(signal.to_string()), None),
            ExitCause::Reboot => (None, None, Some("reboot")),
            ExitCause::Unknown(reason) => (None, None, Some(reason.as_str())),
        };
        let known_by = match exit.source {
            ExitSource::Reaped => "reaped",
            ExitSource::Pidfd => "pidfd",
            ExitSource::BootId => "boot_id",
            ExitSource::Unknown => "unknown",
        };
        Self {
            code,
            signal,
            reason,
            shell_code: exit.shell_code(),
            at: exit.at.to_string(),
            oom_kills: exit.oom_kills,
            known_by,
            output_complete: exit.is_drained,
        }
    }
}

impl<'a> From<&'a Entrypoint> for CommandView<'a> {
    fn from(entrypoint: &'a Entrypoint) -> Self {
        match entrypoint {
            Entrypoint::Line(line) => Self::Line(line),
            Entrypoint::Args(args) | Entrypoint::Exact(args) => Self::Args(args),
        }
    }
}

impl<'a> From<&'a MountSpec> for MountView<'a> {
    fn from(mount: &'a MountSpec) -> Self {
        Self { source: &mount.source, target: &mount.target, fs_type: &mount.fs_type, options: &mount.options }
    }
}

/// Returns a command as one line, in the form of a shell.
pub(crate) fn command_line(entrypoint: &Entrypoint) -> String {
    match entrypoint {
        Entrypoint::Line(line) => line.clone(),
        Entrypoint::Args(args) | Entrypoint::Exact(args) => {
            let words: Vec<Cow<'_, str>> =
                args.iter().map(|word| shlex::try_quote(word).unwrap_or(Cow::Borrowed(word.as_str()))).collect();
            words.join(" ")
        }
    }
}

fn lingering(state: &State) -> Option<&str> {
    match state {
        State::Lingering { reason } => Some(reason),
        _ => None,
    }
}

fn time(at: Option<Timestamp>) -> Option<String> {
    at.map(|at| at.to_string())
}

fn network(network: &Network) -> String {
    match network {
        Network::Private => "none".to_owned(),
        Network::Named(name) => format!("ns:{name}"),
    }
}

fn propagation(propagation: Propagation) -> &'static str {
    match propagation {
        Propagation::Private => "private",
        Propagation::Slave => "slave",
        Propagation::Shared => "shared",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::tests::samples;

    #[test]
    fn the_help_names_every_field_of_inspect() {
        let info = samples::running();
        let execs = [ExecInfo {
            exec: contd_types::ExecId::from_random(1),
            pid: contd_types::Pid(7),
            args: Vec::new(),
            has_terminal: false,
            since: Timestamp(0),
        }];
        let value = serde_json::to_value(InspectView::of(&info, Some(&execs))).expect("serializes");
        let exec = value["execs"][0].as_object().expect("an object").keys();
        for field in value.as_object().expect("an object").keys().chain(exec) {
            let is_named = FIELDS_HELP.split(|c: char| !(c.is_alphanumeric() || c == '_')).any(|word| word == field);
            assert!(is_named, "{field} is missing");
        }
    }

    #[test]
    fn a_line_of_ps_has_the_fields_of_inspect() {
        let info = samples::running();
        let full = serde_json::to_value(ContainerView::from(&info)).expect("serializes");
        let line = serde_json::to_value(SummaryView::from(&ContainerSummary::from(&info))).expect("serializes");
        for (field, value) in line.as_object().expect("an object") {
            assert_eq!(full.get(field), Some(value), "{field}");
        }
    }
}
