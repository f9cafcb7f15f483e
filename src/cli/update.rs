//! `contd update`: changes what can be changed of a container at any time.

use contd_client::Deadline;
use contd_types::RestartPolicy;

use crate::cli::args::Containers;
use crate::cli::error::CliError;
use crate::cli::host::Session;
use crate::cli::parse;

/// Which, and to what.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct UpdateArgs {
    /// What happens when it ends by itself, from now on: no, on-failure[:MAX], always or unless-stopped
    #[arg(long, value_name = "POLICY", required = true, value_parser = parse::restart)]
    restart: RestartPolicy,
    #[command(flatten)]
    which: Containers,
}

/// Changes them and prints each that was changed.
pub(crate) async fn run(session: &Session<'_>, args: UpdateArgs) -> Result<u8, CliError> {
    session
        .each(args.which.containers, async |client, target| {
            client.update(target, Some(args.restart), Deadline::Usual).await?;
            Ok(None)
        })
        .await
}
