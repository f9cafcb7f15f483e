//! `contd pause` and `contd unpause`: have all processes of containers stand still, and go on.

use contd_client::Deadline;

use crate::cli::args::Containers;
use crate::cli::error::CliError;
use crate::cli::host::Session;

/// The flags of both verbs.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct PauseArgs {
    #[command(flatten)]
    which: Containers,
}

/// Pauses or unpauses the containers and prints each.
pub(crate) async fn run(session: &Session<'_>, args: PauseArgs, is_paused: bool) -> Result<u8, CliError> {
    session
        .each(args.which.containers, async |client, target| {
            if is_paused {
                client.pause(target, Deadline::Usual).await?;
            } else {
                client.unpause(target, Deadline::Usual).await?;
            }
            Ok(None)
        })
        .await
}
