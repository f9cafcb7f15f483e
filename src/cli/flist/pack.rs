//! `contd flist pack`: makes a flist from a directory, without the daemon.

use std::cell::RefCell;
use std::path::PathBuf;

use contd_client::Progress;
use contd_flist::{PackOptions, PackProgress};

use crate::cli::error::CliError;
use crate::cli::flist::{FlistError, interrupt};
use crate::cli::host::Host;
use crate::cli::parse;
use crate::cli::progress::ProgressView;

/// The flags of `contd flist pack`.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct PackArgs {
    /// The directory that becomes the root
    dir: PathBuf,
    /// The flist to write
    #[arg(value_name = "OUT.fl")]
    out: PathBuf,
    /// Store for the content, for example dir:///var/store; several stores get copies, or ranges as xx-yy=URL
    #[arg(long, required = true, value_name = "URL")]
    store: Vec<String>,
    /// Route to write into the flist in place of --store: where readers find its blocks, for example
    /// https://host/store, as [xx-yy=]URL; may be repeated
    #[arg(long, value_name = "URL")]
    route: Vec<String>,
    /// Replace OUT.fl if it exists
    #[arg(long)]
    force: bool,
    /// Set a tag of the flist; may be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse::pair)]
    tag: Vec<(String, String)>,
    /// Accept names that are not UTF-8; rfs cannot read such a flist
    #[arg(long)]
    raw_names: bool,
    /// Keep the passwords of stores and routes in the flist
    #[arg(long)]
    keep_password: bool,
}

/// Packs the directory and prints the flist's hash.
pub(super) fn run(host: &Host, args: PackArgs) -> Result<(), CliError> {
    let options = PackOptions {
        tags: args.tag,
        strip_password: !args.keep_password,
        raw_names: args.raw_names,
        routes: args.route,
        force: args.force,
        ..PackOptions::default()
    };
    let _guard = interrupt::guard(&host.output, "");
    let view = RefCell::new(ProgressView::new(&host.output));
    let show = |PackProgress { done_bytes, total_bytes }: PackProgress| {
        view.borrow_mut().show(&Progress { what: "pack".to_owned(), done_bytes, total_bytes: Some(total_bytes) });
    };
    let report = contd_flist::pack(&args.dir, &args.out, &args.store, &options, &show).map_err(FlistError::from)?;
    drop(view);
    host.output.tell(&format!(
        "packed {} entries, {} bytes in {} blocks\n",
        report.entries, report.content_bytes, report.blocks
    ));
    host.output.line(&report.hash)
}
