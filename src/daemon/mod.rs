//! The daemon: a node (`contd-node`) with an API socket and signals. Its containers run on when it ends.
//!
//! ```text
//!  config ─► plan ─► directories ─► lock, or handover ─► assembled ─► API socket ─► node ─► until SIGTERM, SIGINT or a
//!                                                                                           successor
//! ```

mod access;
mod calls;
mod connection;
mod exec_stream;
mod handover;
mod hints;
mod inherited;
mod leaving;
mod places;
mod reload;
mod server;
mod spare;
#[cfg(test)]
mod tests;

use std::error::Error;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use actix::Addr;
use contd_actors::Supervisor;
use contd_descriptors::Named;
use contd_node::{Node, NodeLock, Plan, lock};
use contd_service_manager::{ManagerError, ServiceManager};
use contd_types::{ApiError, Clock, ErrorKind, SystemClock};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tracing::{info, warn};

use crate::config;
use crate::config::DaemonArgs;
use crate::daemon::calls::{ApiSettings, Backend};
use crate::daemon::exec_stream::Inputs;
use crate::daemon::handover::{Desk, Successor};
use crate::daemon::inherited::{Inherited, Passed};
use crate::daemon::leaving::Leaving;
use crate::daemon::reload::Reload;
use crate::daemon::server::{Connections, Server};

/// How long those who are connected may go on asking when the daemon leaves: a bit more than one who has just come may
/// take for its first call.
const LAST_CALLS: Duration = Duration::from_secs(2);
/// How long the answers to what the actors have finished may take to be sent.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// The hint for a path that cannot be listened at.
const ANOTHER_ADDRESS: &str = "choose another --address or --run-dir";

/// Runs the daemon until it is told to end, or a successor has taken over.
///
/// # Errors
/// Whatever keeps it from starting, with the path or key and a hint; nothing was started then, and a daemon that runs
/// already runs on.
pub(crate) fn run(args: &DaemonArgs) -> Result<(), ApiError> {
    init_logging();
    // Everything that can be wrong with ourselves comes first: a daemon that runs is not touched by one that cannot.
    let config = config::load(args).map_err(|error| explain(ErrorKind::InvalidArgument, &error, error.hint()))?;
    contd_node::raise_open_files();
    let (address, run_dir) = (config.socket(), config.run_dir.clone());
    server::check(&address).map_err(|error| explain(ErrorKind::InvalidArgument, &error, ANOTHER_ADDRESS))?;
    let plan = Plan::new(config).map_err(|error| ApiError::from_error(&error))?;
    let passed = Passed::take(&address).map_err(|error| explain(error.kind(), &error, error.hint()))?;
    let runtime = contd_actors::runtime();
    let runtime = runtime.map_err(|error| explain(ErrorKind::Internal, &error, "check the limits of this process"))?;
    let system = actix::System::with_tokio_rt(|| runtime);
    // From here on it does not end us, also while we wait for the one that runs.
    let hang_up = system.block_on(async { listen(SignalKind::hangup()) })?;
    plan.make_directories().map_err(|error| ApiError::from_error(&error))?;
    contd_failpoint::arm(&run_dir);
    let mut entered = handover::enter(&run_dir, &agent(), !args.no_takeover)
        .map_err(|error| explain(error.kind(), &error, error.hint()))?;
    let inherited = Inherited::gather(passed, &mut entered, &address);
    let result = system.block_on(serve(args, &plan, &entered.lock, inherited, hang_up));
    plan.cgroups().remove_if_empty();
    // Last of all, when nothing of ours is under way.
    drop(entered);
    result
}

async fn serve(
    args: &DaemonArgs,
    plan: &Plan,
    lock: &NodeLock,
    inherited: Inherited,
    hang_up: Signal,
) -> Result<(), ApiError> {
    let Inherited { listener, is_managers, kept, manager } = inherited;
    let config = plan.config();
    let assembled = plan.assemble(&manager, kept).map_err(|error| ApiError::from_error(&error))?;
    let mut signals = Signals::listen(hang_up)?;
    let bind_failed = |error: server::BindError| explain(ErrorKind::InvalidArgument, &error, ANOTHER_ADDRESS);
    let own_uid = nix::unistd::geteuid().as_raw();
    let desk = Desk::open(&config.run_dir, own_uid, agent()).map_err(bind_failed)?;
    let socket = match listener {
        Some(socket) if is_managers => {
            info!("the API socket is the service manager's: its SocketMode and SocketGroup hold, not [api]");
            socket
        }
        Some(socket) => {
            server::set_rights(&config.socket(), config.api).map_err(bind_failed)?;
            socket
        }
        None => server::bind(&config.socket(), config.api).map_err(bind_failed)?,
    };
    let node = assembled.start();
    let supervisor = node.supervisor().clone();
    let backend = Arc::new(Backend {
        supervisor: supervisor.clone(),
        settings: watch::channel(ApiSettings::of(node.rules(), config)).0,
        own_uid,
        places: Arc::default(),
        agent: agent(),
        started_at: SystemClock.now(),
        runtime: config.runtime.default.clone(),
        flists: contd_node::FlistPlaces::of(config),
        inputs: Inputs::default(),
        leaving: watch::channel(None).0,
    });
    let mut server = Server::new(socket, Arc::clone(&backend), &config.socket()).map_err(bind_failed)?;
    lock.say(Some(server.listener_number()));
    node.fill_slots();
    tell_ready(&manager, &server, is_managers);
    info!(socket = %config.socket().display(), runtime = %config.runtime.default, "listening");
    let mut reload = Reload::new(args, config.clone());
    let successor = loop {
        match until_it_leaves(&mut server, &desk, &supervisor, &manager, &mut signals).await? {
            Told::Reload => reload.run(&backend, &node),
            Told::End => break None,
            Told::Replaced(successor) => break Some(*successor),
        }
    };
    drop(desk);
    come_to_rest(&backend, server.close(), &node, &manager, successor.is_some()).await;
    match successor {
        Some(successor) => successor.hand_kept(node.release_kept().into_iter().map(to_named).collect()).await,
        // Where a manager keeps it, connections wait there for the next start. The lock is still held: it is ours to remove.
        None if !manager.is_there() => {
            if let Err(error) = std::fs::remove_file(config.socket()) {
                warn!(%error, "the API socket could not be removed");
            }
        }
        None => {}
    }
    info!("ended; containers keep running");
    Ok(())
}

