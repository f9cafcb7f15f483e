//! `contd update`: changes the settings of a container that can be changed at any time.

use contd_client::Deadline;
use contd_types::RestartPolicy;

use crate::cli::args::Containers;
use crate::cli::error::CliError;
use crate::cli::host::Session;
use crate::cli::parse;

/// The flags of `contd update`.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct UpdateArgs {
    /// Restart policy from now on: no, on-failure[:MAX], always or unless-stopped
    #[arg(long, value_name = "POLICY", required = true, value_parser = parse::restart)]
    restart: RestartPolicy,
    #[command(flatten)]
    which: Containers,
}

/// Changes the containers and prints each changed one.
pub(crate) async fn run(session: &Session<'_>, args: UpdateArgs) -> Result<u8, CliError> {
    session
        .each(args.which.containers, async |client, target| {
            client.update(target, Some(args.restart), Deadline::Usual).await?;
            Ok(None)
        })
        .await
}
