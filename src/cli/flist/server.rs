//! `contd flist server`: lists the servers of mounted flists, and upgrades them under running containers. The daemon
//! gives the list if it runs; otherwise, and for an upgrade, files and locks are enough, as for the doctor.

use std::path::PathBuf;

use contd_client::Deadline;
use contd_lease::LeaseState;
use contd_protocol::api::{FlistServerInfo, FlistServerState};
use contd_rootfs::survey::{self, FoundServer};
use contd_types::{ApiError, ErrorKind, one_line};
use serde::Serialize;

use crate::cli::error::CliError;
use crate::cli::flist::ask;
use crate::cli::host::Host;
use crate::cli::table;
use crate::config;
use crate::config::DaemonArgs;
use contd_node::programs::{self, ProgramError};

/// The flags of `contd flist server`.
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
    /// Replace servers by the installed version under their containers, which do not notice; prints each replaced one
    Upgrade(UpgradeArgs),
}

#[derive(Debug, Clone, clap::Args)]
struct LsArgs {
    #[command(flatten)]
    dirs: DaemonArgs,
    /// Print one JSON object per line instead
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, clap::Args)]
struct UpgradeArgs {
    #[command(flatten)]
    dirs: DaemonArgs,
    /// Upgrade all servers
    #[arg(short, long, conflicts_with = "servers")]
    all: bool,
    /// Servers in the form that `ls` shows: the first 16 digits of the flist's hash
    #[arg(required_unless_present = "all", value_name = "SERVER")]
    servers: Vec<String>,
}

/// Lists or upgrades servers; returns the exit code.
pub(crate) fn run(host: &Host, address: Option<PathBuf>, ServerArgs { verb }: &ServerArgs) -> Result<u8, CliError> {
    match verb {
        ServerVerb::Ls(args) => ls(host, address, args).map(|()| 0),
        ServerVerb::Upgrade(args) => upgrade(host, args),
    }
}

/// The fields of `ls --json`. Programs rely on them; add, never rename.
#[derive(Debug, Serialize)]
struct ServerView<'a> {
    server: &'a str,
    state: &'static str,
    version: Option<&'a str>,
    keeper_pid: Option<i32>,
    mounted: bool,
    containers: Vec<String>,
}

impl<'a> From<&'a FlistServerInfo> for ServerView<'a> {
    fn from(info: &'a FlistServerInfo) -> Self {
        let containers = info.containers.iter().map(|(namespace, id)| format!("{namespace}/{}", id.short()));
        Self {
            server: &info.server,
            state: match info.state {
                FlistServerState::Serving => "serving",
                FlistServerState::Dead => "dead",
                FlistServerState::Starting => "starting",
                FlistServerState::Gone => "gone",
                FlistServerState::Unknown => "unknown",
            },
            version: info.version.as_deref(),
            keeper_pid: info.keeper_pid,
            mounted: info.is_mounted,
            containers: containers.collect(),
        }
    }
}

fn find(dirs: &DaemonArgs) -> Result<(contd_node::Config, Vec<FoundServer>), CliError> {
    let config = config::load(dirs)?;
    // A node that never ran a container has no directory, and no servers.
    if !config.run_dir.exists() {
        return Ok((config, Vec::new()));
    }
    let found = survey::servers(&config.run_dir).map_err(|error| CliError::Doctor(ApiError::from_error(&error)))?;
    Ok((config, found))
}

fn ls(host: &Host, address: Option<PathBuf>, args: &LsArgs) -> Result<(), CliError> {
    let call = |client: contd_client::Client| async move { client.flist_servers(Deadline::Usual).await };
    let found = ask::ask(host, address, &args.dirs, call, |places| places.servers().map_err(CliError::Doctor))?;
    let views = found.iter().map(ServerView::from);
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
    // Upgrade one after the other: a version that does not start is noticed at the first.
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
