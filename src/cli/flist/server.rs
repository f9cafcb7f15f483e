//! `contd flist server`: the processes that serve mounted flists, and a new version of them under running containers. By files
//! and locks alone, as the doctor works: with and without the daemon.

use contd_lease::LeaseState;
use contd_rootfs::survey::{self, FoundServer};
use contd_types::{ApiError, ErrorKind, one_line};
use serde::Serialize;

use crate::cli::daemon_args::DaemonArgs;
use crate::cli::error::CliError;
use crate::cli::host::Host;
use crate::cli::table;
use crate::config;
use crate::daemon::programs::{self, ProgramError};

/// What to do.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct ServerArgs {
    #[command(subcommand)]
    verb: ServerVerb,
}

/// The verbs.
#[derive(Debug, Clone, clap::Subcommand)]
enum ServerVerb {
    /// List the servers of mounted flists
    Ls(LsArgs),
    /// Replace servers by the installed version under their containers, which do not notice; prints each that was replaced
    Upgrade(UpgradeArgs),
}

#[derive(Debug, Clone, clap::Args)]
struct LsArgs {
    #[command(flatten)]
    dirs: DaemonArgs,
    /// One JSON object per line instead
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, clap::Args)]
struct UpgradeArgs {
    #[command(flatten)]
    dirs: DaemonArgs,
    /// All of them
    #[arg(short, long, conflicts_with = "servers")]
    all: bool,
    /// As `ls` shows them: the first 16 digits of the flist's hash
    #[arg(required_unless_present = "all", value_name = "SERVER")]
    servers: Vec<String>,
}

/// Lists or replaces; gives the exit code.
pub(crate) fn run(host: &Host, ServerArgs { verb }: &ServerArgs) -> Result<u8, CliError> {
    match verb {
        ServerVerb::Ls(args) => ls(host, args).map(|()| 0),
        ServerVerb::Upgrade(args) => upgrade(host, args),
    }
}

/// What `ls --json` shows. Programs rely on these fields; add, never rename.
#[derive(Debug, Serialize)]
struct ServerView<'a> {
    server: &'a str,
    state: &'static str,
    version: Option<&'a str>,
    keeper_pid: Option<i32>,
    mounted: bool,
    containers: Vec<String>,
}

impl<'a> ServerView<'a> {
    fn new(found: &'a FoundServer) -> Self {
        let (state, lease) = match &found.state {
            Ok(LeaseState::Held(lease)) => ("serving", Some(lease)),
            Ok(LeaseState::Dead(lease) | LeaseState::OtherBoot(lease)) => ("dead", Some(lease)),
            Ok(LeaseState::Reserved) => ("starting", None),
            Ok(LeaseState::Absent) => ("gone", None),
            Err(_unreadable) => ("unknown", None),
        };
        Self {
            server: &found.key,
            state,
            version: lease.map(|lease| lease.binary_version.as_str()).filter(|version| !version.is_empty()),
            keeper_pid: lease.and_then(|lease| lease.process).map(|process| process.pid),
            mounted: found.is_mounted,
            containers: found.users.iter().map(|(namespace, id)| format!("{namespace}/{}", id.short())).collect(),
        }
    }
}

fn find(dirs: &DaemonArgs) -> Result<(config::Config, Vec<FoundServer>), CliError> {
    let config = config::load(dirs)?;
    // A node that never ran anything has no directory, and no servers.
    if !config.run_dir.exists() {
        return Ok((config, Vec::new()));
    }
    let found = survey::servers(&config.run_dir).map_err(|error| CliError::Doctor(ApiError::from_error(&error)))?;
    Ok((config, found))
}

fn ls(host: &Host, args: &LsArgs) -> Result<(), CliError> {
    let (_, found) = find(&args.dirs)?;
    let views = found.iter().map(ServerView::new);
    if args.json {
        for view in views {
            host.output.line(&serde_json::to_string(&view)?)?;
        }
        return Ok(());
    }
    let mut rows = vec![["SERVER", "STATE", "VERSION", "KEEPER", "CONTAINERS"].map(str::to_owned).to_vec()];
    rows.extend(views.map(|view| {
        let pid = view.keeper_pid.map_or("-".to_owned(), |pid| pid.to_string());
        let version = view.version.unwrap_or("-").to_owned();
        vec![view.server.to_owned(), view.state.to_owned(), version, pid, view.containers.join(",")]
    }));
    host.output.data(table::render(&rows).as_bytes())
}

fn upgrade(host: &Host, args: &UpgradeArgs) -> Result<u8, CliError> {
    let (config, found) = find(&args.dirs)?;
    let failed = |error: ApiError| CliError::Doctor(error);
    let missing =
        |error: ProgramError| failed(ApiError::new(ErrorKind::NotFound, one_line(&error)).with_hint(error.hint()));
    let program = programs::find(&config).map_err(missing)?.flistfs;
    let is_serving = |server: &&FoundServer| matches!(server.state, Ok(LeaseState::Held(_)));
    let chosen: Vec<String> = match args.all {
        true => found.iter().filter(is_serving).map(|server| server.key.clone()).collect(),
        false => args.servers.clone(),
    };
    let mut code = 0;
    // One after the other: a version that does not come up is noticed at the first.
    for key in chosen {
        let is_known = found.iter().any(|server| server.key == key);
        let done = is_known.then(|| survey::upgrade_server(&config.run_dir, &key, &program));
        let error = match done {
            Some(Ok(true)) => {
                host.output.line(&key)?;
                continue;
            }
            Some(Err(error)) => ApiError::from_error(&error),
            None | Some(Ok(false)) => {
                ApiError::new(ErrorKind::NotFound, format!("upgrade flist server {key}: nobody serves under that name"))
                    .with_hint("see `contd flist server ls`")
            }
        };
        let error = failed(error);
        error.report(&host.output);
        code = error.code();
    }
    Ok(code)
}
