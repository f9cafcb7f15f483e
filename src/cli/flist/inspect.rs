//! `contd flist inspect`: shows the properties of a flist. Never shows a credential.

use contd_flist::listing::{Summary, escape, summarize};
use serde_json::{Map, Value, json};

use crate::cli::error::CliError;
use crate::cli::flist::FlistError;
use crate::cli::flist::open::Opened;
use crate::cli::host::Host;
use crate::cli::table;

/// The flags of `contd flist inspect`.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct InspectArgs {
    /// A flist, by path or URL
    #[arg(value_name = "FILE|URL")]
    flist: String,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Shows the properties of a flist.
pub(super) fn run(host: &Host, args: &InspectArgs) -> Result<(), CliError> {
    let opened = Opened::open(host, &args.flist, None)?;
    let hash = contd_flist::hash_file(&opened.path);
    let hash = hash.map_err(|source| FlistError::Hash { name: opened.name.clone(), source })?;
    let summary = summarize(&opened.flist);
    if args.json {
        return host.output.line(&as_json(&opened, &hash, &summary).to_string());
    }
    let rows = as_rows(&opened, &hash, &summary);
    let rows = rows.into_iter().map(|(name, value)| vec![name.to_owned(), value]).collect::<Vec<_>>();
    host.output.data(table::render(&rows).as_bytes())
}

fn kinds(summary: &Summary) -> [(&'static str, u64); 7] {
    [
        ("files", summary.files),
        ("directories", summary.directories),
        ("symlinks", summary.symlinks),
        ("char_devices", summary.char_devices),
        ("block_devices", summary.block_devices),
        ("fifos", summary.fifos),
        ("sockets", summary.sockets),
    ]
}

fn as_json(opened: &Opened, hash: &str, summary: &Summary) -> Value {
    let flist = &opened.flist;
    let tags = flist.tags().iter().map(|(key, value)| (key.clone(), Value::from(value.clone())));
    let routes = flist.routes().iter().map(|route| {
        json!({ "start": format!("{:02x}", route.start), "end": format!("{:02x}", route.end), "url": route.shown_url() })
    });
    let counts = kinds(summary).map(|(kind, count)| (kind.to_owned(), Value::from(count)));
    json!({
        "name": opened.name,
        "hash": hash,
        "entries": flist.inode_count(),
        "counts": counts.into_iter().collect::<Map<_, _>>(),
        "content_bytes": summary.content_bytes,
        "blocks": summary.blocks,
        "unique_blocks": summary.unique_blocks,
        "tags": tags.collect::<Map<_, _>>(),
        "routes": routes.collect::<Vec<_>>(),
    })
}

fn as_rows(opened: &Opened, hash: &str, summary: &Summary) -> Vec<(&'static str, String)> {
    let flist = &opened.flist;
    let counts = kinds(summary).into_iter().filter(|(_, count)| *count > 0);
    let counts = counts.map(|(kind, count)| format!("{count} {}", kind.replace('_', " "))).collect::<Vec<_>>();
    let mut rows = vec![
        ("name", escape(opened.name.as_bytes())),
        ("hash", hash.to_owned()),
        ("entries", format!("{}: {}", flist.inode_count(), counts.join(", "))),
        ("content", format!("{} bytes", summary.content_bytes)),
        ("blocks", format!("{}, {} of them distinct", summary.blocks, summary.unique_blocks)),
    ];
    let tag = |(key, value): &(String, String)| format!("{}={}", escape(key.as_bytes()), escape(value.as_bytes()));
    rows.extend(flist.tags().iter().map(|pair| ("tag", tag(pair))));
    let route = |route: &contd_flist::Route| format!("{:02x}-{:02x} {}", route.start, route.end, route.shown_url());
    rows.extend(flist.routes().iter().map(|one| ("route", route(one))));
    rows
}
