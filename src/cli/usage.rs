//! Wrong usage: shows clap's message without misleading parts, and sets the exit code.

use std::ffi::OsString;

use clap::error::{ContextKind, ContextValue, ErrorKind};

use crate::cli::args::Cli;
use crate::cli::error::{CliError, ENGINE_FAILED};
use crate::cli::host::Host;
use crate::cli::others;

/// The exit code of wrong usage, as clap sets it.
const USAGE: u8 = 2;
/// Verbs and flags that end or remove something. They are never suggested.
const HARMFUL: [&str; 9] = ["kill", "pause", "prune", "restart", "rm", "shutdown", "stop", "--force", "--fix"];

/// Reports wrong usage; help and version go to standard output. Returns the exit code.
pub(crate) fn tell(mut error: clap::Error, words: &[OsString], host: &Host) -> u8 {
    if !error.use_stderr() {
        let text = error.render().to_string();
        return host.output.data(text.as_bytes()).map_or_else(|error: CliError| error.code(), |()| 0);
    }
    let verb = verb(words);
    let is_run = matches!(verb.as_deref(), Some("run" | "create" | "exec" | "attach"));
    keep_honest(&mut error, is_run);
    tell_why(&mut error, verb.as_deref());
    let text = error.render();
    host.output.tell(&if host.output.is_err_terminal { text.ansi().to_string() } else { text.to_string() });
    // Any other code could be the container's own; docker and podman use this one too.
    if is_run { ENGINE_FAILED } else { USAGE }
}

/// Finds the verb in words that clap could not parse.
fn verb(words: &[OsString]) -> Option<String> {
    let root = Cli::grammar();
    let takes_value = |word: &str| {
        let is_named = |arg: &clap::Arg| {
            let long = arg.get_long().is_some_and(|long| word.strip_prefix("--") == Some(long));
            long || arg.get_short().is_some_and(|short| word.strip_prefix('-') == Some(short.encode_utf8(&mut [0; 4])))
        };
        root.get_opts().any(is_named)
    };
    let mut words = words.iter().skip(1).map(|word| word.to_string_lossy());
    while let Some(word) = words.next() {
        if !word.starts_with('-') {
            return Some(word.into_owned());
        }
        if takes_value(&word) {
            words.next();
        }
    }
    None
}

/// Says why there is not what other engines have.
fn tell_why(error: &mut clap::Error, verb: Option<&str>) {
    let Some(verb) = verb else { return };
    let why = match (error.kind(), error.get(ContextKind::InvalidArg)) {
        (ErrorKind::InvalidSubcommand, _) => others::why_no_verb(verb),
        (ErrorKind::UnknownArgument, Some(ContextValue::String(flag))) => {
            let flag = flag.split('=').next().unwrap_or_default();
            others::why_no_flag(verb, short_of(flag).unwrap_or(flag))
        }
        _ => None,
    };
    if let Some(why) = why {
        error.remove(ContextKind::SuggestedArg);
        error.remove(ContextKind::SuggestedSubcommand);
        error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![why.into()]));
    }
}

/// Returns the long name of a short flag that other engines have.
fn short_of(flag: &str) -> Option<&'static str> {
    Some(match flag {
        "-p" => "--publish",
        "-P" => "--publish-all",
        "-l" => "--latest",
        "-a" => "--all",
        _ => return None,
    })
}

/// Removes suggestions that no typing error explains, that do harm, or that are wrong.
fn keep_honest(error: &mut clap::Error, is_run: bool) {
    let given = match (error.get(ContextKind::InvalidSubcommand), error.get(ContextKind::InvalidArg)) {
        (Some(ContextValue::String(given)), _) | (None, Some(ContextValue::String(given))) => given.clone(),
        _ => return,
    };
    match error.remove(ContextKind::SuggestedSubcommand) {
        Some(ContextValue::Strings(mut names)) => {
            names.retain(|name| is_good_guess(&given, name));
            if !names.is_empty() {
                error.insert(ContextKind::SuggestedSubcommand, ContextValue::Strings(names));
            }
        }
        Some(ContextValue::String(name)) if is_good_guess(&given, &name) => {
            error.insert(ContextKind::SuggestedSubcommand, ContextValue::String(name));
        }
        _ => {}
    }
    if let Some(ContextValue::String(name)) = error.remove(ContextKind::SuggestedArg)
        && is_good_guess(&given, &name)
    {
        error.insert(ContextKind::SuggestedArg, ContextValue::String(name));
    }
    // The word after `--` would be the flist.
    if is_run && error.kind() == ErrorKind::UnknownArgument {
        error.remove(ContextKind::Suggested);
    }
    if error.kind() == ErrorKind::UnknownArgument && given == "-n" {
        let tip = "the namespace stands before the verb: contd -n NAMESPACE ..., or is --namespace NAMESPACE behind it";
        error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![tip.into()]));
    }
}

/// Tells whether `given` may be a mistyped `name`: one error in a short word, two in a long one.
fn is_good_guess(given: &str, name: &str) -> bool {
    let slips = if name.trim_start_matches('-').chars().count() > 5 { 2 } else { 1 };
    !HARMFUL.contains(&name) && strsim::damerau_levenshtein(given, name) <= slips
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every verb is in one of the two lists: add a new one here or to [`HARMFUL`].
    const HARMLESS: [&str; 34] = [
        "attach",
        "cache",
        "completion",
        "create",
        "daemon",
        "doctor",
        "events",
        "exec",
        "flist",
        "import",
        "inspect",
        "logs",
        "ls",
        "namespaces",
        "pack",
        "ps",
        "run",
        "server",
        "shim",
        "start",
        "stats",
        "top",
        "unpause",
        "unpack",
        "update",
        "upgrade",
        "verify",
        "man",
        "version",
        "wait",
        "route",
        "set",
        "add",
        "list",
    ];

    fn verbs(command: &clap::Command, found: &mut Vec<String>) {
        for verb in command.get_subcommands() {
            found.push(verb.get_name().to_owned());
            found.extend(verb.get_all_aliases().map(str::to_owned));
            verbs(verb, found);
        }
    }

    #[test]
    fn every_verb_is_known_to_do_harm_or_not() {
        let mut found = Vec::new();
        verbs(&Cli::grammar(), &mut found);
        for verb in found {
            assert!(HARMLESS.contains(&verb.as_str()) != HARMFUL.contains(&verb.as_str()), "{verb}");
        }
    }

    #[test]
    fn the_verb_is_found_behind_flags_known_or_not() {
        let of = |line: &str| verb(&line.split_whitespace().map(OsString::from).collect::<Vec<_>>());
        for (line, expected) in [
            ("contd run x", Some("run")),
            ("contd -n run create x", Some("create")),
            ("contd --namespace=a run x", Some("run")),
            ("contd --address /s -n a run", Some("run")),
            ("contd -na run", Some("run")),
            ("contd --no-such run x", Some("run")),
            ("contd", None),
            ("contd -n", None),
        ] {
            assert_eq!(of(line).as_deref(), expected, "{line}");
        }
    }

    #[test]
    fn a_guess_is_a_slip_and_never_harmful() {
        for (given, name) in
            [("pss", "ps"), ("log", "logs"), ("inspcet", "inspect"), ("satrt", "start"), ("--detch", "--detach")]
        {
            assert!(is_good_guess(given, name), "{given} {name}");
        }
        for (given, name) in [
            ("top", "stop"),
            ("rmi", "rm"),
            ("skill", "kill"),
            ("stp", "stop"),
            ("--forc", "--force"),
            ("exec", "events"),
        ] {
            assert!(!is_good_guess(given, name), "{given} {name}");
        }
    }
}
