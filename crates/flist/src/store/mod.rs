//! Where blocks are kept: one trait, one file per scheme, and the routes that choose among them.
//!
//! A store only moves bytes. What they are worth is checked by [`Routes::fetch`], which asks the next store when one
//! gives nothing or something wrong.

mod dir;
mod error;
mod http;
mod routes;

use std::path::{Component, Path, PathBuf};

pub use dir::DirStore;
pub use error::StoreError;
pub use http::HttpStore;
pub(crate) use routes::Range;
pub use routes::Routes;

use crate::hash::BlockId;
use crate::url;

/// Keeps sealed blocks under their id.
pub trait BlockStore: Send + Sync + std::fmt::Debug {
    /// Fetches the stored bytes of a block, of at most [`crate::block::MAX_STORED_LEN`], within 5 s. Does not verify them.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if the store answered that it has no such block; any other if it did not answer.
    fn get(&self, id: &BlockId) -> Result<Vec<u8>, StoreError>;

    /// Stores a block, whole or not at all. Storing the same again is fine.
    ///
    /// # Errors
    /// [`StoreError::ReadOnly`] if this scheme cannot be written; otherwise why it failed.
    fn put(&self, id: &BlockId, stored: &[u8]) -> Result<(), StoreError>;

    /// Waits until everything put so far survives a power loss.
    ///
    /// # Errors
    /// The system could not promise it.
    fn flush(&self) -> Result<(), StoreError> {
        Ok(())
    }

    /// Names the store in errors and logs, without any credential.
    fn name(&self) -> &str;
}

/// Which routes of a flist may be used. A flist comes from outside, and a `dir://` route reads this machine's files.
#[derive(Debug, Clone, Default)]
pub struct RoutePolicy {
    /// What `dir://` routes may name.
    pub dir_routes: DirRoutes,
}

/// What `dir://` routes may name.
#[derive(Debug, Clone, Default)]
pub enum DirRoutes {
    /// Anything: for a flist that the operator made or named by a local path.
    #[default]
    Any,
    /// Folders at or below these: for flists from the network, where the operator has local stores.
    Under(Vec<PathBuf>),
    /// Nothing: for flists from the network.
    Never,
}

impl DirRoutes {
    fn allow(&self, folder: &Path) -> bool {
        match self {
            Self::Any => true,
            Self::Under(prefixes) => prefixes.iter().any(|prefix| folder.starts_with(prefix)),
            Self::Never => false,
        }
    }
}

/// Makes the store that a URL names. Connects to nothing and creates nothing yet.
pub(crate) fn connect(store_url: &str, policy: &RoutePolicy) -> Result<Box<dyn BlockStore>, StoreError> {
    let shown = || url::redact(store_url);
    let bad = |reason| StoreError::BadUrl { store: shown(), reason };
    let (scheme, _) = url::split_scheme(store_url).ok_or_else(|| bad("it has no scheme"))?;
    match scheme {
        "dir" => {
            let folder = dir_path(store_url).map_err(bad)?;
            if !policy.dir_routes.allow(&folder) {
                return Err(StoreError::NotAllowed { store: shown() });
            }
            Ok(Box::new(DirStore::new(folder)))
        }
        "http" | "https" => Ok(Box::new(HttpStore::new(store_url)?)),
        _ => Err(StoreError::UnsupportedScheme { store: shown(), scheme: scheme.chars().take(32).collect() }),
    }
}

/// Takes the folder out of `dir:///absolute/path`.
pub(crate) fn dir_path(store_url: &str) -> Result<PathBuf, &'static str> {
    let path = store_url.strip_prefix("dir://").ok_or("it is not a dir:// URL")?;
    if !path.starts_with('/') {
        return Err("a dir:// URL has no host and an absolute path: dir:///path");
    }
    let path = PathBuf::from(path);
    // Lexical prefixes mean something only without `..`.
    if path.components().any(|component| component == Component::ParentDir) || path.as_os_str().is_empty() {
        return Err("the path of a dir:// URL may not contain ..");
    }
    Ok(path)
}
