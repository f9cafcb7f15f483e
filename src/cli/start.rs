//! `contd start`: starts created, stopped or failed containers, in the background or attached.

use contd_client::Deadline;
use contd_types::ContainerRef;

use crate::cli::attached::{self, Wants};
use crate::cli::error::CliError;
use crate::cli::host::Session;
use crate::cli::parse;
use crate::cli::terminal::DetachKeys;

/// The flags of `contd start`.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct StartArgs {
    /// Show its output until it ends, and exit with its exit code; for one container
    #[arg(short, long)]
    attach: bool,
    /// With -a: pass standard input on, if its own is open
    #[arg(short, long, requires = "attach")]
    interactive: bool,
    /// The keys that end this command and leave the container running; "" for none
    #[arg(long, value_name = "KEYS", default_value = "ctrl-p,ctrl-q", value_parser = DetachKeys::parse)]
    detach_keys: DetachKeys,
    /// With -a: pass signals on to the container
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "true",
        value_name = "BOOL", action = clap::ArgAction::Set, value_parser = parse::boolean)]
    sig_proxy: bool,
    /// Names, ids, or the beginnings of ids
    #[arg(required = true, value_name = "CONTAINER", value_parser = parse::container)]
    containers: Vec<ContainerRef>,
}

/// Starts the containers and prints each that runs.
pub(crate) async fn run(session: &Session<'_>, args: StartArgs) -> Result<u8, CliError> {
    if args.attach {
        return attach(session, args).await;
    }
    session
        .each(args.containers, async |client, target| {
            client.start(target, Deadline::Usual).await?;
            Ok(None)
        })
        .await
}

async fn attach(session: &Session<'_>, args: StartArgs) -> Result<u8, CliError> {
    let [container] = args.containers.as_slice() else { return Err(CliError::AttachToOne) };
    let follower = session.follow().await?;
    let target = session.target(container.clone());
    let info = follower.client().await.inspect(target, Deadline::Usual).await?;
    if info.state.pid().is_some() {
        return Err(CliError::RunsAlready { id: info.id });
    }
    let stream = follower.start_attached(info.namespace.clone(), info.id.clone()).await?;
    let wants = Wants {
        input: args.interactive && info.spec.is_interactive,
        terminal: info.spec.has_terminal,
        keys: args.detach_keys,
        signals: args.sig_proxy,
    };
    attached::join(session, &follower, &info, stream, wants).await
}
