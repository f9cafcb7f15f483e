//! Parses values of flags as people type them: limits, times, pairs, names. Sizes and CPUs are those of `contd_types::amount`.

use std::str::FromStr;
use std::time::Duration;

use contd_types::amount::{Decimal, NO_LIMIT, is_below_zero};
pub(crate) use contd_types::amount::{cpus, size};
use contd_types::{ContainerName, ContainerRef, NamespaceId, NetnsName, Network, RestartPolicy, Signal, UserSpec};

/// Parses a size that is a limit.
pub(crate) fn limit_size(text: &str) -> Result<u64, String> {
    match size(text) {
        Ok(0) => Err(format!("0 {NO_LIMIT}")),
        Err(_) if is_below_zero(text) => Err(format!("a size below 0 {NO_LIMIT}")),
        other => other,
    }
}

/// Parses a number of processes.
pub(crate) fn pids(text: &str) -> Result<u32, String> {
    match text.parse::<u32>() {
        Ok(0) => Err(format!("0 {NO_LIMIT}")),
        Ok(number) => Ok(number),
        Err(_) if is_below_zero(text) => Err(format!("a number below 0 {NO_LIMIT}")),
        Err(_) => Err("not a number of processes: write for example 100".to_owned()),
    }
}

/// Parses the value of a flag that may be given without one, in the forms of Go.
pub(crate) fn boolean(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err("write true or false, or the flag alone".to_owned()),
    }
}

/// A list of words from one value; clap takes a plain `Vec` for a value given several times.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Words(pub(crate) Vec<String>);

/// Parses an entrypoint: one program, or a JSON list; empty for none.
pub(crate) fn entrypoint(text: &str) -> Result<Words, String> {
    match text {
        "" => Ok(Words(Vec::new())),
        list if list.starts_with('[') => serde_json::from_str(list)
            .map(Words)
            .map_err(|error| format!("not a JSON list of texts: {error}; write for example [\"sh\", \"-c\"]")),
        program => Ok(Words(vec![program.to_owned()])),
    }
}

/// Parses a number of seconds, for example `10` or `0.5`.
pub(crate) fn seconds(text: &str) -> Result<Duration, String> {
    let millis = Decimal::parse(text).and_then(|seconds| seconds.times(1000));
    millis.map(Duration::from_millis).ok_or_else(|| "not a number of seconds".to_owned())
}

/// Parses a number of lines, or `all`.
pub(crate) fn lines(text: &str) -> Result<Tail, String> {
    match text {
        "all" => Ok(Tail(None)),
        _ => text.parse().map(|lines| Tail(Some(lines))).map_err(|_| "not a number of lines, nor `all`".to_owned()),
    }
}

/// The number of lines from the end; `None` is all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Tail(pub(crate) Option<u64>);

/// Parses `KEY=VALUE`, or `KEY` with an empty value.
pub(crate) fn label(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').unwrap_or((text, ""));
    if key.is_empty() { Err("the key is empty: write KEY=VALUE".to_owned()) } else { Ok((key.into(), value.into())) }
}

/// Parses `KEY=VALUE`.
pub(crate) fn pair(text: &str) -> Result<(String, String), String> {
    if text.contains('=') { label(text) } else { Err("write KEY=VALUE".to_owned()) }
}

/// Parses the network: `none`, `NAME`, or `ns:NAME` for a namespace whose name is `none`.
pub(crate) fn network(text: &str) -> Result<Network, String> {
    if text == "none" {
        return Ok(Network::Private);
    }
    let name = text.strip_prefix("ns:").unwrap_or(text);
    named(NetnsName::new(name)).map(Network::Named)
}

/// Parses a reference to a container.
pub(crate) fn container(text: &str) -> Result<ContainerRef, String> {
    named(ContainerRef::new(text))
}

/// Parses the name of a container.
pub(crate) fn container_name(text: &str) -> Result<ContainerName, String> {
    named(ContainerName::new(text))
}

/// Parses a namespace.
pub(crate) fn namespace(text: &str) -> Result<NamespaceId, String> {
    named(NamespaceId::new(text))
}

/// Parses a user.
pub(crate) fn user(text: &str) -> Result<UserSpec, String> {
    UserSpec::new(text).map_err(|error| format!("{error}; {}", error.hint()))
}

/// Parses a restart policy.
pub(crate) fn restart(text: &str) -> Result<RestartPolicy, String> {
    RestartPolicy::from_str(text).map_err(|error| format!("{error}; {}", error.hint()))
}

/// Parses a signal.
pub(crate) fn signal(text: &str) -> Result<Signal, String> {
    text.parse().map_err(|error: contd_types::signal::SignalError| error.to_string())
}

