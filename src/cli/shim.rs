//! `contd shim`: manages the shims of running containers.

use contd_client::{Deadline, ListFilter};
use contd_protocol::api::Target;
use contd_types::{ContainerRef, State};

use crate::cli::error::CliError;
use crate::cli::host::Session;
use crate::cli::parse;

/// The flags of `contd shim`.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct ShimArgs {
    #[command(subcommand)]
    verb: ShimVerb,
}

/// The verbs.
#[derive(Debug, Clone, clap::Subcommand)]
enum ShimVerb {
    /// Replace the shims of running containers by the installed version; the containers do not notice
    Upgrade(UpgradeArgs),
}

/// The flags of `contd shim upgrade`.
#[derive(Debug, Clone, clap::Args)]
struct UpgradeArgs {
    /// Upgrade the shims of all running containers of all namespaces
    #[arg(short, long, conflicts_with = "containers")]
    all: bool,
    /// Names, ids, or the beginnings of ids
    #[arg(required_unless_present = "all", value_name = "CONTAINER", value_parser = parse::container)]
    containers: Vec<ContainerRef>,
}

/// Replaces the shims and prints each container whose shim was replaced.
pub(crate) async fn run(session: &Session<'_>, args: ShimArgs) -> Result<u8, CliError> {
    let ShimVerb::Upgrade(UpgradeArgs { all, containers }) = args.verb;
    if !all {
        return session
            .each(containers, async |client, target| {
                client.upgrade_shim(target, Deadline::Usual).await?;
                Ok(None)
            })
            .await;
    }
    let client = session.connect().await?;
    let mut code = 0;
    // Upgrade one after the other: a version that does not start is noticed at the first.
    for container in client.list(ListFilter::All, Deadline::Usual).await? {
        if !matches!(container.state, State::Running { .. } | State::Paused { .. }) {
            continue;
        }
        let target = Target { namespace: container.namespace, container: ContainerRef::from(&container.id) };
        match client.upgrade_shim(target, Deadline::Usual).await {
            Ok(()) => session.host.output.line(container.id.as_str())?,
            Err(error) => {
                let error = CliError::from(error);
                error.report(&session.host.output);
                code = error.code();
            }
        }
    }
    Ok(code)
}
