//! `contd completion`: prints completion scripts for shells.

use clap::CommandFactory;

use crate::cli::args::Cli;
use crate::cli::error::CliError;
use crate::cli::host::Host;

/// The flags of `contd completion`.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct CompletionArgs {
    /// The shell
    shell: clap_complete::Shell,
}

/// Prints the script.
pub(crate) fn run(host: &Host, args: &CompletionArgs) -> Result<(), CliError> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "contd", &mut script);
    host.output.data(&script)
}
