//! Stores of blocks: one trait, one file per scheme, and the routes that choose among them.
//!
//! A store only transfers bytes. [`Routes::fetch`] verifies them, and asks the next store if one fails or returns wrong
//! bytes.

mod backoff;
mod dir;
mod download;
mod error;
mod health;
mod http;
mod policy;
mod routes;
mod s3;
mod zdb;

use std::path::{Component, PathBuf};
use std::time::Duration;

pub use dir::DirStore;
pub use error::{Action, StoreError};
pub use http::HttpStore;
pub use policy::{DirRoutes, RoutePolicy};
pub(crate) use routes::Range;
pub use routes::Routes;
pub use s3::S3Store;
pub use zdb::{ZdbFailure, ZdbStore};

use crate::hash::BlockId;
use crate::url;

/// The longest time to connect to a store, and the longest time without a byte from it.
const SILENCE_TIMEOUT: Duration = Duration::from_secs(5);

/// The longest time of one attempt: the largest block at 40 KiB/s. Two attempts fit in [`BLOCK_TIMEOUT`].
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(15);

/// The longest time to fetch or store one block, over all stores and attempts. A reader is waiting in the kernel
/// meanwhile.
const BLOCK_TIMEOUT: Duration = Duration::from_secs(30);

/// A store that keeps sealed blocks under their id.
pub trait BlockStore: Send + Sync + std::fmt::Debug {
    /// Fetches the stored bytes of a block, of at most [`crate::block::MAX_STORED_LEN`], within 15 s. Does not verify them.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if the store answered that it has no such block; another error if it did not answer.
    fn get(&self, id: &BlockId) -> Result<Vec<u8>, StoreError>;

    /// As [`BlockStore::get`], within the caller's time limit. A store that never waits may ignore it.
    ///
    /// # Errors
    /// As [`BlockStore::get`].
    fn get_within(&self, id: &BlockId, _limit: Duration) -> Result<Vec<u8>, StoreError> {
        self.get(id)
    }

    /// Stores a block completely or not at all. Storing the same block again is no error.
    ///
    /// # Errors
    /// [`StoreError::ReadOnly`] if this scheme cannot be written; otherwise the failure.
    fn put(&self, id: &BlockId, stored: &[u8]) -> Result<(), StoreError>;

    /// Tells whether the store can be written.
    fn is_writable(&self) -> bool {
        true
    }

    /// Waits until all blocks stored so far survive a power loss.
    ///
    /// # Errors
    /// The operating system could not sync them.
    fn flush(&self) -> Result<(), StoreError> {
        Ok(())
    }

    /// Returns the name of the store for errors and logs, without credentials.
    fn name(&self) -> &str;
}

/// Makes the store of a URL. Does not connect or create anything yet.
pub(crate) fn connect(store_url: &str, policy: &RoutePolicy) -> Result<Box<dyn BlockStore>, StoreError> {
    let shown = || url::redact(store_url);
    let bad = |reason| StoreError::BadUrl { store: shown(), reason };
    let (scheme, _) = url::split_scheme(store_url).ok_or_else(|| bad("it has no scheme"))?;
    match scheme.to_ascii_lowercase().as_str() {
        "dir" => {
            let folder = dir_path(store_url).map_err(bad)?;
            if !policy.dir_routes.allow(&folder) {
                return Err(StoreError::NotAllowed { store: shown() });
            }
            Ok(Box::new(DirStore::new(folder)))
        }
        "http" | "https" => Ok(Box::new(HttpStore::with_hosts(store_url, policy.net_routes.clone())?)),
        "zdb" => Ok(Box::new(ZdbStore::with_hosts(store_url, policy.net_routes.clone())?)),
        "s3" | "s3s" | "s3+tls" => Ok(Box::new(S3Store::with_hosts(store_url, policy.net_routes.clone())?)),
        other => Err(StoreError::UnsupportedScheme { store: shown(), scheme: other.chars().take(32).collect() }),
    }
}

/// Makes the store of a URL that the operator gave, for writing.
///
/// Fails at once for a read-only store, before a tree is walked and its first block is sealed.
pub(crate) fn connect_to_write(store_url: &str) -> Result<Box<dyn BlockStore>, StoreError> {
    let store = connect(store_url, &RoutePolicy::default())?;
    if store.is_writable() { Ok(store) } else { Err(StoreError::NotWritable { store: store.name().to_owned() }) }
}

/// Returns the directory of `dir:///absolute/path`.
pub(crate) fn dir_path(store_url: &str) -> Result<PathBuf, &'static str> {
    let path = store_url.strip_prefix("dir://").ok_or("it is not a dir:// URL")?;
    if !path.starts_with('/') {
        return Err("a dir:// URL has no host and an absolute path: dir:///path");
    }
    let path = PathBuf::from(path);
    // Comparing path prefixes is only safe without `..`.
    if path.components().any(|component| component == Component::ParentDir) || path.as_os_str().is_empty() {
        return Err("the path of a dir:// URL may not contain ..");
    }
    Ok(path)
}
