//! The command line's grammar, for clap.

use std::path::PathBuf;

use clap::CommandFactory as _;
use clap::builder::{OsStringValueParser, TypedValueParser};
use clap_complete::ArgValueCandidates;
use contd_types::NamespaceId;

use crate::cli::completion::containers;

use crate::cli::parse;
use crate::cli::run_args::RunArgs;
use crate::config::DaemonArgs;

/// The help text on exit codes of the verbs without one of their own.
const CODES: &str =
    "Exit codes: 0; 1 for an error; 2 for wrong usage. run, create, exec and doctor have others: see their --help.";
/// The help text on the exit codes of `run`.
const RUN_CODES: &str = "Exit codes: the container's own; 125 contd failed, or wrong usage; 126 the entrypoint cannot be \
    executed; 127 it does not exist; 128+n ended by signal n.";
/// The help text on the exit codes of `exec`.
const EXEC_CODES: &str = "Exit codes: the process's own; 125 contd failed, or wrong usage; 126 the command cannot be \
    executed; 127 it does not exist; 128+n ended by signal n.";
/// The help text on the exit codes of `create`.
const CREATE_CODES: &str = "Exit codes: 0 the container is made; 125 contd failed, or wrong usage; 126 the entrypoint cannot be executed; \
    127 it does not exist.";

