//! `contd completion`: prints completion scripts for shells.
//!
//! A script asks this program how a line may go on, by [`ASKED_BY`] in its environment, so that it knows the containers that there
//! are, too.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap_complete::CompletionCandidate;
use clap_complete::env::{CompleteEnv, Shells};
use contd_client::{Client, Deadline, ListFilter};
use contd_types::{ContainerSummary, NamespaceId};

use crate::cli::args::Cli;
use crate::cli::error::CliError;
use crate::cli::host::{DEFAULT_ADDRESS, Host};

/// The variable by which a script asks; its value names the shell.
const ASKED_BY: &str = "CONTD_COMPLETE";
/// The longest wait for a list behind a key.
const LIST: Deadline = Deadline::After(Duration::from_secs(1));

/// The flags of `contd completion`.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct CompletionArgs {
    /// The shell
    shell: clap_complete::Shell,
}

/// Prints the script.
pub(crate) fn run(host: &Host, args: &CompletionArgs) -> Result<(), CliError> {
    let mut script = Vec::new();
    let shell = args.shell.to_string();
    if let Some(shell) = Shells::builtins().completer(&shell) {
        let written = shell.write_registration(ASKED_BY, "contd", "contd", "contd", &mut script);
        written.map_err(|source| CliError::Output { source })?;
    }
    host.output.data(&script)
}

/// Answers a script, if one asks; tells whether it did.
pub(crate) fn answer() -> bool {
    let asked = CompleteEnv::with_factory(Cli::grammar).var(ASKED_BY).shells(Shells::builtins());
    let here = std::env::current_dir().ok();
    // An error leaves the line as it is: there is nobody to tell.
    asked.try_complete(std::env::args_os(), here.as_deref()).unwrap_or(true)
}

/// The names of the containers, for the namespace and the daemon of the line.
pub(crate) fn containers() -> Vec<CompletionCandidate> {
    let place = Place::of(std::env::args_os().skip_while(|word| word != "--").skip(1), |key| std::env::var_os(key));
    place.and_then(list).unwrap_or_default().iter().map(candidate).collect()
}

fn candidate(container: &ContainerSummary) -> CompletionCandidate {
    CompletionCandidate::new(container.name.as_str()).help(Some(container.state.name().to_string().into()))
}

/// The part of an unfinished line that says where its containers are.
#[derive(Debug, PartialEq, Eq)]
struct Place {
    namespace: NamespaceId,
    address: PathBuf,
}

impl Place {
    fn of(words: impl Iterator<Item = OsString>, env: impl Fn(&str) -> Option<OsString>) -> Option<Self> {
        let words: Vec<String> = words.map(|word| word.to_string_lossy().into_owned()).collect();
        let value = |names: &[&str]| {
            let mut found = None;
            for (index, word) in words.iter().enumerate() {
                for name in names {
                    match word.strip_prefix(name) {
                        Some("") => found = words.get(index + 1).cloned(),
                        Some(rest) if name.starts_with("--") => {
                            found = rest.strip_prefix('=').map(str::to_owned).or(found);
                        }
                        _ => {}
                    }
                }
            }
            found
        };
        let from_env = |key| env(key).map(|value| value.to_string_lossy().into_owned());
        let namespace = value(&["--namespace", "-n"]).or_else(|| from_env("CONTD_NAMESPACE"));
        let address = value(&["--address"]).or_else(|| from_env("CONTD_ADDRESS"));
        Some(Self {
            namespace: NamespaceId::new(namespace.unwrap_or_else(|| "default".to_owned())).ok()?,
            address: address.map_or_else(|| DEFAULT_ADDRESS.into(), PathBuf::from),
        })
    }
}

fn list(place: Place) -> Option<Vec<ContainerSummary>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
    runtime.block_on(async {
        let client = Client::connect(&place.address, LIST).await.ok()?;
        client.list(ListFilter::Namespace(place.namespace), LIST).await.ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_where_its_containers_are() {
        let of = |line: &str| {
            let place =
                Place::of(line.split(' ').map(OsString::from), |key| (key == "CONTD_ADDRESS").then(|| "/e".into()));
            place.map(|place| (place.namespace.to_string(), place.address.display().to_string()))
        };
        for (line, namespace, address) in [
            ("contd rm ", "default", "/e"),
            ("contd -n blue rm ", "blue", "/e"),
            ("contd rm --namespace=blue --address /s ", "blue", "/s"),
            ("contd --address=/s stop --namespace red ", "red", "/s"),
        ] {
            assert_eq!(of(line), Some((namespace.to_owned(), address.to_owned())), "{line}");
        }
        assert_eq!(of("contd -n ../x rm "), None);
    }
}
