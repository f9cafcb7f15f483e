//! `contd flist cache`: what was fetched and kept on this node, and making it smaller. By files and locks alone: it works
//! beside running servers and without the daemon.

use std::time::Duration;

use contd_flist::CacheOptions;
use contd_flist::cache::{self, Amount, CacheUsage, FlistUsage, KindUsage, Prune, PruneReport};
use contd_types::Timestamp;
use indicatif::BinaryBytes;
use serde::Serialize;

use crate::cli::daemon_args::DaemonArgs;
use crate::cli::error::CliError;
use crate::cli::flist::FlistError;
use crate::cli::host::Host;
use crate::cli::{parse, status, table};
use crate::config::{self, Config};

/// How much of a hash a table shows.
const HASH_CHARS: usize = 12;

/// Where the leases of flist servers are, below the run directory.
const SERVERS_DIR: &str = "f";

/// What to do with the cache.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct CacheArgs {
    #[command(subcommand)]
    verb: CacheVerb,
}

/// The verbs.
#[derive(Debug, Clone, clap::Subcommand)]
enum CacheVerb {
    /// Show what the cache holds
    Ls(LsArgs),
    /// Remove what is not in use; without a flag, what the limits ask for
    Prune(PruneArgs),
}

#[derive(Debug, Clone, clap::Args)]
struct LsArgs {
    #[command(flatten)]
    dirs: DaemonArgs,
    /// One JSON object instead
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, clap::Args)]
struct PruneArgs {
    #[command(flatten)]
    dirs: DaemonArgs,
    /// Everything that is not in use
    #[arg(long, conflicts_with_all = ["to", "older_than"])]
    all: bool,
    /// The least recently used, until no more than this is left, for example 2g
    #[arg(long, value_name = "SIZE", value_parser = parse::size, conflicts_with = "older_than")]
    to: Option<u64>,
    /// What was not used for this time, for example 30d or 12h
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    older_than: Option<Duration>,
    /// Only tell what would be removed
    #[arg(long)]
    dry_run: bool,
    /// One JSON object instead
    #[arg(long)]
    json: bool,
}

fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|_| "not a duration: write for example 30d, 12h or 90min".to_owned())
}

/// Shows or prunes.
pub(crate) fn run(host: &Host, args: &CacheArgs) -> Result<(), CliError> {
    match &args.verb {
        CacheVerb::Ls(args) => ls(host, args),
        CacheVerb::Prune(args) => prune(host, args),
    }
}

fn load(dirs: &DaemonArgs) -> Result<(Config, CacheOptions), CliError> {
    let config = config::load(dirs)?;
    let options = CacheOptions { limits: config.cache.limits(), servers: Some(config.run_dir.join(SERVERS_DIR)) };
    Ok((config, options))
}

fn ls(host: &Host, args: &LsArgs) -> Result<(), CliError> {
    let (config, options) = load(&args.dirs)?;
    let usage = cache::usage(&config.cache_dir, &options);
    let text = if args.json {
        format!("{}\n", serde_json::to_string(&UsageView::new(&config, &usage))?)
    } else {
        as_text(&config, &usage, host.clock.now())
    };
    host.output.data(text.as_bytes())?;
    match usage.failure {
        Some((path, source)) => Err(FlistError::CachePart { path, source }.into()),
        None => Ok(()),
    }
}

fn prune(host: &Host, args: &PruneArgs) -> Result<(), CliError> {
    let (config, options) = load(&args.dirs)?;
    let what = match (args.all, args.to, args.older_than) {
        (true, _, _) => Prune::All,
        (_, Some(bytes), _) => Prune::To(bytes),
        (_, _, Some(age)) => Prune::OlderThan(age),
        _ => Prune::ToLimits,
    };
    let report = cache::prune(&config.cache_dir, &options, what, args.dry_run).map_err(FlistError::Cache)?;
    let text = if args.json {
        format!("{}\n", serde_json::to_string(&PruneView::new(&report, args.dry_run))?)
    } else {
        as_deeds(&report, args.dry_run)
    };
    host.output.data(text.as_bytes())?;
    match report.failure {
        Some((path, source)) => Err(FlistError::CachePart { path, source }.into()),
        None => Ok(()),
    }
}

