//! What the caller named, fetched, and the flist library's errors in the words that travel.

use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};

use contd_flist::{FetchedFlist, Flist, FlistErrorKind, FlistSource, ImageDefaults, SourceError};
use contd_types::{ApiError, ErrorKind, Shortage};

use crate::provider::{FetchProgress, RootfsError};

/// What lies below a container's own layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Base {
    /// A flist in the cache, and how to name it without a password.
    Flist { fetched: FetchedFlist, shown: String },
    /// A plain directory, without symlinks.
    Directory(PathBuf),
}

/// Understands the text and brings a flist into the cache.
pub(crate) fn fetch(
    text: &str,
    cache: &Path,
    progress: &(dyn Fn(FetchProgress) + Send + Sync),
) -> Result<Base, RootfsError> {
    let source = FlistSource::parse(text).map_err(|error| refused(&error))?;
    let shown = source.to_string();
    match &source {
        FlistSource::Directory(path) => directory(path).map(Base::Directory),
        FlistSource::File(path) if path.is_relative() => {
            let source = ApiError::new(ErrorKind::InvalidArgument, "the path is relative")
                .with_hint("give the absolute path: the daemon has another working directory than you");
            Err(RootfsError::Flist { flist: shown, source })
        }
        FlistSource::File(_) | FlistSource::Http(_) => {
            let what = format!("fetch {shown}");
            let step = |step: contd_flist::FetchProgress| {
                progress(FetchProgress {
                    what: what.clone(),
                    done_bytes: step.received_bytes,
                    total_bytes: step.total_bytes,
                });
            };
            match contd_flist::fetch(&source, cache, &step) {
                Ok(fetched) => Ok(Base::Flist { fetched, shown }),
                Err(error) => {
                    let source = flatten(error.kind().into(), &error, error.hint());
                    Err(RootfsError::Flist { flist: shown, source })
                }
            }
        }
    }
}

/// Finds a flist of a known hash in the cache; `None` for one that is not there, and for a directory.
pub(crate) fn cached(text: &str, hash: &str, cache: &Path) -> Option<Base> {
    let source = FlistSource::parse(text).ok()?;
    let path = cache.join("fl").join(format!("{hash}.fl"));
    let is_there = !matches!(source, FlistSource::Directory(_)) && path.is_file();
    let fetched = FetchedFlist { path, hash: hash.to_owned() };
    is_there.then(|| Base::Flist { fetched, shown: source.to_string() })
}

/// Reads how the image of a flist is run from its tags. The file is one of the cache: its hash was checked.
pub(crate) fn image(path: &Path, shown: &str) -> Result<ImageDefaults, RootfsError> {
    let failed = |kind: FlistErrorKind, error: &(dyn Error + 'static), hint| RootfsError::Flist {
        flist: shown.to_owned(),
        source: flatten(kind.into(), error, hint),
    };
    let tags = Flist::tags_of(path).map_err(|error| failed(error.kind(), &error, error.hint()))?;
    ImageDefaults::from_tags(&tags).map_err(|error| failed(error.kind(), &error, error.hint()))
}

fn refused(error: &SourceError) -> RootfsError {
    // The text as given may hold a password; what the error has is redacted.
    let flist = match error {
        SourceError::Invalid { source_text, .. } | SourceError::UnsupportedScheme { source_text, .. } => source_text,
        _ => "(unreadable)",
    };
    let source = flatten(error.kind().into(), error, error.hint());
    RootfsError::Flist { flist: flist.to_owned(), source }
}

fn directory(path: &Path) -> Result<PathBuf, RootfsError> {
    let failed = |source| RootfsError::Directory { path: path.to_owned(), source };
    let path = std::fs::canonicalize(path).map_err(failed)?;
    if path.is_dir() { Ok(path) } else { Err(failed(io::ErrorKind::NotADirectory.into())) }
}

/// Turns an error of another crate into the one that travels. Whatever ran out counts before `kind` and `hint`.
pub(crate) fn flatten(kind: ErrorKind, error: &(dyn Error + 'static), hint: impl Into<String>) -> ApiError {
    let mut flat = match Shortage::behind(error) {
        Some(shortage) => ApiError::new(ErrorKind::OutOfResources, error.to_string()).with_hint(shortage.hint()),
        None => ApiError::new(kind, error.to_string()).with_hint(hint),
    };
    let mut next = error.source();
    while let Some(source) = next {
        flat.causes.push(source.to_string());
        next = source.source();
    }
    flat
}