/// The signals that the daemon obeys.
enum Told {
    /// To end.
    End,
    /// To read its configuration again.
    Reload,
    /// That a successor has the API socket.
    Replaced(Box<Successor>),
}

/// Serves until it is told something.
async fn until_it_leaves(
    server: &mut Server,
    desk: &Desk,
    supervisor: &Addr<Supervisor>,
    manager: &ServiceManager,
    signals: &mut Signals,
) -> Result<Told, ApiError> {
    loop {
        tokio::select! {
            () = server.accept() => {}
            told = signals.next() => return Ok(told),
            successor = desk.asked() => {
                let (pid, agent) = (successor.pid, successor.agent.clone());
                match hand_listener(successor, server, manager).await {
                    Ok(successor) => {
                        info!(pid, agent, "successor has the API socket");
                        return Ok(Told::Replaced(Box::new(successor)));
                    }
                    Err(error) => info!(pid, agent, %error, "a successor went before it had the API socket"),
                }
            }
            () = contd_actors::until_ended(supervisor) => {
                // A new daemon reads everything from disk again; the containers do not notice.
                let message = "the supervisor of the actors has ended by itself";
                let hint = "start contd again (its service manager does), and report the panic in its log";
                return Err(ApiError::new(ErrorKind::Internal, message).with_hint(hint));
            }
        }
    }
}

/// Hands the API socket over, and tells the service manager whose it is now.
async fn hand_listener(
    successor: Successor,
    server: &Server,
    manager: &ServiceManager,
) -> Result<Successor, Box<dyn Error>> {
    let pid = successor.pid;
    let notify_socket = manager.socket().map(Path::to_path_buf);
    let successor = successor.hand_listener(server.listener()?, notify_socket).await?;
    if let Ok(pid) = u32::try_from(pid) {
        told(manager.succeeded_by(pid));
    }
    Ok(successor)
}

/// Lets everything that is under way come to its end, within bounds: connections, actors, warm slots.
async fn come_to_rest(
    backend: &Backend,
    mut connections: Connections,
    node: &Node,
    manager: &ServiceManager,
    is_replaced: bool,
) {
    if !is_replaced {
        // At a handover the service goes on: its manager must not take this for its end.
        told(manager.stopping());
    }
    let leaving = if is_replaced { Leaving::Replaced } else { Leaving::Ending };
    backend.leaving.send_replace(Some(leaving));
    connections.finish(LAST_CALLS).await;
    if let Err(error) = node.come_to_rest().await {
        warn!(%error, "the actors did not come to rest");
    }
    connections.finish(LAST_WORDS).await;
    node.drain_slots().await;
}

/// Tells the service manager that we are there, and has it keep the API socket if that is not its own.
fn tell_ready(manager: &ServiceManager, server: &Server, is_managers: bool) {
    if !manager.is_there() {
        return;
    }
    if !is_managers {
        match server.listener() {
            Ok(listener) => told(manager.store(inherited::LISTENER, listener.as_fd())),
            Err(error) => warn!(%error, "the service manager does not keep the API socket"),
        }
    }
    told(manager.ready());
}

/// A manager that does not hear changes nothing here.
fn told(result: Result<(), ManagerError>) {
    if let Err(error) = result {
        let cause = error.source().map(ToString::to_string).unwrap_or_default();
        warn!(%error, cause, "the service manager does not hear");
    }
}

fn to_named((name, fd): (String, OwnedFd)) -> Named {
    Named { name, fd }
}

/// The daemon's name and version, for hellos.
fn agent() -> String {
    format!("contd {}", env!("CARGO_PKG_VERSION"))
}

/// The signals that tell the daemon something.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

/// Catches a signal from here on.
fn listen(kind: SignalKind) -> Result<Signal, ApiError> {
    signal(kind).map_err(|error| explain(ErrorKind::Internal, &error, "check the limits of this process"))
}

impl Signals {
    /// Catches them from here on.
    fn listen(hang_up: Signal) -> Result<Self, ApiError> {
        let (terminate, interrupt) = (listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?);
        Ok(Self { terminate, interrupt, hang_up })
    }

    /// Waits for one. Cancellation-safe.
    async fn next(&mut self) -> Told {
        let name = tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.hang_up.recv() => return Told::Reload,
        };
        info!("told to end by {name}");
        Told::End
    }
}

/// Flattens an error of the start with its causes. Whatever ran out counts before `kind` and `hint`.
fn explain(kind: ErrorKind, error: &(dyn Error + 'static), hint: &str) -> ApiError {
    ApiError::flatten(kind, error, hint)
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
