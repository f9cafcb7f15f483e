//! `contd events`: shows what happened, and what happens.

use contd_client::{Deadline, EventItem};
use contd_types::{ContainerEvent, EventKind, Timestamp};
use serde_json::{Value, json};

use crate::cli::args::Format;
use crate::cli::error::CliError;
use crate::cli::host::Session;
use crate::cli::moment::{Moment, moment};
use crate::cli::table::printable;

/// The help text on the filters.
pub(crate) const FILTERS_HELP: &str = "\
Filters: event (accepted, created, started, failed, stop-requested, exited, backoff, recovered, root-lost, paused, resumed, log-trimmed, deleted),
container (a name, or the beginning of an id), namespace. An event has to fit all keys that are given; several of one key are alternatives.";

/// The flags of `contd events`.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct EventsArgs {
    /// First sequence number to show, if it is still kept [default: the next event]
    #[arg(long, value_name = "NUMBER", conflicts_with = "since")]
    from: Option<u64>,
    /// Show what happened from then on, if it is still kept: a time, or how long ago (10m)
    #[arg(long, value_name = "TIME", value_parser = moment)]
    since: Option<Moment>,
    /// Show what happened up to then, and end
    #[arg(long, value_name = "TIME", value_parser = moment)]
    until: Option<Moment>,
    /// Show only events that fit
    #[arg(short, long = "filter", value_name = "KEY=VALUE", value_parser = filter)]
    filters: Vec<Filter>,
    /// Show the events of all namespaces
    #[arg(short = 'A', long)]
    all_namespaces: bool,
    /// Output format: lines for people, or one JSON object per line
    #[arg(long, default_value = "table")]
    format: Format,
}

/// One filter.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Filter {
    Event(String),
    Container(String),
    Namespace(String),
}

fn filter(text: &str) -> Result<Filter, String> {
    match text.split_once('=') {
        Some(("event", word)) if WORDS.contains(&word) => Ok(Filter::Event(word.to_owned())),
        Some(("event", _)) => Err(format!("no event has this name; there are {}", WORDS.join(", "))),
        Some(("container", container)) if !container.is_empty() => Ok(Filter::Container(container.to_owned())),
        Some(("namespace", namespace)) if !namespace.is_empty() => Ok(Filter::Namespace(namespace.to_owned())),
        _ => Err("write event=NAME, container=CONTAINER or namespace=NAMESPACE".to_owned()),
    }
}

/// Chooses events.
#[derive(Debug)]
struct Choice<'a> {
    since: Option<Timestamp>,
    until: Timestamp,
    filters: &'a [Filter],
}

impl Choice<'_> {
    fn has(&self, event: &ContainerEvent) -> bool {
        let fits = |filter: &Filter| match filter {
            Filter::Event(word) => words(&event.kind).0 == word,
            Filter::Container(name) => event.name.as_str() == name || event.id.as_str().starts_with(name.as_str()),
            Filter::Namespace(namespace) => event.namespace.as_str() == namespace,
        };
        let fits_one_of_its_key = |filter: &Filter| {
            let mut same =
                self.filters.iter().filter(|other| std::mem::discriminant(*other) == std::mem::discriminant(filter));
            same.any(fits)
        };
        self.since.is_none_or(|since| since <= event.at)
            && event.at <= self.until
            && self.filters.iter().all(fits_one_of_its_key)
    }
}

/// Shows events until the command is ended, or the time is over.
pub(crate) async fn run(session: &Session<'_>, args: EventsArgs) -> Result<(), CliError> {
    let now = session.host.clock.now();
    let until = args.until.map(|until| until.resolve(now));
    let choice = Choice {
        since: args.since.map(|since| since.resolve(now)),
        until: until.unwrap_or(Timestamp(u64::MAX)),
        filters: &args.filters,
    };
    let namespace = (!args.all_namespaces).then(|| session.namespace.clone());
    // All that is kept, unless only new ones are wanted.
    let from = args.from.or((args.since.is_some() || until.is_some_and(|until| until <= now)).then_some(1));
    let mut teller = Teller { session, format: args.format, choice, gap: None };
    match until {
        Some(until) if until <= now => {
            let mut events = session.connect().await?.events(from, namespace, Deadline::Never).await?;
            while let Some(item) = events.next().await {
                match item? {
                    // All that had happened was given.
                    EventItem::Gap { from, to } if from == to => break,
                    item => teller.tell(item)?,
                }
            }
        }
        _ => {
            let over = tokio::time::sleep(until.unwrap_or(Timestamp(u64::MAX)).saturating_since(now));
            tokio::pin!(over);
            let mut events = session.follow().await?.events(from, namespace).await?;
            loop {
                let item = tokio::select! {
                    item = events.next() => item,
                    () = &mut over, if until.is_some() => None,
                };
                let Some(item) = item else { break };
                teller.tell(item?)?;
            }
        }
    }
    teller.tell_gap()
}

