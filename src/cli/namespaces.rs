//! `contd namespaces`: lists the namespaces that have containers.

use contd_client::Deadline;
use serde_json::json;

use crate::cli::args::Format;
use crate::cli::error::CliError;
use crate::cli::host::Session;
use crate::cli::table;

/// The flags of `contd namespaces`.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct NamespacesArgs {
    /// Output format: a table, or one JSON object per line
    #[arg(long, default_value = "table")]
    format: Format,
}

/// Lists the namespaces.
pub(crate) async fn run(session: &Session<'_>, args: &NamespacesArgs) -> Result<(), CliError> {
    let namespaces = session.connect().await?.list_namespaces(Deadline::Usual).await?;
    let text: String = match args.format {
        Format::Json => namespaces
            .iter()
            .map(|entry| {
                let name = entry.namespace.as_str();
                format!("{}\n", json!({"namespace": name, "containers": entry.containers, "running": entry.running}))
            })
            .collect(),
        Format::Table => {
            let mut rows = vec![["NAMESPACE", "CONTAINERS", "RUNNING"].map(str::to_owned).to_vec()];
            rows.extend(namespaces.iter().map(|entry| {
                vec![entry.namespace.to_string(), entry.containers.to_string(), entry.running.to_string()]
            }));
            table::render(&rows)
        }
    };
    session.host.output.data(text.as_bytes())
}
