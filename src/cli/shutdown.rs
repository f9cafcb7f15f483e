//! `contd shutdown`: ends all containers, before the node goes down.

use std::time::Duration;

use contd_client::Deadline;

use crate::cli::error::CliError;
use crate::cli::host::Session;
use crate::cli::parse;

/// Below the forms of the command.
pub(crate) const AFTER_HELP: &str = "\
All containers of all namespaces are told at once, each by its own stop signal; whoever has not ended when its own
time-out or -t is over is killed. From then on nothing is started, by nobody and no restart policy, until the daemon is
started again: that one starts what ran by its policy, as after a reboot. For root, and for whatever brings the node down:
contrib/contd.service and contrib/zinit say it.";

/// How patiently.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct ShutdownArgs {
    /// Seconds until SIGKILL, for containers whose own time-out is longer
    #[arg(short = 't', long = "time", value_name = "SECONDS", default_value = "60", value_parser = parse::seconds)]
    longest: Duration,
}

/// Ends them and says how many there were.
pub(crate) async fn run(session: &Session<'_>, args: ShutdownArgs) -> Result<u8, CliError> {
    let ended = session.connect().await?.shut_down(args.longest, Deadline::Usual).await?;
    session.host.output.tell(&format!("contd: {ended} containers have ended; nothing is started before contd is\n"));
    Ok(0)
}