/// Writes down the chosen ones.
struct Teller<'a> {
    session: &'a Session<'a>,
    format: Format,
    choice: Choice<'a>,
    /// Told only if there could have been chosen ones in it.
    gap: Option<EventItem>,
}

impl Teller<'_> {
    fn tell(&mut self, item: EventItem) -> Result<(), CliError> {
        match &item {
            EventItem::Gap { .. } => {
                self.tell_gap()?;
                self.gap = Some(item);
                Ok(())
            }
            EventItem::Event { event, .. } => {
                if self.choice.since.is_none_or(|since| event.at > since) {
                    self.tell_gap()?;
                }
                self.gap = None;
                if self.choice.has(event) { self.write(&item) } else { Ok(()) }
            }
        }
    }

    fn tell_gap(&mut self) -> Result<(), CliError> {
        self.gap.take().map_or(Ok(()), |gap| self.write(&gap))
    }

    fn write(&self, item: &EventItem) -> Result<(), CliError> {
        let line = match self.format {
            Format::Json => as_json(item).to_string(),
            Format::Table => printable(&as_text(item)),
        };
        self.session.host.output.line(&line)
    }
}

fn as_text(item: &EventItem) -> String {
    match item {
        EventItem::Gap { from, to } => format!("(events {from} to {} are no longer kept)", to.saturating_sub(1)),
        EventItem::Event { event, .. } => {
            let ContainerEvent { namespace, id, name, at, .. } = event;
            let (word, detail) = words(&event.kind);
            format!("{at} {namespace} {name} ({}) {word} {detail}", id.short())
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

/// The names of all events, as [`words`] gives them.
const WORDS: [&str; 13] = [
    "accepted",
    "created",
    "started",
    "failed",
    "stop-requested",
    "exited",
    "backoff",
    "recovered",
    "root-lost",
    "paused",
    "resumed",
    "log-trimmed",
    "deleted",
];

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::tests::samples;
    use contd_types::{ContainerName, NamespaceId, Pid};

    #[test]
    fn an_event_fits_one_of_each_key_and_the_time() {
        let event = ContainerEvent {
            namespace: NamespaceId::new("blue").expect("valid"),
            id: samples::id(0xab),
            name: ContainerName::new("web").expect("valid"),
            at: Timestamp(5),
            kind: EventKind::Started { pid: Pid(1) },
        };
        for (filters, has) in [
            (vec![], true),
            (vec!["event=started"], true),
            (vec!["event=exited", "event=started"], true),
            (vec!["event=exited"], false),
            (vec!["event=started", "container=web"], true),
            (vec!["event=started", "container=job"], false),
            (vec!["container=abab"], true),
            (vec!["namespace=blue"], true),
            (vec!["namespace=red"], false),
        ] {
            let parsed: Vec<Filter> = filters.iter().map(|text| filter(text).expect("a filter")).collect();
            let choice = Choice { since: Some(Timestamp(5)), until: Timestamp(5), filters: &parsed };
            assert_eq!(choice.has(&event), has, "{filters:?}");
        }
        for (since, until) in [(0, 4), (6, 9)] {
            assert!(!Choice { since: Some(Timestamp(since)), until: Timestamp(until), filters: &[] }.has(&event));
        }
    }

    #[test]
    fn filters_and_their_help_know_every_event_and_nothing_else() {
        for word in WORDS {
            assert!(filter(&format!("event={word}")).is_ok(), "{word}");
            let listed = FILTERS_HELP.split(|c: char| !(c.is_alphanumeric() || c == '-')).any(|known| known == word);
            assert!(listed, "{word} is missing in the help");
        }
        for bad in ["event=die", "type=container", "container=", "event"] {
            assert!(filter(bad).is_err(), "{bad}");
        }
    }
}
