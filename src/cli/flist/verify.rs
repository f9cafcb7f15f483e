//! `contd flist verify`: fetches every block once and checks it.

use std::cell::RefCell;

use contd_flist::listing::escape;
use contd_flist::{BadBlock, Flist, Inode, VerifyReport, verify};
use contd_types::one_line;

use crate::cli::error::CliError;
use crate::cli::flist::open::{BlockArgs, Opened, block_progress};
use crate::cli::host::Host;
use crate::cli::progress::ProgressView;

/// The exit code when a block is bad.
const SOME_ARE_BAD: u8 = 1;

/// The flags of `contd flist verify`.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct VerifyArgs {
    /// A flist, by path or URL
    #[arg(value_name = "FILE|URL")]
    flist: String,
    #[command(flatten)]
    blocks: BlockArgs,
}

/// Verifies all blocks and prints the bad ones.
pub(super) fn run(host: &Host, args: &VerifyArgs) -> Result<u8, CliError> {
    let opened = Opened::open(host, &args.flist, args.blocks.cache.as_deref())?;
    let view = RefCell::new(ProgressView::new(&host.output));
    let mut written = Ok(());
    let report = opened.with_blocks(&args.blocks, |source| {
        let mut tell = |block: BadBlock| {
            view.borrow_mut().clear();
            if written.is_ok() {
                written = host.output.data(bad_lines(&opened.flist, &block).as_bytes());
            }
        };
        Ok(verify(&opened.flist, source, args.blocks.jobs, &mut tell, &block_progress("verify", &view)))
    })?;
    drop(view);
    written?;
    let VerifyReport { blocks, bad_blocks, good_bytes } = report;
    host.output.tell(&format!("verified {blocks} blocks: {bad_blocks} bad, {good_bytes} bytes good\n"));
    Ok(if bad_blocks == 0 { 0 } else { SOME_ARE_BAD })
}

/// Formats a bad block: one line with its reason, then one line for each of its files.
fn bad_lines(flist: &Flist, block: &BadBlock) -> String {
    let mut text = format!("{} {}\n", block.id, escape(one_line(&block.reason).as_bytes()));
    for ino in &block.files {
        let path = flist.inode(*ino).map(Inode::path).unwrap_or_default();
        text.push_str(&format!("  /{}\n", escape(&path)));
    }
    if block.file_count > block.files.len() {
        text.push_str(&format!("  and {} more files\n", block.file_count - block.files.len()));
    }
    text
}
