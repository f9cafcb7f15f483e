//! `contd prune`: removes all containers that have ended.

use std::io::{BufRead as _, IsTerminal as _};

use contd_client::{ClientError, Deadline, ListFilter};
use contd_protocol::api::Target;
use contd_types::{ContainerRef, ErrorKind};

use crate::cli::error::CliError;
use crate::cli::filter::{self, Filter};
use crate::cli::host::Session;
use crate::cli::status;

/// The flags of `contd prune`.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct PruneArgs {
    /// Do not ask
    #[arg(short, long)]
    force: bool,
    /// Remove those of all namespaces
    #[arg(short = 'A', long)]
    all_namespaces: bool,
    /// Remove only containers that fit
    #[arg(long = "filter", value_name = "KEY=VALUE", value_parser = filter::filter)]
    filters: Vec<Filter>,
}

/// Removes the containers and prints the id of each removed one.
pub(crate) async fn run(session: &Session<'_>, args: PruneArgs) -> Result<u8, CliError> {
    let scope = if args.all_namespaces { ListFilter::All } else { ListFilter::Namespace(session.namespace.clone()) };
    let client = session.connect().await?;
    let all = client.list(scope, Deadline::Usual).await?;
    let mut ended = filter::choose(&args.filters, all, session.host.clock.now())?;
    ended.retain(|container| !status::is_alive(&container.state));
    if ended.is_empty() || !(args.force || may(session, ended.len())?) {
        return Ok(0);
    }
    let mut code = 0;
    for container in ended {
        let target = Target { namespace: container.namespace, container: ContainerRef::from(&container.id) };
        // One that was started meanwhile is a conflict, and stays.
        match client.delete(target, false, None, Deadline::Usual).await {
            Ok(()) => session.host.output.line(container.id.as_str())?,
            // Somebody else was faster.
            Err(ClientError::Api(error)) if error.kind == ErrorKind::NotFound => {}
            Err(error) => {
                let error = CliError::from(error);
                error.report(&session.host.output);
                code = error.code();
            }
        }
    }
    Ok(code)
}

/// Asks the user.
fn may(session: &Session<'_>, count: usize) -> Result<bool, CliError> {
    let input = std::io::stdin();
    if !input.is_terminal() {
        return Err(CliError::NobodyToAsk);
    }
    session.host.output.tell(&format!("Remove {count} containers that have ended, with what they wrote? [y/N] "));
    let mut answer = String::new();
    input.lock().read_line(&mut answer).map_err(|source| CliError::Runtime { source })?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}
