//! `contd flist pack`: makes a flist of a directory, here and without the daemon. `contd flist cache` is in `cache`.

use std::cell::RefCell;
use std::path::PathBuf;

use contd_client::Progress;
use contd_flist::{PackOptions, PackProgress};

use crate::cli::cache;
use crate::cli::error::CliError;
use crate::cli::host::Host;
use crate::cli::parse;
use crate::cli::progress::ProgressView;

/// What to do with flists.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct FlistArgs {
    #[command(subcommand)]
    verb: FlistVerb,
}

/// The verbs of flists.
#[derive(Debug, Clone, clap::Subcommand)]
enum FlistVerb {
    /// Pack a directory: its content into stores, its tree into OUT.fl; prints the hash of OUT.fl
    Pack(PackArgs),
    /// Look at the cache of fetched flists and blocks, or make it smaller
    Cache(cache::CacheArgs),
}

/// What to pack, and where to.
#[derive(Debug, Clone, clap::Args)]
struct PackArgs {
    /// The directory that becomes the root
    dir: PathBuf,
    /// The flist to write
    #[arg(value_name = "OUT.fl")]
    out: PathBuf,
    /// Where the content goes, for example dir:///var/store; several stores get copies, or ranges as xx-yy=URL
    #[arg(long, required = true, value_name = "URL")]
    store: Vec<String>,
    /// A tag of the flist; may be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse::pair)]
    tag: Vec<(String, String)>,
    /// Keep the stores' passwords in the flist
    #[arg(long)]
    keep_password: bool,
}

/// Packs; the hash is the data.
pub(crate) fn run(host: &Host, FlistArgs { verb }: FlistArgs) -> Result<(), CliError> {
    let args = match verb {
        FlistVerb::Pack(args) => args,
        FlistVerb::Cache(args) => return cache::run(host, args),
    };
    let options = PackOptions { tags: args.tag, strip_password: !args.keep_password, ..PackOptions::default() };
    let view = RefCell::new(ProgressView::new(&host.output));
    let show = |PackProgress { done_bytes, total_bytes }: PackProgress| {
        view.borrow_mut().show(&Progress { what: "pack".to_owned(), done_bytes, total_bytes: Some(total_bytes) });
    };
    let report = contd_flist::pack(&args.dir, &args.out, &args.store, &options, &show).map_err(CliError::Pack)?;
    drop(view);
    host.output.tell(&format!(
        "packed {} entries, {} bytes in {} blocks\n",
        report.entries, report.content_bytes, report.blocks
    ));
    host.output.line(&report.hash)
}
