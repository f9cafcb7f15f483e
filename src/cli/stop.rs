//! `contd stop`: ends containers.

use std::time::Duration;

use contd_client::Deadline;

use crate::cli::args::Containers;
use crate::cli::error::CliError;
use crate::cli::host::Session;
use crate::cli::parse;

/// Which, and how patiently.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct StopArgs {
    /// Seconds until SIGKILL, instead of the container's own
    #[arg(short = 't', long = "time", value_name = "SECONDS", value_parser = parse::seconds)]
    timeout: Option<Duration>,
    #[command(flatten)]
    which: Containers,
}

/// Ends them and prints each that has ended.
pub(crate) async fn run(session: &Session<'_>, args: StopArgs) -> Result<u8, CliError> {
    session
        .each(args.which.containers, async |client, target| {
            client.stop(target, args.timeout, Deadline::Usual).await?;
            Ok(None)
        })
        .await
}