fn named<T>(result: Result<T, contd_types::NameError>) -> Result<T, String> {
    result.map_err(|error| format!("{error}; {}", error.hint()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sizes_have_units_of_1024_in_either_case() {
        for (text, bytes) in [
            ("0", 0),
            ("512", 512),
            ("512b", 512),
            ("4k", 4096),
            ("4KiB", 4096),
            ("64m", 64 << 20),
            ("1.5g", 3 << 29),
            ("2T", 2 << 40),
        ] {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn what_is_no_size_is_refused() {
        for bad in ["", ".", "m", "-1", "1x", "1 g", "1..5g", "5.g", "1e3", "0x10", "99999999999t", "٣m"] {
            assert!(size(bad).is_err(), "{bad:?} was accepted");
        }
        assert_eq!(size(".5g"), Ok(1 << 29));
    }

    #[test]
    fn no_limit_is_no_value_of_a_limit() {
        for none in ["0", "0m", "0.0g", "-1", "-1m"] {
            assert!(limit_size(none).is_err_and(|error| error.contains("the node's default")), "{none}");
        }
        assert_eq!(limit_size("64m"), Ok(64 << 20));
        assert!(limit_size("none").is_err_and(|error| error.contains("512m")));
        for none in ["0", "-1", "-100"] {
            assert!(pids(none).is_err_and(|error| error.contains("the node's default")), "{none}");
        }
        assert_eq!(pids("9"), Ok(9));
        assert!(pids("").is_err() && pids("many").is_err() && pids("5000000000").is_err());
        for none in ["0", "0.0", "-1", "-0.5"] {
            assert!(cpus(none).is_err_and(|error| error.contains("the node's default")), "{none}");
        }
    }

    #[test]
    fn flags_that_stand_alone_take_what_go_takes() {
        for (text, expected) in
            [("true", true), ("1", true), ("T", true), ("false", false), ("0", false), ("False", false)]
        {
            assert_eq!(boolean(text), Ok(expected), "{text}");
        }
        assert!(boolean("").is_err() && boolean("yes").is_err());
    }

    #[test]
    fn cpus_are_thousandths_rounded_down() {
        for (text, millis) in [("1", 1000), ("0.5", 500), ("1.2345", 1234), ("0.010", 10)] {
            assert_eq!(cpus(text).map(contd_types::CpuLimit::millis), Ok(millis), "{text}");
        }
        for bad in ["0", "0.001", "-1", "x", "5000000"] {
            assert!(cpus(bad).is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn seconds_may_have_a_fraction() {
        assert_eq!(seconds("10"), Ok(Duration::from_secs(10)));
        assert_eq!(seconds("0.25"), Ok(Duration::from_millis(250)));
        assert!(seconds("10s").is_err());
    }

    #[test]
    fn a_network_is_none_a_name_or_a_prefixed_name() {
        assert_eq!(network("none"), Ok(Network::Private));
        let blue = || Network::Named(NetnsName::new("blue").expect("valid"));
        assert_eq!(network("blue"), Ok(blue()));
        assert_eq!(network("ns:blue"), Ok(blue()));
        assert_eq!(network("ns:none"), Ok(Network::Named(NetnsName::new("none").expect("valid"))));
        for bad in ["", "../x", "/run/netns/x", "ns:"] {
            assert!(network(bad).is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn labels_may_lack_a_value_and_pairs_may_not() {
        assert_eq!(label("a=b=c"), Ok(("a".into(), "b=c".into())));
        assert_eq!(label("a"), Ok(("a".into(), String::new())));
        assert!(label("=x").is_err());
        assert!(pair("a").is_err());
    }

    #[test]
    fn tails_are_numbers_or_all() {
        assert_eq!(lines("all"), Ok(Tail(None)));
        assert_eq!(lines("0"), Ok(Tail(Some(0))));
        assert!(lines("-1").is_err());
    }

    proptest! {
        #[test]
        fn every_whole_number_of_a_unit_is_itself(number in 0u64..1 << 23, unit in 0u32..5) {
            let (name, factor) = [("b", 1), ("k", 1 << 10), ("m", 1 << 20), ("g", 1 << 30), ("t", 1u64 << 40)][unit as usize];
            prop_assert_eq!(size(&format!("{number}{name}")), Ok(number * factor));
            prop_assert_eq!(size(&format!("{number}.0{}", name.to_uppercase())), Ok(number * factor));
        }

        #[test]
        fn a_fraction_lies_between_its_whole_numbers(whole in 0u64..1 << 20, fraction in "[0-9]{1,20}") {
            let bytes = size(&format!("{whole}.{fraction}g")).expect("a size");
            prop_assert!(bytes >= whole << 30 && bytes < (whole + 1) << 30);
        }

        #[test]
        fn no_text_makes_a_parser_panic(text in ".{0,40}") {
            let _ = (size(&text), cpus(&text), seconds(&text), lines(&text), network(&text), label(&text));
        }
    }
}
