//! `contd events`: shows events as they happen.

use contd_client::EventItem;
use contd_types::{ContainerEvent, EventKind};
use serde_json::{Value, json};

use crate::cli::args::Format;
use crate::cli::error::CliError;
use crate::cli::host::Session;

/// The flags of `contd events`.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct EventsArgs {
    /// First sequence number to show, if it is still kept [default: the next event]
    #[arg(long, value_name = "NUMBER")]
    from: Option<u64>,
    /// Show the events of all namespaces
    #[arg(short = 'A', long)]
    all_namespaces: bool,
    /// Output format: lines for people, or one JSON object per line
    #[arg(long, default_value = "table")]
    format: Format,
}

/// Shows events until the command is ended.
pub(crate) async fn run(session: &Session<'_>, args: EventsArgs) -> Result<(), CliError> {
    let namespace = (!args.all_namespaces).then(|| session.namespace.clone());
    let mut events = session.follow().await?.events(args.from, namespace).await?;
    while let Some(item) = events.next().await {
        let item = item?;
        let line = match args.format {
            Format::Json => as_json(&item).to_string(),
            Format::Table => as_text(&item),
        };
        session.host.output.line(&line)?;
    }
    Ok(())
}

fn as_text(item: &EventItem) -> String {
    match item {
        EventItem::Gap { from, to } => format!("(events {from} to {} are no longer kept)", to.saturating_sub(1)),
        EventItem::Event { event, .. } => {
            let ContainerEvent { namespace, id, name, at, .. } = event;
            let (word, detail) = words(&event.kind);
            format!("{at} {namespace} {name} ({}) {word} {detail}", id.short()).trim_end().to_owned()
        }
    }
}

fn as_json(item: &EventItem) -> Value {
    match item {
        EventItem::Gap { from, to } => json!({ "event": "gap", "from": from, "to": to }),
        EventItem::Event { seq, event } => {
            let (word, detail) = words(&event.kind);
            let mut value = json!({
                "seq": seq,
                "at": event.at.to_string(),
                "namespace": event.namespace.as_str(),
                "id": event.id.as_str(),
                "name": event.name.as_str(),
                "event": word,
                "detail": detail,
            });
            if let (EventKind::Exited { exit }, Some(fields)) = (&event.kind, value.as_object_mut()) {
                fields.insert("exit_code".to_owned(), json!(exit.shell_code()));
            }
            value
        }
    }
}

fn words(kind: &EventKind) -> (&'static str, String) {
    match kind {
        EventKind::Accepted => ("accepted", String::new()),
        EventKind::Started { pid } => ("started", format!("pid {pid}")),
        EventKind::Failed { step, reason } => ("failed", format!("{step}: {reason}")),
        EventKind::StopRequested => ("stop-requested", String::new()),
        EventKind::Exited { exit } => ("exited", exit.to_string()),
        EventKind::BackoffBegun { attempt } => ("backoff", format!("restart {attempt}")),
        EventKind::Recovered => ("recovered", String::new()),
        EventKind::Deleted => ("deleted", String::new()),
        EventKind::Created => ("created", String::new()),
        EventKind::RootLost { reason } => ("root-lost", reason.clone()),
        EventKind::Paused => ("paused", String::new()),
        EventKind::Resumed => ("resumed", String::new()),
        EventKind::LogTrimmed { files, bytes } => ("log-trimmed", format!("{files} rotated files, {bytes} bytes")),
    }
}
