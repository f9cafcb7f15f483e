//! A flist by path or URL, opened: what all verbs but `pack` begin with.

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

/// Where a flist's blocks come from, as far as the command line says.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct BlockArgs {
    /// A store to use instead of those in the flist, for example dir:///var/store, or [xx-yy=]URL; may be repeated
    #[arg(long, value_name = "URL")]
    store: Vec<String>,
    /// Blocks fetched at once [default: the number of cores]
    #[arg(long, value_name = "N")]
    pub(super) jobs: Option<std::num::NonZeroUsize>,
    /// A node's cache: what is in it is not fetched, and what is fetched stays there
    #[arg(long, value_name = "DIR")]
    pub(super) cache: Option<PathBuf>,
}

/// An open flist.
pub(super) struct Opened {
    pub(super) flist: Arc<Flist>,
    /// As it may be shown.
    pub(super) name: String,
    /// The file that was read; of a download it is gone when this is.
    pub(super) path: PathBuf,
    /// A flist from elsewhere has no say in which files of this machine are read.
    policy: RoutePolicy,
    _scratch: Option<Scratch>,
}

impl Opened {
    /// Opens a path where it is. A URL is downloaded first: into the cache if there is one, else for this command only.
    pub(super) fn open(host: &Host, text: &str, cache: Option<&Path>) -> Result<Self, FlistError> {
        let source = FlistSource::parse(text)?;
        let name = source.to_string();
        let policy = RoutePolicy::for_source(&source);
        let (path, scratch) = match (source, cache) {
            (FlistSource::File(path), None) => (path, None),
            (source, Some(cache)) => (download(host, &source, cache)?, None),
            (source, None) => {
                let scratch = Scratch::new()?;
                (download(host, &source, &scratch.path)?, Some(scratch))
            }
        };
        let flist = Arc::new(contd_flist_legacy::open(&path)?);
        Ok(Self { flist, name, path, policy, _scratch: scratch })
    }

    /// Prepares the stores of the command line, or those of the flist, and hands them to `act` with the cache in front.
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

/// Shows how far a sweep over all blocks is.
pub(super) fn block_progress(what: &'static str, view: &RefCell<ProgressView>) -> impl Fn(BlockProgress) {
    move |BlockProgress { done_bytes, total_bytes }| {
        view.borrow_mut().show(&Progress { what: what.to_owned(), done_bytes, total_bytes: Some(total_bytes) });
    }
}

/// A directory for one command. Gone when dropped.
struct Scratch {
    path: PathBuf,
    _unfinished: Unfinished,
}

impl Scratch {
    fn new() -> Result<Self, FlistError> {
        let template = std::env::temp_dir().join("contd-flist-XXXXXX");
        let made = nix::unistd::mkdtemp(&template);
        let made = made.map_err(|errno| FlistError::Scratch { source: errno.into() })?;
        let _unfinished = Unfinished::new(&made);
        Ok(Self { path: made, _unfinished })
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Nothing can be done about a failure; it is in the directory for temporary files.
        let _left_behind = std::fs::remove_dir_all(&self.path);
    }
}
