//! The daemon: reads its configuration, takes its lock, starts the actors, serves the API, and leaves the containers
//! running when it goes.
//!
//! ```text
//!  config ─► lock ─► directories ─► programs ─► parts ─► actors ─► API socket ─► until SIGTERM or SIGINT
//! ```

mod access;
mod calls;
mod cgroups;
mod connection;
mod lock;
mod parts;
mod programs;
mod server;

use std::error::Error;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use contd_actors::ask_api;
use contd_actors::messages::Shutdown;
use contd_types::{ApiError, Clock, ErrorKind, SystemClock};
use tokio::signal::unix::{SignalKind, signal};
use tracing::{info, warn};

use crate::cli::DaemonArgs;
use crate::config::{self, Config};
use crate::daemon::calls::Backend;
use crate::daemon::lock::DaemonLock;

/// How long the actors may take to come to rest; runs under way have a bound of their own inside.
const SHUTDOWN_DEADLINE: Duration = Duration::from_secs(20);

/// Runs the daemon until it is told to end.
///
/// # Errors
/// Whatever keeps it from starting, with the path or key and a hint; nothing was started then.
pub(crate) fn run(args: &DaemonArgs) -> Result<(), ApiError> {
    init_logging();
    let config = config::load(args).map_err(|error| {
        explain(ErrorKind::InvalidArgument, &error, "see docs/configuration.md, or leave the file out for the defaults")
    })?;
    make_directories(&config)?;
    contd_failpoint::arm(&config.run_dir);
    let _lock = DaemonLock::take(&config.run_dir).map_err(|error| {
        explain(ErrorKind::AlreadyExists, &error, "stop it first, or give this one its own directories and address")
    })?;
    let programs = programs::find(&config).map_err(|error| explain(ErrorKind::NotFound, &error, &error.hint()))?;
    let system = actix::System::new();
    let result = system.block_on(serve(&config, &programs));
    cgroups::remove_if_empty(&config.cgroup_parent);
    result
}

async fn serve(config: &Config, programs: &programs::Programs) -> Result<(), ApiError> {
    let (node_config, parts, shims) = parts::assemble(config, programs)?;
    let mut terminate = listen_for(SignalKind::terminate())?;
    let mut interrupt = listen_for(SignalKind::interrupt())?;
    let listener = server::bind(&config.socket())
        .map_err(|error| explain(ErrorKind::InvalidArgument, &error, "choose another --address"))?;
    let supervisor = contd_actors::start(node_config, parts);
    let backend = Arc::new(Backend {
        supervisor: supervisor.clone(),
        access: config.access.clone(),
        own_uid: nix::unistd::geteuid().as_raw(),
        max_connections: config.limits.connections,
        agent: format!("contd {}", env!("CARGO_PKG_VERSION")),
        started_at: SystemClock.now(),
        runtime: config.runtime.default.clone(),
    });
    shims.fill_slots();
    info!(socket = %config.socket().display(), runtime = %config.runtime.default, "contd serves");
    tokio::select! {
        () = server::serve(listener, backend, config.limits.connections) => {}
        _ = terminate.recv() => info!("told to end by SIGTERM"),
        _ = interrupt.recv() => info!("told to end by SIGINT"),
        () = contd_actors::until_ended(&supervisor) => {
            // A new daemon reads everything from disk again; the containers do not notice.
            let message = "the supervisor of the actors has ended by itself";
            let hint = "start contd again (its service manager does), and report the panic in its log";
            return Err(ApiError::new(ErrorKind::Internal, message).with_hint(hint));
        }
    }
    if let Err(error) = ask_api(&supervisor, Shutdown, SHUTDOWN_DEADLINE).await {
        warn!(%error, "the actors did not come to rest");
    }
    shims.drain_slots().await;
    // The lock is still held: the socket is ours to remove.
    if let Err(error) = std::fs::remove_file(config.socket()) {
        warn!(%error, "the API socket could not be removed");
    }
    info!("contd has ended; containers keep running");
    Ok(())
}

fn listen_for(kind: SignalKind) -> Result<tokio::signal::unix::Signal, ApiError> {
    signal(kind).map_err(|error| explain(ErrorKind::Internal, &error, "check the limits of this process"))
}

/// Makes the directories of the daemon with the rights that DESIGN section 10 gives them.
fn make_directories(config: &Config) -> Result<(), ApiError> {
    let dirs: [(&Path, u32); 4] = [
        (&config.state_dir, 0o700),
        (&config.run_dir, 0o711),
        (&config.cache_dir, 0o700),
        // Logs are for operators to read; /var/log itself exists already.
        (&config.log_dir, 0o755),
    ];
    for (dir, mode) in dirs {
        std::fs::DirBuilder::new().recursive(true).mode(mode).create(dir).map_err(|error| {
            let message = format!("make the directory {}", dir.display());
            let kind = ErrorKind::PermissionDenied;
            let hint = "run contd as root, or choose other directories".to_owned();
            ApiError { kind, message, causes: vec![error.to_string()], hint: Some(hint) }
        })?;
    }
    Ok(())
}

/// Flattens an error of the start with its causes.
fn explain(kind: ErrorKind, error: &dyn Error, hint: &str) -> ApiError {
    let mut causes = Vec::new();
    let mut next = error.source();
    while let Some(cause) = next {
        causes.push(cause.to_string());
        next = cause.source();
    }
    ApiError { kind, message: error.to_string(), causes, hint: Some(hint.to_owned()) }
}

/// Sends the daemon's own log to standard error; `CONTD_LOG` (or `RUST_LOG`) chooses what, `CONTD_LOG_FORMAT=json` how.
fn init_logging() {
    let filter = std::env::var("CONTD_LOG").or_else(|_| std::env::var("RUST_LOG"));
    let filter = tracing_subscriber::EnvFilter::new(filter.unwrap_or_else(|_| "info".to_owned()));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let is_json = std::env::var("CONTD_LOG_FORMAT").is_ok_and(|format| format == "json");
    // A second initialisation can only come from a test; the first one stands.
    let _already = if is_json {
        builder.json().flatten_event(true).try_init()
    } else {
        use std::io::IsTerminal;
        builder.with_ansi(std::io::stderr().is_terminal()).try_init()
    };
}
