//! `contd wait`: waits for the end of containers.

use contd_client::Deadline;

use crate::cli::args::Containers;
use crate::cli::error::CliError;
use crate::cli::host::Session;

/// Which.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct WaitArgs {
    #[command(flatten)]
    which: Containers,
}

/// Waits for all and prints the exit code of each, in the order given.
pub(crate) async fn run(session: &Session<'_>, args: WaitArgs) -> Result<u8, CliError> {
    session
        .each(args.which.containers, async |client, target| {
            let exit = client.wait(target, Deadline::Usual).await?;
            Ok(Some(exit.shell_code().to_string()))
        })
        .await
}
