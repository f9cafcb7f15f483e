//! `contd flist …`: makes, inspects, verifies and unpacks flists, without the daemon. Only the node's own state (`cache
//! ls`, `server ls`) is asked of the daemon if one runs.
//!
//! Standard output has the data: the hash of the packed flist, the listing, the bad blocks. Progress and totals are for
//! people, on standard error.

mod ask;
mod cache;
mod error;
mod import;
mod inspect;
mod interrupt;
mod ls;
mod open;
mod pack;
mod route;
mod server;
mod unpack;
mod verify;

use std::path::PathBuf;

pub(crate) use error::FlistError;

use crate::cli::error::CliError;
use crate::cli::host::Host;

/// The flags of `contd flist`.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct FlistArgs {
    #[command(subcommand)]
    verb: FlistVerb,
}

/// The verbs of flists.
#[derive(Debug, Clone, clap::Subcommand)]
enum FlistVerb {
    /// Pack a directory: its content into stores, its tree into OUT.fl; prints the hash of OUT.fl
    Pack(pack::PackArgs),
    /// Import a container image: an OCI layout, `docker save`, `podman save` or skopeo's dir:; prints the hash of OUT.fl
    Import(import::ImportArgs),
    /// Show the properties of a flist: tags, stores, counts, sizes, hash
    Inspect(inspect::InspectArgs),
    /// List the files of a flist
    #[command(after_help = ls::AFTER_HELP)]
    Ls(ls::LsArgs),
    /// Fetch every block once and check it; prints the bad ones with their files
    #[command(after_help = "Exit codes: 0 all blocks are good; 1 some are bad, or the flist cannot be read.")]
    Verify(verify::VerifyArgs),
    /// Show the cache of fetched flists and blocks, or prune it
    Cache(cache::CacheArgs),
    /// List the servers of mounted flists, or upgrade them under running containers
    Server(server::ServerArgs),
    /// List or change the routes of a flist: the stores of its blocks
    Route(route::RouteArgs),
    /// Unpack a flist into a directory
    #[command(after_help = unpack::AFTER_HELP)]
    Unpack(unpack::UnpackArgs),
}

/// Runs a verb, and returns its exit code.
pub(crate) fn run(host: &Host, address: Option<PathBuf>, FlistArgs { verb }: FlistArgs) -> Result<u8, CliError> {
    // An unfinished download is removed with the command.
    let is_reading = matches!(verb, FlistVerb::Inspect(_) | FlistVerb::Ls(_) | FlistVerb::Verify(_));
    let _guard = is_reading.then(|| interrupt::guard(&host.output, ""));
    match verb {
        FlistVerb::Pack(args) => pack::run(host, args).map(|()| 0),
        FlistVerb::Import(args) => import::run(host, args).map(|()| 0),
        FlistVerb::Inspect(args) => inspect::run(host, &args).map(|()| 0),
        FlistVerb::Ls(args) => ls::run(host, &args).map(|()| 0),
        FlistVerb::Verify(args) => verify::run(host, &args),
        FlistVerb::Cache(args) => cache::run(host, address, &args).map(|()| 0),
        FlistVerb::Server(args) => server::run(host, address, &args),
        FlistVerb::Route(args) => route::run(host, &args).map(|()| 0),
        FlistVerb::Unpack(args) => unpack::run(host, &args).map(|()| 0),
    }
}
