//! `contd shutdown`: ends all containers before the node goes down.

use std::time::Duration;

use contd_client::Deadline;

use crate::cli::error::CliError;
use crate::cli::host::Session;
use crate::cli::parse;

/// The text after the flags in the help.
pub(crate) const AFTER_HELP: &str = "\
All containers of all namespaces get their stop signal at once; those that have not ended when their own time-out or -t
is over are killed. After that no container is started, by any request or restart policy, until the daemon is started
again: it then starts those that ran by their policy, as after a reboot. For root, and for the scripts that bring the
node down: see contrib/contd.service and contrib/zinit.";

/// The flags of `contd shutdown`.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct ShutdownArgs {
    /// Seconds until SIGKILL, for containers whose own time-out is longer
    #[arg(short = 't', long = "time", value_name = "SECONDS", default_value = "60", value_parser = parse::seconds)]
    longest: Duration,
}

/// Ends all containers and says how many there were.
pub(crate) async fn run(session: &Session<'_>, args: ShutdownArgs) -> Result<u8, CliError> {
    let ended = session.connect().await?.shut_down(args.longest, Deadline::Usual).await?;
    session.host.output.tell(&format!("contd: {ended} containers have ended; none starts until contd is restarted\n"));
    Ok(0)
}
