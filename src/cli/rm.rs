//! `contd rm`: removes containers with everything that belongs to them.

use std::time::Duration;

use contd_client::Deadline;

use crate::cli::args::Containers;
use crate::cli::error::CliError;
use crate::cli::host::Session;
use crate::cli::parse;

/// The flags of `contd rm`.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct RmArgs {
    /// Stop running containers first
    #[arg(short, long)]
    force: bool,
    /// Seconds until SIGKILL with --force, instead of the container's own
    #[arg(short = 't', long = "time", visible_alias = "timeout", value_name = "SECONDS", requires = "force", value_parser = parse::seconds)]
    timeout: Option<Duration>,
    #[command(flatten)]
    which: Containers,
}

/// Removes the containers and prints each removed one.
pub(crate) async fn run(session: &Session<'_>, args: RmArgs) -> Result<u8, CliError> {
    session
        .each(args.which.containers, async |client, target| {
            client.delete(target, args.force, args.timeout, Deadline::Usual).await?;
            Ok(None)
        })
        .await
}
