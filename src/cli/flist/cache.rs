//! `contd flist cache`: shows a node's cache, as the daemon or its files tell, and makes it smaller. Pruning uses files
//! and locks only, so it works beside running servers and without the daemon.

use std::path::PathBuf;
use std::time::Duration;

use contd_client::Deadline;
use contd_flist::cache::{self, Amount, Prune, PruneReport};
use contd_protocol::api::{CacheInfo, CacheKindInfo, CachedFlistInfo};
use contd_types::Timestamp;
use indicatif::BinaryBytes;
use serde::Serialize;

use crate::cli::error::CliError;
use crate::cli::flist::{FlistError, ask};
use crate::cli::host::Host;
use crate::cli::{parse, status, table};
use crate::config;
use crate::config::DaemonArgs;
use contd_node::FlistPlaces;

/// How many digits of a hash a table shows.
const HASH_CHARS: usize = 12;

/// The names of the kinds of files, in the order of a look.
const KINDS: [&str; 4] = ["blocks", "files", "flists", "temps"];

/// The flags of `contd flist cache`.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct CacheArgs {
    #[command(subcommand)]
    verb: CacheVerb,
}

/// The verbs.
#[derive(Debug, Clone, clap::Subcommand)]
enum CacheVerb {
    /// Show the content of the cache
    Ls(LsArgs),
    /// Remove unused files; without a flag, as many as the limits require
    Prune(PruneArgs),
}

#[derive(Debug, Clone, clap::Args)]
struct LsArgs {
    #[command(flatten)]
    dirs: DaemonArgs,
    /// Print one JSON object instead
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, clap::Args)]
struct PruneArgs {
    #[command(flatten)]
    dirs: DaemonArgs,
    /// Remove all unused files
    #[arg(long, conflicts_with_all = ["to", "older_than"])]
    all: bool,
    /// Remove the least recently used files until at most this size is left, for example 2g
    #[arg(long, value_name = "SIZE", value_parser = parse::size, conflicts_with = "older_than")]
    to: Option<u64>,
    /// Remove files not used for this time, for example 30d or 12h
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    older_than: Option<Duration>,
    /// Only show what would be removed
    #[arg(long)]
    dry_run: bool,
    /// Print one JSON object instead
    #[arg(long)]
    json: bool,
}

fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|_| "not a duration: write for example 30d, 12h or 90min".to_owned())
}

/// Shows or prunes the cache.
pub(crate) fn run(host: &Host, address: Option<PathBuf>, args: &CacheArgs) -> Result<(), CliError> {
    match &args.verb {
        CacheVerb::Ls(args) => ls(host, address, args),
        CacheVerb::Prune(args) => prune(host, args),
    }
}

fn ls(host: &Host, address: Option<PathBuf>, args: &LsArgs) -> Result<(), CliError> {
    let call = |client: contd_client::Client| async move { client.cache_usage(Deadline::Usual).await };
    let info = ask::ask(host, address, &args.dirs, call, |places| Ok(places.cache()))?;
    let text = if args.json {
        format!("{}\n", serde_json::to_string(&UsageView::new(&info))?)
    } else {
        as_text(&info, host.clock.now())
    };
    host.output.data(text.as_bytes())?;
    match info.failure {
        Some(why) => Err(FlistError::CacheLook { why }.into()),
        None => Ok(()),
    }
}

fn prune(host: &Host, args: &PruneArgs) -> Result<(), CliError> {
    let places = FlistPlaces::of(&config::load(&args.dirs)?);
    let what = match (args.all, args.to, args.older_than) {
        (true, _, _) => Prune::All,
        (_, Some(bytes), _) => Prune::To(bytes),
        (_, _, Some(age)) => Prune::OlderThan(age),
        _ => Prune::ToLimits,
    };
    let report = cache::prune(&places.cache_dir, &places.options, what, args.dry_run).map_err(FlistError::Cache)?;
    let text = if args.json {
        format!("{}\n", serde_json::to_string(&PruneView::new(&report, args.dry_run))?)
    } else {
        as_report(&report, args.dry_run)
    };
    host.output.data(text.as_bytes())?;
    match report.failure {
        Some((path, source)) => Err(FlistError::CachePart { path, source }.into()),
        None => Ok(()),
    }
}

fn as_text(info: &CacheInfo, now: Timestamp) -> String {
    let mut rows = vec![["KIND", "COUNT", "SIZE", "LAST USED", "OLDEST USE"].map(str::to_owned).to_vec()];
    for (name, kind) in KINDS.into_iter().zip(info.kinds) {
        let ago = |time: Option<Timestamp>| time.map_or("-".to_owned(), |time| status::ago(time, now));
        let (count, bytes) = (kind.count.to_string(), size(kind.bytes));
        rows.push(vec![name.to_owned(), count, bytes, ago(kind.last_used), ago(kind.oldest_use)]);
    }
    let mut text = table::render(&rows);
    let free = info.free_bytes.map_or("an unknown amount".to_owned(), size);
    text.push_str(&format!(
        "\n{} of {} in {}; {free} of its file system are free, {} shall be\n",
        size(total_bytes(info)),
        size(info.max_bytes),
        info.cache_dir,
        size(info.min_free_bytes),
    ));
    if !info.flists.is_empty() {
        let mut rows = vec![["FLIST", "SIZE", "FETCHED", "SERVED", "FROM"].map(str::to_owned).to_vec()];
        rows.extend(info.flists.iter().map(|flist| row(flist, now)));
        text.push_str(&format!("\n{}", table::render(&rows)));
    }
    text
}

