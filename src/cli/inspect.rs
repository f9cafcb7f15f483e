//! `contd inspect`: shows everything about one container, as one JSON object.

use std::time::Duration;

use contd_client::Deadline;
use contd_protocol::api::Target;
use contd_types::ContainerRef;

use crate::cli::error::CliError;
use crate::cli::host::Session;
use crate::cli::parse;
use crate::cli::view::InspectView;

/// A shim that stands still does not keep anybody from the rest.
const SHIM_SAYS: Deadline = Deadline::After(Duration::from_secs(1));

/// The flags of `contd inspect`.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct InspectArgs {
    /// Name, id, or the beginning of an id
    #[arg(value_parser = parse::container)]
    container: ContainerRef,
}

/// Shows the container.
pub(crate) async fn run(session: &Session<'_>, args: InspectArgs) -> Result<(), CliError> {
    let target = session.target(args.container);
    let client = session.connect().await?;
    let info = client.inspect(target.clone(), Deadline::Usual).await?;
    // Those of the container that was shown: its name may be another's by now.
    let target = Target { container: ContainerRef::from(&info.id), ..target };
    let execs = if info.state.pid().is_some() { client.execs(target, SHIM_SAYS).await.ok() } else { Some(Vec::new()) };
    session.host.output.line(&serde_json::to_string_pretty(&InspectView::of(&info, execs.as_deref()))?)
}
