//! `contd inspect`: shows everything about one container, as one JSON object.

use contd_client::Deadline;
use contd_types::ContainerRef;

use crate::cli::error::CliError;
use crate::cli::host::Session;
use crate::cli::parse;
use crate::cli::view::ContainerView;

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
    let info = session.connect().await?.inspect(target, Deadline::Usual).await?;
    session.host.output.line(&serde_json::to_string_pretty(&ContainerView::from(&info))?)
}
