//! `contd rm`: removes containers and all that belongs to them.

use std::time::Duration;

use contd_client::Deadline;

use crate::cli::args::Containers;
use crate::cli::error::CliError;
use crate::cli::host::Session;
use crate::cli::parse;

/// Which, and how.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct RmArgs {
    /// End them first, where they run
    #[arg(short, long)]
    force: bool,
    /// Seconds until SIGKILL with --force, instead of the container's own
    #[arg(short = 't', long = "time", visible_alias = "timeout", value_name = "SECONDS", requires = "force", value_parser = parse::seconds)]
    timeout: Option<Duration>,
    #[command(flatten)]
    which: Containers,
}

/// Removes them and prints each that is gone.
pub(crate) async fn run(session: &Session<'_>, args: RmArgs) -> Result<u8, CliError> {
    session
        .each(args.which.containers, async |client, target| {
            client.delete(target, args.force, args.timeout, Deadline::Usual).await?;
            Ok(None)
        })
        .await
}
