//! `contd ps`: lists containers.

use contd_client::{Deadline, ListFilter};
use contd_types::{ContainerSummary, Timestamp};

use crate::cli::args::Format;
use crate::cli::error::CliError;
use crate::cli::host::Session;
use crate::cli::view::SummaryView;
use crate::cli::{status, table};

/// How many characters of a flist's name a table shows, from its end.
const FLIST_CHARS: usize = 40;

/// The flags of `contd ps`.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct PsArgs {
    /// Show containers that have ended or failed, too
    #[arg(short, long)]
    all: bool,
    /// Show the containers of all namespaces
    #[arg(short = 'A', long)]
    all_namespaces: bool,
    /// Print ids only
    #[arg(short, long)]
    quiet: bool,
    /// Do not shorten ids and flists
    #[arg(long)]
    no_trunc: bool,
    /// Output format: a table, or one JSON object per line
    #[arg(long, default_value = "table")]
    format: Format,
}

/// Lists the containers.
pub(crate) async fn run(session: &Session<'_>, args: &PsArgs) -> Result<(), CliError> {
    let filter = if args.all_namespaces { ListFilter::All } else { ListFilter::Namespace(session.namespace.clone()) };
    let mut containers = session.connect().await?.list(filter, Deadline::Usual).await?;
    containers.retain(|container| args.all || status::is_alive(&container.state));
    // Newest first: people usually look for the container that they have just made.
    containers.sort_by(|a, b| b.created_at.cmp(&a.created_at).then_with(|| a.id.cmp(&b.id)));
    let text = if args.quiet {
        containers.iter().map(|container| format!("{}\n", id(container, args))).collect()
    } else if args.format == Format::Json {
        lines_of_json(&containers)?
    } else {
        table(&containers, args, session.host.clock.now())
    };
    session.host.output.data(text.as_bytes())
}

fn lines_of_json(containers: &[ContainerSummary]) -> Result<String, CliError> {
    let mut text = String::new();
    for container in containers {
        text.push_str(&serde_json::to_string(&SummaryView::from(container))?);
        text.push('\n');
    }
    Ok(text)
}

fn table(containers: &[ContainerSummary], args: &PsArgs, now: Timestamp) -> String {
    let mut head: Vec<String> = ["CONTAINER ID", "NAME", "STATUS", "FLIST", "CREATED"].map(str::to_owned).to_vec();
    if args.all_namespaces {
        head.insert(0, "NAMESPACE".to_owned());
    }
    let mut rows = vec![head];
    for container in containers {
        let mut row = vec![
            id(container, args),
            container.name.to_string(),
            status::describe(&container.state, container.started_at, now),
            if args.no_trunc { container.flist.clone() } else { end_of(&container.flist) },
            status::ago(container.created_at, now),
        ];
        if args.all_namespaces {
            row.insert(0, container.namespace.to_string());
        }
        rows.push(row);
    }
    table::render(&rows)
}

fn id(container: &ContainerSummary, args: &PsArgs) -> String {
    if args.no_trunc { container.id.as_str() } else { container.id.short() }.to_owned()
}

fn end_of(flist: &str) -> String {
    let count = flist.chars().count();
    match count.checked_sub(FLIST_CHARS) {
        None | Some(0) => flist.to_owned(),
        Some(extra) => format!("…{}", flist.chars().skip(extra + 1).collect::<String>()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_flist_keeps_its_end() {
        let long = format!("/{}/web.fl", "x".repeat(60));
        assert_eq!(end_of(&long).chars().count(), FLIST_CHARS);
        assert!(end_of(&long).starts_with('…') && end_of(&long).ends_with("/web.fl"));
        assert_eq!(end_of("/x.fl"), "/x.fl");
    }
}
