//! `contd wait`: waits for the end of containers.

use crate::cli::args::Containers;
use crate::cli::error::CliError;
use crate::cli::host::Session;

/// The flags of `contd wait`.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct WaitArgs {
    #[command(flatten)]
    which: Containers,
}

/// Waits for all containers and prints the exit code of each, in the order given. Survives a replacement of the daemon.
pub(crate) async fn run(session: &Session<'_>, args: WaitArgs) -> Result<u8, CliError> {
    let follower = session.follow().await?;
    session
        .all(args.which.containers, async |target| {
            let exit = follower.wait(target).await?;
            Ok(Some(exit.shell_code().to_string()))
        })
        .await
}
