//! `contd stop` and `contd restart`: stop containers, and start them again.

use std::time::Duration;

use contd_client::Deadline;

use crate::cli::args::Containers;
use crate::cli::error::CliError;
use crate::cli::host::Session;
use crate::cli::parse;

/// The flags of `contd stop` and `contd restart`.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct StopArgs {
    /// Seconds until SIGKILL, instead of the container's own
    #[arg(short = 't', long = "time", visible_alias = "timeout", value_name = "SECONDS", value_parser = parse::seconds)]
    timeout: Option<Duration>,
    #[command(flatten)]
    which: Containers,
}

/// Stops the containers and prints each that has ended.
pub(crate) async fn run(session: &Session<'_>, args: StopArgs) -> Result<u8, CliError> {
    let follower = session.follow().await?;
    session
        .all(args.which.containers, async |target| {
            follower.stop(target, args.timeout).await?;
            Ok(None)
        })
        .await
}

/// Restarts the containers and prints each that runs again.
pub(crate) async fn restart(session: &Session<'_>, args: StopArgs) -> Result<u8, CliError> {
    session
        .each(args.which.containers, async |client, target| {
            client.restart(target, args.timeout, Deadline::Usual).await?;
            Ok(None)
        })
        .await
}
