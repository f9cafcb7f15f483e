//! `contd ps`: lists containers.

use contd_client::{Deadline, ListFilter};
use contd_types::{ContainerSummary, Timestamp};

use crate::cli::args::Format;
use crate::cli::error::CliError;
use crate::cli::filter::{self, Filter};
use crate::cli::host::Session;
use crate::cli::view::{SummaryView, command_line};
use crate::cli::{status, table};

/// How many characters of a flist's name a table shows, from its end.
const FLIST_CHARS: usize = 40;
/// How many characters of a command a table shows, from its beginning.
const COMMAND_CHARS: usize = 30;

/// The flags of `contd ps`.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct PsArgs {
    /// Show containers that have ended or failed, too
    #[arg(short, long)]
    all: bool,
    /// Show the containers of all namespaces
    #[arg(short = 'A', long)]
    all_namespaces: bool,
    /// Show only containers that fit, of all states if it is about their state
    #[arg(short, long = "filter", value_name = "KEY=VALUE", value_parser = filter::filter)]
    filters: Vec<Filter>,
    /// Show the last N containers that were made, of all states
    #[arg(short = 'n', long, value_name = "N", value_parser = last)]
    last: Option<usize>,
    /// Show the container that was made last, of all states
    #[arg(short, long, conflicts_with = "last")]
    latest: bool,
    /// Print ids only
    #[arg(short, long)]
    quiet: bool,
    /// Do not shorten ids, flists and commands
    #[arg(long)]
    no_trunc: bool,
    /// Output format: a table, or one JSON object per line
    #[arg(long, default_value = "table")]
    format: Format,
}

/// Lists the containers.
pub(crate) async fn run(session: &Session<'_>, args: &PsArgs) -> Result<(), CliError> {
    let filter = if args.all_namespaces { ListFilter::All } else { ListFilter::Namespace(session.namespace.clone()) };
    let all = session.connect().await?.list(filter, Deadline::Usual).await?;
    let mut containers = filter::choose(&args.filters, all, session.host.clock.now())?;
    let last = if args.latest { Some(1) } else { args.last };
    let is_of_all_states = args.all || last.is_some() || args.filters.iter().any(Filter::is_about_ended);
    containers.retain(|container| is_of_all_states || status::is_alive(&container.state));
    // Newest first: people usually look for the container that they have just made.
    containers.sort_by(|a, b| b.created_at.cmp(&a.created_at).then_with(|| a.id.cmp(&b.id)));
    containers.truncate(last.unwrap_or(usize::MAX));
    let text = if args.quiet {
        containers.iter().map(|container| format!("{}\n", id(container, args))).collect()
    } else if args.format == Format::Json {
        lines_of_json(&containers)?
    } else {
        table(&containers, args, session.host.clock.now())
    };
    session.host.output.data(text.as_bytes())
}

/// Parses a number of containers.
fn last(text: &str) -> Result<usize, String> {
    text.parse()
        .map_err(|_| format!("not a number of containers; a namespace stands before the verb: contd -n {text} ps"))
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
    let mut head: Vec<String> =
        ["CONTAINER ID", "NAME", "STATUS", "FLIST", "COMMAND", "CREATED"].map(str::to_owned).to_vec();
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
            begin_of(&container.entrypoint.as_ref().map(command_line).unwrap_or_default(), args),
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

fn begin_of(command: &str, args: &PsArgs) -> String {
    if args.no_trunc || command.chars().count() <= COMMAND_CHARS {
        return command.to_owned();
    }
    command.chars().take(COMMAND_CHARS - 1).chain(['…']).collect()
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
