//! Opens a flist by path or URL, as the first step of every verb except `pack`.

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use contd_client::Progress;
use contd_flist::unfinished::Unfinished;
use contd_flist::{
    BlockCache, BlockProgress, BlockSource, Content, FetchProgress, Flist, FlistSource, Route, RoutePolicy, Routes,
    fetch,
};

use crate::cli::flist::FlistError;
use crate::cli::host::Host;
use crate::cli::progress::ProgressView;

/// The flags that say where a flist's blocks come from.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct BlockArgs {
    /// Use this store instead of those in the flist, for example dir:///var/store, or [xx-yy=]URL; may be repeated
    #[arg(long, value_name = "URL")]
    store: Vec<String>,
    /// Number of blocks fetched at once [default: the number of cores]
    #[arg(long, value_name = "N")]
    pub(super) jobs: Option<std::num::NonZeroUsize>,
    /// Use a node's cache: blocks in it are not fetched, and fetched blocks are added to it
    #[arg(long, value_name = "DIR")]
    pub(super) cache: Option<PathBuf>,
}

/// An open flist.
pub(super) struct Opened {
    pub(super) flist: Arc<Flist>,
    /// The name in a form that may be shown, without credentials.
    pub(super) name: String,
    /// The file that was read. A download is removed when this value is dropped.
    pub(super) path: PathBuf,
    /// Whether routes may name files of this machine; a flist from elsewhere must not choose which ones are read.
    policy: RoutePolicy,
    _scratch: Option<Scratch>,
}

impl Opened {
    /// Opens a path in place. A URL is downloaded first: into the cache if one is given, else into a directory of this
    /// command.
    pub(super) fn open(host: &Host, text: &str, cache: Option<&Path>) -> Result<Self, FlistError> {
        let source = FlistSource::parse(text)?;
        let name = source.to_string();
        let policy = RoutePolicy::for_source(&source);
        let (path, scratch) = match (source, cache) {
            (FlistSource::File(path), None) => (path, None),
            (source, Some(cache)) => (download(host, &source, cache)?, None),
            (source, None) => {
                let scratch = Scratch::new()?;
                (download(host, &source, scratch.0.path())?, Some(scratch))
            }
        };
        let flist = Arc::new(contd_flist_legacy::open(&path)?);
        Ok(Self { flist, name, path, policy, _scratch: scratch })
    }

    /// Prepares the stores of the command line, or those of the flist, and passes them to `act` with the cache in
    /// front.
    pub(super) fn with_blocks<T>(
        &self,
        args: &BlockArgs,
        act: impl FnOnce(BlockSource<'_>) -> Result<T, FlistError>,
    ) -> Result<T, FlistError> {
        let routes = if args.store.is_empty() {
            Routes::connect(self.flist.routes(), &self.policy)?
        } else {
            let routes = args.store.iter().map(|text| Route::parse(text)).collect::<Vec<_>>();
            Routes::connect(&routes, &RoutePolicy::default())?
        };
        match &args.cache {
            None => act(BlockSource::Stores(&routes)),
            Some(cache) => {
                let content = Content::new(Arc::clone(&self.flist), routes, Arc::new(BlockCache::open(cache)?));
                act(BlockSource::Cached(&content))
            }
        }
    }
}

fn download(host: &Host, source: &FlistSource, cache: &Path) -> Result<PathBuf, FlistError> {
    let view = RefCell::new(ProgressView::new(&host.output));
    let show = |FetchProgress { received_bytes, total_bytes }: FetchProgress| {
        view.borrow_mut().show(&Progress { what: "flist".to_owned(), done_bytes: received_bytes, total_bytes });
    };
    Ok(fetch(source, cache, &show)?.path)
}

/// Shows the progress of a pass over all blocks.
pub(super) fn block_progress(what: &'static str, view: &RefCell<ProgressView>) -> impl Fn(BlockProgress) {
    move |BlockProgress { done_bytes, total_bytes }| {
        view.borrow_mut().show(&Progress { what: what.to_owned(), done_bytes, total_bytes: Some(total_bytes) });
    }
}

/// A directory of this command; removed when dropped.
struct Scratch(Unfinished);

impl Scratch {
    fn new() -> Result<Self, FlistError> {
        let template = std::env::temp_dir().join("contd-flist-XXXXXX");
        let made = Unfinished::make(|| Ok((nix::unistd::mkdtemp(&template)?, ())));
        made.map(|(unfinished, ())| Self(unfinished)).map_err(|source| FlistError::Scratch { source })
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // A failure leaves the directory among the temporary files.
        let _left_behind = std::fs::remove_dir_all(self.0.path());
    }
}
