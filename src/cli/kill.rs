//! `contd kill`: sends containers a signal.

use contd_client::Deadline;
use contd_types::Signal;

use crate::cli::args::Containers;
use crate::cli::error::CliError;
use crate::cli::host::Session;
use crate::cli::parse;

/// Which, and what.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct KillArgs {
    /// The signal, by name or number
    #[arg(short, long, default_value = "KILL", value_parser = parse::signal)]
    signal: Signal,
    #[command(flatten)]
    which: Containers,
}

/// Signals them and prints each that got it.
pub(crate) async fn run(session: &Session<'_>, args: KillArgs) -> Result<u8, CliError> {
    session
        .each(args.which.containers, async |client, target| {
            client.kill(target, args.signal, Deadline::Usual).await?;
            Ok(None)
        })
        .await
}