fn total_bytes(info: &CacheInfo) -> u64 {
    info.kinds.iter().fold(0, |sum, kind| sum.saturating_add(kind.bytes))
}

fn row(flist: &CachedFlistInfo, now: Timestamp) -> Vec<String> {
    let is_served = match flist.is_served {
        Some(true) => "yes",
        Some(false) => "no",
        None => "unknown",
    };
    vec![
        flist.hash.chars().take(HASH_CHARS).collect(),
        size(flist.bytes),
        status::ago(flist.fetched, now),
        is_served.to_owned(),
        printable(flist.from.as_deref().unwrap_or("-")),
    ]
}

fn as_report(report: &PruneReport, is_dry: bool) -> String {
    let freed = if is_dry { "WOULD FREE" } else { "FREED" };
    let removed = if is_dry { "WOULD REMOVE" } else { "REMOVED" };
    let mut rows = vec![["KIND", removed, freed].map(str::to_owned).to_vec()];
    let kinds = report.removed;
    for (name, amount) in
        [("blocks", kinds.blocks), ("files", kinds.files), ("flists", kinds.flists), ("temps", kinds.temps)]
    {
        rows.push(vec![name.to_owned(), amount.count.to_string(), size(amount.bytes)]);
    }
    let mut text = table::render(&rows);
    let total = report.removed.total();
    let verb = if is_dry { "would be freed" } else { "freed" };
    text.push_str(&format!("\n{} bytes {verb}; {} are left\n", total.bytes, size(report.left_bytes)));
    if report.in_use.count > 0 {
        text.push_str(&format!("{} in use were kept ({})\n", report.in_use.count, size(report.in_use.bytes)));
    }
    text
}

fn size(bytes: u64) -> String {
    BinaryBytes(bytes).to_string()
}

/// Replaces control characters, so that text from outside stays on one line and cannot control the terminal.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// The fields of `ls --json`. Programs rely on them; add, never rename.
#[derive(Debug, Serialize)]
struct UsageView {
    cache_dir: String,
    total_bytes: u64,
    max_bytes: u64,
    min_free_bytes: u64,
    free_bytes: Option<u64>,
    blocks: KindView,
    files: KindView,
    flists: KindView,
    temps: KindView,
    fetched: Vec<FlistView>,
}

#[derive(Debug, Serialize)]
struct KindView {
    count: u64,
    bytes: u64,
    last_used: Option<String>,
    oldest_use: Option<String>,
}

#[derive(Debug, Serialize)]
struct FlistView {
    hash: String,
    bytes: u64,
    fetched: String,
    served: Option<bool>,
    from: Option<String>,
}

impl UsageView {
    fn new(info: &CacheInfo) -> Self {
        let [blocks, files, flists, temps] = info.kinds.map(KindView::from);
        Self {
            cache_dir: info.cache_dir.clone(),
            total_bytes: total_bytes(info),
            max_bytes: info.max_bytes,
            min_free_bytes: info.min_free_bytes,
            free_bytes: info.free_bytes,
            blocks,
            files,
            flists,
            temps,
            fetched: info.flists.iter().map(FlistView::from).collect(),
        }
    }
}

impl From<CacheKindInfo> for KindView {
    fn from(kind: CacheKindInfo) -> Self {
        let shown = |time: Option<Timestamp>| time.map(|time| time.to_string());
        Self {
            count: kind.count,
            bytes: kind.bytes,
            last_used: shown(kind.last_used),
            oldest_use: shown(kind.oldest_use),
        }
    }
}

impl From<&CachedFlistInfo> for FlistView {
    fn from(flist: &CachedFlistInfo) -> Self {
        Self {
            hash: flist.hash.clone(),
            bytes: flist.bytes,
            fetched: flist.fetched.to_string(),
            served: flist.is_served,
            from: flist.from.clone(),
        }
    }
}

/// The fields of `prune --json`.
#[derive(Debug, Serialize)]
struct PruneView {
    dry_run: bool,
    freed_bytes: u64,
    left_bytes: u64,
    blocks: AmountView,
    files: AmountView,
    flists: AmountView,
    temps: AmountView,
    in_use: AmountView,
    failed: AmountView,
}

#[derive(Debug, Serialize)]
struct AmountView {
    count: u64,
    bytes: u64,
}

impl From<Amount> for AmountView {
    fn from(Amount { count, bytes }: Amount) -> Self {
        Self { count, bytes }
    }
}

impl PruneView {
    fn new(report: &PruneReport, is_dry: bool) -> Self {
        Self {
            dry_run: is_dry,
            freed_bytes: report.removed.total().bytes,
            left_bytes: report.left_bytes,
            blocks: report.removed.blocks.into(),
            files: report.removed.files.into(),
            flists: report.removed.flists.into(),
            temps: report.removed.temps.into(),
            in_use: report.in_use.into(),
            failed: report.failed.into(),
        }
    }
}
