//! The filters of `ps` and `prune`: `--filter KEY=VALUE`.
//!
//! A container is chosen when each key that was given chooses it. Several filters of one key are alternatives, except of `label` and
//! `tag`: it must have all of these. So do docker and podman.

use contd_types::{ContainerRef, ContainerSummary, Exit, StateName, Timestamp};
use regex::Regex;

use crate::cli::error::CliError;
use crate::cli::moment::{Moment, moment};
use crate::cli::parse;

/// The help text on filters.
pub(crate) const FILTERS_HELP: &str = "\
Filters: id (its beginning), name (a regular expression), label (KEY or KEY=VALUE), tag, flist (its end; also ancestor), status (creating, created,
starting, running, paused, stopping, stopped or exited, backoff or restarting, failed, recovering, deleting or removing), exited (the exit code),
before and since (a container: made before or after it), until (a time, or how long ago: made before then). One container has to fit all keys that are
given; several of one key are alternatives, except labels and tags, which it has to have all.";

/// One filter.
#[derive(Debug, Clone)]
pub(crate) enum Filter {
    Id(String),
    Name(Regex),
    Label(String, Option<String>),
    Tag(String),
    Flist(String),
    Status(StateName),
    Exited(u8),
    Before(ContainerRef),
    Since(ContainerRef),
    Until(Moment),
}

/// Parses a filter.
pub(crate) fn filter(text: &str) -> Result<Filter, String> {
    let (key, value) = text.split_once('=').ok_or("write KEY=VALUE, for example status=running")?;
    if value.is_empty() {
        return Err(format!("{key}= has no value"));
    }
    match key {
        "id" => Ok(Filter::Id(value.to_owned())),
        "name" => Regex::new(value).map(Filter::Name).map_err(|error| format!("no regular expression: {error}")),
        "label" => Ok(match value.split_once('=') {
            Some((label, value)) => Filter::Label(label.to_owned(), Some(value.to_owned())),
            None => Filter::Label(value.to_owned(), None),
        }),
        "tag" => Ok(Filter::Tag(value.to_owned())),
        "flist" | "ancestor" => Ok(Filter::Flist(value.to_owned())),
        "status" => state(value).map(Filter::Status),
        "exited" => value.parse().map(Filter::Exited).map_err(|_| "exited= takes an exit code, 0 to 255".to_owned()),
        "before" => parse::container(value).map(Filter::Before),
        "since" => parse::container(value).map(Filter::Since),
        "until" => moment(value).map(Filter::Until),
        _ => Err("the keys are id, name, label, tag, flist, status, exited, before, since and until".to_owned()),
    }
}

/// Parses the name of a state, or docker's word for it.
pub(crate) fn state(text: &str) -> Result<StateName, String> {
    let name = match text {
        "exited" => "stopped",
        "restarting" => "backoff",
        "removing" => "deleting",
        name => name,
    };
    StateName::ALL.into_iter().find(|state| state.to_string() == name).ok_or_else(|| {
        let names: Vec<String> = StateName::ALL.iter().map(ToString::to_string).collect();
        format!("no state of a container: write one of {}", names.join(", "))
    })
}

impl Filter {
    /// Tells whether it may choose containers that have ended, which `ps` hides without being asked.
    pub(crate) fn is_about_ended(&self) -> bool {
        matches!(self, Self::Status(_) | Self::Exited(_))
    }

    fn key(&self) -> u8 {
        match self {
            Self::Id(_) => 0,
            Self::Name(_) => 1,
            Self::Label(..) => 2,
            Self::Tag(_) => 3,
            Self::Flist(_) => 4,
            Self::Status(_) => 5,
            Self::Exited(_) => 6,
            Self::Before(_) => 7,
            Self::Since(_) => 8,
            Self::Until(_) => 9,
        }
    }

    fn has_to_fit(&self) -> bool {
        matches!(self, Self::Label(..) | Self::Tag(_))
    }
}

