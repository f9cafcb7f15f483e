//! `contd flist import`: makes a flist from a container image, without the daemon.

use std::cell::RefCell;
use std::path::PathBuf;

use contd_client::Progress;
use contd_flist::PackOptions;
use contd_image::{ImportLimits, ImportOptions, ImportProgress, Platform};

use crate::cli::error::CliError;
use crate::cli::flist::{FlistError, interrupt};
use crate::cli::host::Host;
use crate::cli::parse;
use crate::cli::progress::ProgressView;

/// The help text on the limits; a test compares it with the library's.
const AFTER_HELP: &str = "\
Limits, so that a small image cannot fill a disk: 64g for all files of all layers, 32g for one file.
The flist keeps the image's command and settings: `contd run OUT.fl` needs no command.";

/// The flags of `contd flist import`.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct ImportArgs {
    /// An OCI image layout (a directory, or a tar of one), an archive of `docker save` or `podman save`, or the output
    /// of `skopeo copy … dir:`
    source: PathBuf,
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
    /// Replace OUT.fl if it exists and was not made from SOURCE
    #[arg(long)]
    force: bool,
    /// Set a tag of the flist; may be repeated; replaces the image's own tag of that key
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse::pair)]
    tag: Vec<(String, String)>,
    /// The image's name, if there are several images
    #[arg(long = "ref", value_name = "NAME")]
    name: Option<String>,
    /// The platform, as os/arch or os/arch/variant [default: this machine's, or the only one]
    #[arg(long, value_name = "PLATFORM")]
    platform: Option<Platform>,
    /// The most bytes of all files together
    #[arg(long, value_name = "SIZE", value_parser = parse::size)]
    max_size: Option<u64>,
    /// The most bytes of one file
    #[arg(long, value_name = "SIZE", value_parser = parse::size)]
    max_file: Option<u64>,
    /// Directory for the content until it is packed; needs as much space as the layers [default: the folder of OUT.fl]
    #[arg(long, value_name = "DIR")]
    scratch: Option<PathBuf>,
    /// Keep the passwords of stores and routes in the flist
    #[arg(long)]
    keep_password: bool,
}

/// Imports an image and prints the flist's hash.
pub(crate) fn run(host: &Host, args: ImportArgs) -> Result<(), CliError> {
    let usual = ImportLimits::default();
    let options = ImportOptions {
        pack: PackOptions {
            tags: args.tag,
            strip_password: !args.keep_password,
            routes: args.route,
            force: args.force,
            ..PackOptions::default()
        },
        name: args.name,
        platform: args.platform,
        scratch: args.scratch,
        limits: ImportLimits {
            image_bytes: args.max_size.unwrap_or(usual.image_bytes),
            file_bytes: args.max_file.unwrap_or(usual.file_bytes),
            ..usual
        },
    };
    let _guard = interrupt::guard(&host.output, "");
    let view = RefCell::new(ProgressView::new(&host.output));
    let show = |step: ImportProgress| {
        let (what, done_bytes, total_bytes) = match step {
            ImportProgress::Layers { done_bytes, total_bytes } => ("read layers", done_bytes, total_bytes),
            ImportProgress::Pack(pack) => ("pack", pack.done_bytes, pack.total_bytes),
        };
        view.borrow_mut().show(&Progress { what: what.to_owned(), done_bytes, total_bytes: Some(total_bytes) });
    };
    let report = contd_image::import(&args.source, &args.out, &args.store, &options, &show)
        .map_err(|error| FlistError::Import(Box::new(error)))?;
    drop(view);
    host.output.tell(&format!(
        "imported {} layers for {}: {} entries, {} bytes in {} blocks\n",
        report.layers,
        // The platform's text comes from the image, so escape it.
        report.platform.to_string().escape_debug(),
        report.pack.entries,
        report.pack.content_bytes,
        report.pack.blocks
    ));
    if report.dropped_xattrs > 0 {
        host.output.tell(&format!(
            "contd: warning: {} extended attributes were left out: flists have none\n",
            report.dropped_xattrs
        ));
    }
    if report.raw_names > 0 {
        host.output.tell(&format!(
            "contd: warning: {} names are not UTF-8: contd reads this flist, rfs does not\n",
            report.raw_names
        ));
    }
    host.output.line(&report.pack.hash)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_help_names_the_limits_that_there_are() {
        let limits = ImportLimits::default();
        let text = format!("{}g for all files of all layers, {}g", limits.image_bytes >> 30, limits.file_bytes >> 30);
        assert!(AFTER_HELP.contains(&text), "{text}");
    }
}