/// Runs containers from flists and keeps them running
#[derive(Debug, Clone, clap::Parser)]
#[command(name = "contd", version, about, disable_help_subcommand = true, max_term_width = 100)]
// If a flag is given twice the last one counts, as with docker and podman: scripts append theirs.
#[command(args_override_self = true, after_help = CODES)]
pub(crate) struct Cli {
    /// The daemon's socket [default: /run/contd/contd.sock]
    #[arg(long, global = true, value_name = "SOCKET", env = "CONTD_ADDRESS", hide_env_values = true)]
    #[arg(value_parser = OsStringValueParser::new().try_map(|text| contd_node::parse_address(&text)))]
    pub(crate) address: Option<PathBuf>,
    /// The namespace; -n stands before the verb
    #[arg(short, long, global = true, value_name = "NS", env = "CONTD_NAMESPACE", hide_env_values = true)]
    #[arg(default_value = "default", value_parser = parse::namespace)]
    pub(crate) namespace: NamespaceId,
    /// The verb to run.
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

/// The id of the namespace's flag.
pub(crate) const NAMESPACE: &str = "namespace";

impl Cli {
    /// Returns the grammar. Behind a verb, `-n` is the verb's own, so that `ps -n 3` and `logs -n 3` are what people know.
    pub(crate) fn grammar() -> clap::Command {
        let root = Self::command();
        let behind = root.get_arguments().find(|arg| arg.get_id() == NAMESPACE).cloned();
        let behind = behind.map(|arg| arg.short(None).help("The namespace"));
        root.mut_subcommands(|verb| with_all(verb, behind.as_ref()))
    }
}

/// Gives a verb and those below it an argument. One that is there already is not inherited.
fn with_all(verb: clap::Command, arg: Option<&clap::Arg>) -> clap::Command {
    verb.args(arg).mut_subcommands(|below| with_all(below, arg))
}

/// The verbs.
#[derive(Debug, Clone, clap::Subcommand)]
pub(crate) enum Verb {
    /// Run the daemon
    Daemon(DaemonArgs),
    /// Run a container
    #[command(override_usage = "contd run [OPTIONS] <FLIST> [COMMAND [ARGUMENT]...]", after_help = RUN_CODES)]
    Run(Box<RunArgs>),
    /// Make a container without starting it
    #[command(override_usage = "contd create [OPTIONS] <FLIST> [COMMAND [ARGUMENT]...]", after_help = CREATE_CODES)]
    Create(Box<RunArgs>),
    /// Start containers that were created, or start stopped and failed ones again
    Start(crate::cli::start::StartArgs),
    /// List containers
    #[command(visible_aliases = ["ls", "list"], after_help = crate::cli::filter::FILTERS_HELP)]
    Ps(crate::cli::ps::PsArgs),
    /// Show everything about containers, each as one JSON object, or some of their fields
    #[command(after_help = crate::cli::view::FIELDS_HELP)]
    Inspect(crate::cli::inspect::InspectArgs),
    /// Execute one more process in a running container
    #[command(override_usage = "contd exec [OPTIONS] <CONTAINER> <COMMAND> [ARGUMENT]...", after_help = EXEC_CODES)]
    Exec(Box<crate::cli::exec::ExecArgs>),
    /// Show the output of a running container from now on, and pass standard input on to it
    #[command(after_help = RUN_CODES)]
    Attach(crate::cli::attach::AttachArgs),
    /// Show what running containers use, again and again
    #[command(after_help = crate::cli::stats::FIELDS_HELP)]
    Stats(crate::cli::stats::StatsArgs),
    /// List the processes of a running container, with their ids on both sides
    Top(crate::cli::top::TopArgs),
    /// Show the output of containers
    Logs(crate::cli::logs::LogsArgs),
    /// Stop containers: send their stop signal, then SIGKILL
    Stop(crate::cli::stop::StopArgs),
    /// Stop containers that run, and start them again
    Restart(crate::cli::stop::StopArgs),
    /// Have all processes of containers stand still
    Pause(crate::cli::pause::PauseArgs),
    /// Have all processes of paused containers go on
    Unpause(crate::cli::pause::PauseArgs),
    /// Send a signal to containers
    Kill(crate::cli::kill::KillArgs),
    /// Wait for containers to end and print their exit codes, or for another state
    Wait(crate::cli::wait::WaitArgs),
    /// Remove containers
    ///
    /// Their output is kept for a while, a day unless `[logs] keep_removed` says otherwise, and `contd logs` still
    /// finds it: it is in <log_dir>/<namespace>/.removed, under the container's name and id.
    Rm(crate::cli::rm::RmArgs),
    /// Remove all containers that have ended
    #[command(after_help = crate::cli::filter::FILTERS_HELP)]
    Prune(crate::cli::prune::PruneArgs),
    /// Change the restart policy and limits of containers
    ///
    /// Limits of a running container are in force at once. None is taken below what is in use: with several, all are changed
    /// or none. They are kept, also for its next start.
    Update(crate::cli::update::UpdateArgs),
    /// Manage the shims of running containers
    Shim(crate::cli::shim::ShimArgs),
    /// End all containers, before the node goes down
    #[command(after_help = crate::cli::shutdown::AFTER_HELP)]
    Shutdown(crate::cli::shutdown::ShutdownArgs),
    /// List the namespaces that have containers
    Namespaces(crate::cli::namespaces::NamespacesArgs),
    /// Show what happened and what happens
    #[command(after_help = crate::cli::events::FILTERS_HELP)]
    Events(crate::cli::events::EventsArgs),
    /// Make, inspect, verify and unpack flists
    Flist(crate::cli::flist::FlistArgs),
    /// Check whether this node can run containers, and find what was left behind
    #[command(after_help = crate::cli::doctor::AFTER_HELP)]
    Doctor(crate::cli::doctor::DoctorArgs),
    /// Show the versions of this command and of the daemon
    Version(crate::cli::version::VersionArgs),
    /// Print a completion script for a shell
    Completion(crate::cli::completion::CompletionArgs),
    /// Write the manual pages to a directory
    #[command(hide = true)]
    Man(crate::cli::man::ManArgs),
}

/// The form of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub(crate) enum Format {
    /// A table for people.
    #[default]
    Table,
    /// One JSON object per line, for programs.
    Json,
}

/// The containers that a verb acts on.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Containers {
    /// Names, ids, or the beginnings of ids
    #[arg(required = true, value_name = "CONTAINER", value_parser = parse::container)]
    #[arg(add = ArgValueCandidates::new(containers))]
    pub(crate) containers: Vec<contd_types::ContainerRef>,
}