/// Chooses containers; `all` are those among which `before` and `since` find theirs.
pub(crate) fn choose(
    filters: &[Filter],
    all: Vec<ContainerSummary>,
    now: Timestamp,
) -> Result<Vec<ContainerSummary>, CliError> {
    let mut tests: Vec<(&Filter, Test<'_>)> = Vec::new();
    for filter in filters {
        tests.push((filter, test(filter, &all, now)?));
    }
    let fits = |container: &ContainerSummary| {
        tests.iter().all(|(filter, test)| {
            test(container)
                || !filter.has_to_fit()
                    && tests.iter().any(|(other, test)| other.key() == filter.key() && test(container))
        })
    };
    let chosen: Vec<bool> = all.iter().map(fits).collect();
    drop(tests);
    Ok(all.into_iter().zip(chosen).filter_map(|(container, is_chosen)| is_chosen.then_some(container)).collect())
}

type Test<'a> = Box<dyn Fn(&ContainerSummary) -> bool + 'a>;

fn test<'a>(filter: &'a Filter, all: &[ContainerSummary], now: Timestamp) -> Result<Test<'a>, CliError> {
    Ok(match filter {
        Filter::Id(begin) => Box::new(|container| container.id.as_str().starts_with(begin.as_str())),
        Filter::Name(name) => Box::new(|container| name.is_match(container.name.as_str())),
        Filter::Label(key, value) => Box::new(|container| {
            let label = container.labels.get(key);
            label.is_some_and(|label| value.as_ref().is_none_or(|value| value == label))
        }),
        Filter::Tag(tag) => Box::new(|container| container.tags.contains(tag)),
        Filter::Flist(end) => Box::new(|container| container.flist.ends_with(end.as_str())),
        Filter::Status(state) => Box::new(|container| container.state.name() == *state),
        Filter::Exited(code) => Box::new(|container| container.state.exit().map(Exit::shell_code) == Some(*code)),
        Filter::Before(other) => {
            let at = made_at(other, all)?;
            Box::new(move |container| container.created_at < at)
        }
        Filter::Since(other) => {
            let at = made_at(other, all)?;
            Box::new(move |container| container.created_at > at)
        }
        Filter::Until(moment) => {
            let at = moment.resolve(now);
            Box::new(move |container| container.created_at < at)
        }
    })
}

fn made_at(wanted: &ContainerRef, all: &[ContainerSummary]) -> Result<Timestamp, CliError> {
    let named = |container: &&ContainerSummary| container.name.as_str() == wanted.as_str();
    let found = all.iter().find(named).or_else(|| {
        let mut begin = all.iter().filter(|container| container.id.as_str().starts_with(wanted.as_str()));
        begin.next().filter(|_| begin.next().is_none())
    });
    found.map(|container| container.created_at).ok_or_else(|| CliError::NoSuchFilter { container: wanted.clone() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::tests::samples::{self, NOW, before};

    fn chosen(filters: &[&str]) -> Vec<String> {
        let filters: Vec<Filter> = filters.iter().map(|text| filter(text).expect("a filter")).collect();
        let mut all = samples::summaries();
        all[0].tags = vec!["a".to_owned(), "b".to_owned()];
        let chosen = choose(&filters, all, NOW).expect("found");
        chosen.into_iter().map(|container| container.name.to_string()).collect()
    }

    #[test]
    fn each_key_chooses_by_its_own() {
        for (text, names) in [
            ("id=abab", vec!["web"]),
            ("id=bab", vec![]),
            ("name=e", vec!["web"]),
            ("name=^(web|job)$", vec!["web", "job"]),
            ("label=tier", vec!["web", "job"]),
            ("label=tier=back", vec![]),
            ("tag=b", vec!["web"]),
            ("flist=web.fl", vec!["web", "job"]),
            ("ancestor=other.fl", vec![]),
            ("status=running", vec!["web"]),
            ("status=exited", vec!["job"]),
            ("exited=7", vec!["job"]),
            ("exited=0", vec![]),
            ("before=web", vec!["job"]),
            ("since=job", vec!["web"]),
            ("since=cdcd", vec!["web"]),
            ("until=1h", vec!["job"]),
            ("until=10s", vec!["web", "job"]),
        ] {
            assert_eq!(chosen(&[text]), names, "{text}");
        }
        assert!(before(4000) < before(200));
    }

    #[test]
    fn several_of_one_key_are_alternatives_except_labels_and_tags() {
        assert_eq!(chosen(&["status=running", "status=stopped"]), ["web", "job"]);
        assert_eq!(chosen(&["status=running", "status=stopped", "exited=7"]), ["job"]);
        assert_eq!(chosen(&["tag=a", "tag=b"]), ["web"]);
        assert_eq!(chosen(&["tag=a", "tag=c"]), Vec::<String>::new());
    }

    #[test]
    fn what_is_no_filter_is_refused_with_what_is() {
        for (bad, word) in [
            ("status", "KEY=VALUE"),
            ("status=", "no value"),
            ("status=up", "running"),
            ("colour=red", "status"),
            ("name=(", "regular expression"),
            ("exited=x", "exit code"),
            ("before=a/b", "a/b"),
            ("until=soon", "how long ago"),
        ] {
            let error = filter(bad).expect_err(bad);
            assert!(error.contains(word), "{bad}: {error}");
        }
        let filters = [filter("before=nobody").expect("a filter")];
        assert!(choose(&filters, samples::summaries(), NOW).is_err());
    }
}
