//! `contd man`: writes the manual pages, from the same grammar as the help; for `make install`.

use std::path::PathBuf;

use crate::cli::args::Cli;
use crate::cli::error::CliError;

/// The flags of `contd man`.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct ManArgs {
    /// Directory for the pages; must exist
    dir: PathBuf,
}

/// Writes a page for the command and one for each verb: `contd.1`, `contd-run.1`.
pub(crate) fn run(args: ManArgs) -> Result<(), CliError> {
    let written = clap_mangen::generate_to(Cli::grammar(), &args.dir);
    written.map_err(|source| CliError::Man { dir: args.dir, source })
}
