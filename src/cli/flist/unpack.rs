//! `contd flist unpack`: unpacks a flist into a directory.

use std::cell::RefCell;
use std::path::PathBuf;

use contd_flist::{UnpackOptions, unpack};

use crate::cli::error::CliError;
use crate::cli::flist::open::{BlockArgs, Opened, block_progress};
use crate::cli::flist::{FlistError, interrupt};
use crate::cli::host::Host;
use crate::cli::progress::ProgressView;

pub(super) const AFTER_HELP: &str = "Only root can give files their owners and make devices. DIR is complete after success, \
    and unchanged after a failure or Ctrl-C; after SIGKILL a directory .contd-unpack-* is left beside or in it. \
    With --force unpacked files stay after a failure: then run it again.";

/// The flags of `contd flist unpack`.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct UnpackArgs {
    /// A flist, by path or URL
    #[arg(value_name = "FILE|URL")]
    flist: String,
    /// The target directory; must be empty or absent
    dir: PathBuf,
    #[command(flatten)]
    blocks: BlockArgs,
    /// Own all files yourself instead of giving them their owners; none is setuid or setgid then
    #[arg(long)]
    no_same_owner: bool,
    /// Unpack over the content of DIR: its other directories stay, anything else of the same name is replaced
    #[arg(long)]
    force: bool,
}

/// Unpacks the flist.
pub(super) fn run(host: &Host, args: &UnpackArgs) -> Result<(), CliError> {
    let opened = Opened::open(host, &args.flist, args.blocks.cache.as_deref())?;
    let options = UnpackOptions { same_owner: !args.no_same_owner, force: args.force, jobs: args.blocks.jobs };
    let stays = if args.force { "what was unpacked so far stays: run it again with --force" } else { "" };
    let _guard = interrupt::guard(&host.output, stays);
    let view = RefCell::new(ProgressView::new(&host.output));
    let report = opened.with_blocks(&args.blocks, |source| {
        let show = block_progress("unpack", &view);
        unpack(&opened.flist, source, &args.dir, &options, &show).map_err(FlistError::from)
    });
    drop(view);
    let report = report?;
    host.output.tell(&format!(
        "unpacked {} entries, {} bytes in {} distinct blocks\n",
        report.entries, report.content_bytes, report.blocks
    ));
    Ok(())
}
