//! `contd flist route`: lists and changes the routes of a flist.

use std::path::PathBuf;

use contd_flist::{Route, route};
use serde_json::json;

use crate::cli::error::CliError;
use crate::cli::flist::{FlistError, interrupt};
use crate::cli::host::Host;
use crate::cli::table;

/// The flags of `contd flist route`.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct RouteArgs {
    #[command(subcommand)]
    verb: RouteVerb,
}

/// The verbs.
#[derive(Debug, Clone, clap::Subcommand)]
enum RouteVerb {
    /// List the routes, without passwords
    Ls(LsArgs),
    /// Replace all routes; prints the new hash of the flist
    Set(ChangeArgs),
    /// Add routes after the existing ones; prints the new hash of the flist
    Add(ChangeArgs),
    /// Remove routes, by URL or as xx-yy=URL; prints the new hash of the flist
    Rm(RemoveArgs),
}

#[derive(Debug, Clone, clap::Args)]
struct LsArgs {
    /// The flist
    #[arg(value_name = "FL")]
    flist: PathBuf,
    /// Print one JSON object per line instead
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, clap::Args)]
#[command(after_help = AFTER_HELP)]
struct ChangeArgs {
    /// The flist
    #[arg(value_name = "FL")]
    flist: PathBuf,
    /// Store of blocks, for example https://host/store; for a part of them xx-yy=URL, by the first byte of their ids
    #[arg(required = true, value_name = "URL")]
    routes: Vec<String>,
    /// Keep passwords in the flist
    #[arg(long)]
    keep_password: bool,
}

#[derive(Debug, Clone, clap::Args)]
#[command(after_help = AFTER_HELP)]
struct RemoveArgs {
    /// The flist
    #[arg(value_name = "FL")]
    flist: PathBuf,
    /// Routes in the form that `ls` shows
    #[arg(required = true, value_name = "URL")]
    routes: Vec<String>,
}

const AFTER_HELP: &str = "No block is copied or fetched. The routes must cover every block. The hash of a flist is its \
    identity: running containers keep the old flist.";

/// Lists or changes the routes.
pub(super) fn run(host: &Host, RouteArgs { verb }: &RouteArgs) -> Result<(), CliError> {
    match verb {
        RouteVerb::Ls(args) => ls(host, args),
        RouteVerb::Set(args) => {
            let new = parsed(args)?;
            change(host, &args.flist, |_old| Ok(new))
        }
        RouteVerb::Add(args) => {
            let new = parsed(args)?;
            change(host, &args.flist, |old| Ok(old.into_iter().chain(new).collect()))
        }
        RouteVerb::Rm(args) => {
            change(host, &args.flist, |old| args.routes.iter().try_fold(old, |left, text| route::without(left, text)))
        }
    }
}

fn parsed(args: &ChangeArgs) -> Result<Vec<Route>, FlistError> {
    let parsed = args.routes.iter().map(|text| route::parse(text, args.keep_password));
    Ok(parsed.collect::<Result<_, _>>()?)
}

fn ls(host: &Host, args: &LsArgs) -> Result<(), CliError> {
    let flist = contd_flist_legacy::open(&args.flist).map_err(FlistError::from)?;
    let range = |route: &Route| (format!("{:02x}", route.start), format!("{:02x}", route.end));
    if args.json {
        for route in flist.routes() {
            let (start, end) = range(route);
            host.output.line(&json!({ "start": start, "end": end, "url": route.shown_url() }).to_string())?;
        }
        return Ok(());
    }
    let mut rows = vec![["BLOCKS", "URL"].map(str::to_owned).to_vec()];
    rows.extend(flist.routes().iter().map(|route| {
        let (start, end) = range(route);
        vec![format!("{start}-{end}"), route.shown_url()]
    }));
    host.output.data(table::render(&rows).as_bytes())
}

fn change(
    host: &Host,
    flist: &std::path::Path,
    change: impl FnOnce(Vec<Route>) -> Result<Vec<Route>, route::RouteError>,
) -> Result<(), CliError> {
    let _guard = interrupt::guard(&host.output, "");
    let hash = route::rewrite(flist, change).map_err(FlistError::from)?;
    host.output.line(&hash)
}