fn as_text(config: &Config, usage: &CacheUsage, now: Timestamp) -> String {
    let mut rows = vec![["KIND", "COUNT", "SIZE", "LAST USED", "OLDEST USE"].map(str::to_owned).to_vec()];
    for (name, kind) in kinds(usage) {
        let ago = |time: Option<Duration>| time.map_or("-".to_owned(), |time| status::ago(timestamp(time), now));
        let amount = kind.amount;
        rows.push(vec![
            name.to_owned(),
            amount.count.to_string(),
            size(amount.bytes),
            ago(kind.latest_use),
            ago(kind.oldest_use),
        ]);
    }
    let mut text = table::render(&rows);
    let free = usage.free_bytes.map_or("an unknown amount".to_owned(), size);
    text.push_str(&format!(
        "\n{} of {} in {}; {free} of its file system are free, {} shall be\n",
        size(usage.total().bytes),
        size(usage.limits.max_bytes),
        config.cache_dir.display(),
        size(usage.limits.min_free_bytes),
    ));
    if !usage.flists.is_empty() {
        let mut rows = vec![["FLIST", "SIZE", "FETCHED", "SERVED", "FROM"].map(str::to_owned).to_vec()];
        rows.extend(usage.flists.iter().map(|flist| row(flist, now)));
        text.push_str(&format!("\n{}", table::render(&rows)));
    }
    text
}

fn row(flist: &FlistUsage, now: Timestamp) -> Vec<String> {
    let is_served = match flist.is_in_use {
        Some(true) => "yes",
        Some(false) => "no",
        None => "unknown",
    };
    vec![
        flist.hash.chars().take(HASH_CHARS).collect(),
        size(flist.bytes),
        status::ago(timestamp(flist.last_use), now),
        is_served.to_owned(),
        printable(flist.name.as_deref().unwrap_or("-")),
    ]
}

fn as_deeds(report: &PruneReport, is_dry: bool) -> String {
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

fn kinds(usage: &CacheUsage) -> [(&'static str, KindUsage); 4] {
    let kinds = usage.kinds;
    [("blocks", kinds.blocks), ("files", kinds.files), ("flists", kinds.flists), ("temps", kinds.temps)]
}

fn size(bytes: u64) -> String {
    BinaryBytes(bytes).to_string()
}

/// What came from outside stays on one line and away from the terminal's controls.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

fn timestamp(since_1970: Duration) -> Timestamp {
    Timestamp(u64::try_from(since_1970.as_nanos()).unwrap_or(u64::MAX))
}

/// What `ls --json` shows. Programs rely on these fields; add, never rename.
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
    fn new(config: &Config, usage: &CacheUsage) -> Self {
        Self {
            cache_dir: config.cache_dir.display().to_string(),
            total_bytes: usage.total().bytes,
            max_bytes: usage.limits.max_bytes,
            min_free_bytes: usage.limits.min_free_bytes,
            free_bytes: usage.free_bytes,
            blocks: usage.kinds.blocks.into(),
            files: usage.kinds.files.into(),
            flists: usage.kinds.flists.into(),
            temps: usage.kinds.temps.into(),
            fetched: usage.flists.iter().map(FlistView::from).collect(),
        }
    }
}

impl From<KindUsage> for KindView {
    fn from(kind: KindUsage) -> Self {
        let shown = |time: Option<Duration>| time.map(|time| timestamp(time).to_string());
        Self {
            count: kind.amount.count,
            bytes: kind.amount.bytes,
            last_used: shown(kind.latest_use),
            oldest_use: shown(kind.oldest_use),
        }
    }
}

impl From<&FlistUsage> for FlistView {
    fn from(flist: &FlistUsage) -> Self {
        Self {
            hash: flist.hash.clone(),
            bytes: flist.bytes,
            fetched: timestamp(flist.last_use).to_string(),
            served: flist.is_in_use,
            from: flist.name.clone(),
        }
    }
}

/// What `prune --json` shows.
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
