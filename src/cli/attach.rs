//! `contd attach`: ties this command to a container that runs, as `contd run` without `-d` does from its start on.

use contd_client::Deadline;
use contd_types::ContainerRef;

use crate::cli::attached::{self, Wants};
use crate::cli::completion::containers;
use crate::cli::error::CliError;
use crate::cli::host::Session;
use crate::cli::parse;
use crate::cli::terminal::DetachKeys;

/// The flags of `contd attach`.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct AttachArgs {
    /// Do not pass standard input on
    #[arg(long)]
    no_stdin: bool,
    /// The keys that end this command and leave the container running; "" for none
    #[arg(long, value_name = "KEYS", default_value = "ctrl-p,ctrl-q", value_parser = DetachKeys::parse)]
    detach_keys: DetachKeys,
    /// Pass signals on to the container
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "true",
        value_name = "BOOL", action = clap::ArgAction::Set, value_parser = parse::boolean)]
    sig_proxy: bool,
    /// Name, id, or the beginning of an id
    #[arg(value_parser = parse::container, add = clap_complete::ArgValueCandidates::new(containers))]
    container: ContainerRef,
}

/// Shows what the container says from now on, passes input on, and exits with its exit code.
pub(crate) async fn run(session: &Session<'_>, args: AttachArgs) -> Result<u8, CliError> {
    let follower = session.follow().await?;
    let target = session.target(args.container);
    let info = follower.client().await.inspect(target, Deadline::Usual).await?;
    if info.state.pid().is_none() {
        return Err(CliError::NotRunning { verb: "attach to", id: info.id, state: info.state.name() });
    }
    let stream = follower.follow_output(info.namespace.clone(), info.id.clone()).await?;
    let wants = Wants {
        input: !args.no_stdin && info.spec.is_interactive,
        terminal: info.spec.has_terminal,
        keys: args.detach_keys,
        signals: args.sig_proxy,
    };
    attached::join(session, &follower, &info, stream, wants).await
}
