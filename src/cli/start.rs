//! `contd start`: starts created, stopped or failed containers.

use contd_client::Deadline;

use crate::cli::args::Containers;
use crate::cli::error::CliError;
use crate::cli::host::Session;

/// The flags of `contd start`.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct StartArgs {
    #[command(flatten)]
    which: Containers,
}

/// Starts the containers and prints each that runs.
pub(crate) async fn run(session: &Session<'_>, args: StartArgs) -> Result<u8, CliError> {
    session
        .each(args.which.containers, async |client, target| {
            client.start(target, Deadline::Usual).await?;
            Ok(None)
        })
        .await
}
