//! The surroundings of a command: streams, clock, environment, signals, and the daemon.

use std::future::Future;
use std::io;
use std::path::PathBuf;

use contd_client::{Client, Deadline, Follower};
use contd_protocol::api::Target;
use contd_types::{Clock, ContainerRef, NamespaceId, Signal, SystemClock};
use futures_util::StreamExt;
use futures_util::stream::FuturesOrdered;
use tokio::sync::mpsc;

use crate::cli::error::CliError;
use crate::cli::output::Output;
use crate::cli::signals;

/// The daemon's default address.
pub(crate) const DEFAULT_ADDRESS: &str = "/run/contd/contd.sock";

/// Begins to catch the signals that are passed on to a container.
pub(crate) type CatchSignals = Box<dyn Fn() -> io::Result<mpsc::Receiver<Signal>> + Send + Sync>;

/// The surroundings of a command; tests supply their own.
pub(crate) struct Host {
    /// Standard output and standard error.
    pub(crate) output: Output,
    /// The wall clock.
    pub(crate) clock: Box<dyn Clock>,
    /// Returns a variable of the environment.
    pub(crate) env: fn(&str) -> Option<String>,
    /// The working directory; `/` if it was removed.
    pub(crate) cwd: PathBuf,
    /// Returns the signals that the command gets.
    pub(crate) catch_signals: CatchSignals,
}

impl Host {
    /// Returns the surroundings of this process.
    pub(crate) fn of_process() -> Self {
        Self {
            output: Output::of_process(),
            clock: Box::new(SystemClock),
            env: |key| std::env::var(key).ok(),
            cwd: std::env::current_dir().unwrap_or_else(|_| "/".into()),
            catch_signals: Box::new(signals::catch),
        }
    }
}

/// A command's access to the daemon.
pub(crate) struct Session<'a> {
    /// The command's surroundings.
    pub(crate) host: &'a Host,
    /// The namespace that the command acts on.
    pub(crate) namespace: NamespaceId,
    address: PathBuf,
}

impl<'a> Session<'a> {
    /// Makes a session without connecting.
    pub(crate) fn new(host: &'a Host, address: Option<PathBuf>, namespace: NamespaceId) -> Self {
        Self { host, namespace, address: address.unwrap_or_else(|| DEFAULT_ADDRESS.into()) }
    }

    /// Connects to the daemon.
    pub(crate) async fn connect(&self) -> Result<Client, CliError> {
        Ok(Client::connect(&self.address, Deadline::Usual).await?)
    }

    /// Returns a client that reconnects, for a call that may outlast the daemon.
    pub(crate) async fn follow(&self) -> Result<Follower, CliError> {
        Ok(Follower::connect(&self.address, Deadline::Usual).await?)
    }

    /// Returns the address of a container in the session's namespace.
    pub(crate) fn target(&self, container: ContainerRef) -> Target {
        Target { namespace: self.namespace.clone(), container }
    }

    /// Applies the same action to several containers at once. Prints a line for each success, in the order given, and
    /// reports each error; returns the exit code.
    pub(crate) async fn each<F>(
        &self,
        containers: Vec<ContainerRef>,
        act: impl Fn(Client, Target) -> F,
    ) -> Result<u8, CliError>
    where
        F: Future<Output = Result<Option<String>, CliError>>,
    {
        let client = self.connect().await?;
        self.all(containers, |target| act(client.clone(), target)).await
    }

    /// Does the same as [`Self::each`], over an existing connection.
    pub(crate) async fn all<F>(&self, containers: Vec<ContainerRef>, act: impl Fn(Target) -> F) -> Result<u8, CliError>
    where
        F: Future<Output = Result<Option<String>, CliError>>,
    {
        let mut code = 0;
        let mut results: FuturesOrdered<_> = containers
            .into_iter()
            .map(|container| {
                let name = container.to_string();
                let acting = act(self.target(container));
                async move { (name, acting.await) }
            })
            .collect();
        while let Some((name, result)) = results.next().await {
            match result {
                Ok(line) => self.host.output.line(line.as_deref().unwrap_or(&name))?,
                Err(error) => {
                    error.report(&self.host.output);
                    code = error.code();
                }
            }
        }
        Ok(code)
    }
}
