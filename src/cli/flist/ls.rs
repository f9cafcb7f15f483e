//! `contd flist ls`: lists the files of a flist, in the form of `ls` and `ls -l`.

use contd_flist::listing::{escape, mode_text, time_text};
use contd_flist::{FileKind, Flist, Inode};

use crate::cli::error::CliError;
use crate::cli::flist::FlistError;
use crate::cli::flist::open::Opened;
use crate::cli::host::Host;

pub(super) const AFTER_HELP: &str = "Times are in UTC, owners are numbers. Control characters, and bytes that are not UTF-8, \
    are shown as \\xNN, and a backslash as two.";

/// The bytes of text that are written at once.
const CHUNK: usize = 64 * 1024;

/// The flags of `contd flist ls`.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct LsArgs {
    /// A flist, by path or URL
    #[arg(value_name = "FILE|URL")]
    flist: String,
    /// A directory or a file in it [default: the root]
    #[arg(default_value = "/", hide_default_value = true)]
    path: std::ffi::OsString,
    /// Show types, permissions, owners, sizes (device numbers of devices) and times too
    #[arg(short)]
    long: bool,
    /// List subdirectories too, by path
    #[arg(short = 'R')]
    recursive: bool,
}

/// Lists the files.
pub(super) fn run(host: &Host, args: &LsArgs) -> Result<(), CliError> {
    use std::os::unix::ffi::OsStrExt as _;
    let opened = Opened::open(host, &args.flist, None)?;
    let flist = &*opened.flist;
    let Some(start) = flist.resolve(args.path.as_bytes()) else {
        let path = escape(args.path.as_bytes());
        return Err(FlistError::NoEntry { path, name: opened.name.clone() }.into());
    };
    let mut text = String::new();
    let mut show = |inode: Inode<'_>, name: &[u8]| {
        text.push_str(&if args.long { long_line(flist, inode, name) } else { escape(name) });
        text.push('\n');
        if text.len() < CHUNK {
            return Ok(());
        }
        host.output.data(std::mem::take(&mut text).as_bytes())
    };
    if start.kind() != FileKind::Directory {
        show(start, start.name())?;
        return host.output.data(text.as_bytes());
    }
    // List the entries of one directory together, before those of its subdirectories.
    let mut waiting = flist.children(start.ino()).iter().collect::<Vec<_>>();
    waiting.reverse();
    while let Some(inode) = waiting.pop() {
        if !args.recursive {
            show(inode, inode.name())?;
            continue;
        }
        show(inode, &inode.path())?;
        let first = waiting.len();
        waiting.extend(flist.children(inode.ino()).iter());
        if let Some(children) = waiting.get_mut(first..) {
            children.reverse();
        }
    }
    host.output.data(text.as_bytes())
}

fn long_line(flist: &Flist, inode: Inode<'_>, name: &[u8]) -> String {
    let size = match inode.kind() {
        FileKind::CharDevice | FileKind::BlockDevice => format!("{}, {}", inode.rdev_major(), inode.rdev_minor()),
        _ => inode.size().to_string(),
    };
    let target = flist.symlink_target(inode.ino()).map(|target| format!(" -> {}", escape(target)));
    format!(
        "{} {:>5} {:>5} {size:>10} {} {}{}",
        mode_text(inode.mode()),
        inode.uid(),
        inode.gid(),
        time_text(inode.mtime()),
        escape(name),
        target.unwrap_or_default()
    )
}
