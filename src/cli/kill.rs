//! `contd kill`: sends a signal to containers.

use contd_client::Deadline;
use contd_types::Signal;

use crate::cli::args::Containers;
use crate::cli::error::CliError;
use crate::cli::host::Session;
use crate::cli::parse;

/// The flags of `contd kill`.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct KillArgs {
    /// The signal, by name or number
    #[arg(short, long, default_value = "KILL", value_parser = parse::signal)]
    signal: Signal,
    #[command(flatten)]
    which: Containers,
}

/// Signals the containers and prints each that got the signal.
pub(crate) async fn run(session: &Session<'_>, args: KillArgs) -> Result<u8, CliError> {
    session
        .each(args.which.containers, async |client, target| {
            client.kill(target, args.signal, Deadline::Usual).await?;
            Ok(None)
        })
        .await
}
