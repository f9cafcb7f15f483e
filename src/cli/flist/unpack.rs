//! `contd flist unpack`: makes a directory of a flist.

use std::cell::RefCell;
use std::path::PathBuf;

use contd_flist::{UnpackOptions, unpack};

use crate::cli::error::CliError;
use crate::cli::flist::open::{BlockArgs, Opened, block_progress};
use crate::cli::flist::{FlistError, ending};
use crate::cli::host::Host;
use crate::cli::progress::ProgressView;

pub(super) const AFTER_HELP: &str = "Only root can give files their owners and make devices. DIR is there when all is done, \
    and as it was when something fails or Ctrl-C ends it; after SIGKILL a directory .contd-unpack-* is left beside or in it. \
    With --force what is unpacked stays in any case: then run it once more.";

/// What to unpack, and where to.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct UnpackArgs {
    /// A flist, by path or URL
    #[arg(value_name = "FILE|URL")]
    flist: String,
    /// The directory: empty, or to be made
    dir: PathBuf,
    #[command(flatten)]
    blocks: BlockArgs,
    /// Keep everything yourself instead of giving it its owners; nothing is then setuid or setgid
    #[arg(long)]
    no_same_owner: bool,
    /// Unpack over what is in DIR: other directories stay, anything else of the same name is replaced
    #[arg(long)]
    force: bool,
}

/// Unpacks.
pub(super) fn run(host: &Host, args: &UnpackArgs) -> Result<(), CliError> {
    let opened = Opened::open(host, &args.flist, args.blocks.cache.as_deref())?;
    let options = UnpackOptions { same_owner: !args.no_same_owner, force: args.force, jobs: args.blocks.jobs };
    let stays = if args.force { "what was unpacked so far stays: run it again with --force" } else { "" };
    let _guard = ending::guard(&host.output, stays);
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
