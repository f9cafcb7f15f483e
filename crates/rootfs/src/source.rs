//! Fetches the source that the caller named, and turns errors of the flist library into errors that travel.

use std::error::Error;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use contd_flist::{FetchError, FetchedFlist, Flist, FlistErrorKind, FlistSource, ImageDefaults, SourceError};
use contd_types::{ApiError, ErrorKind};

use crate::grant::{FlistGrant, Grant};
use crate::provider::{FetchProgress, RootfsError};

/// The lower directory of a container's overlay.
#[derive(Debug)]
pub(crate) enum Base {
    /// A flist in the cache, and how to name it without a password.
    Flist { fetched: FetchedFlist, shown: String },
    /// A plain directory, without symlinks.
    Directory(PathBuf),
    /// A plain directory that was opened with its caller's rights; only by this descriptor.
    Opened(OwnedFd),
}

/// Understands the text and brings a flist into the cache.
pub(crate) fn fetch(
    text: &str,
    grant: Option<&Grant>,
    cache: &Path,
    progress: &(dyn Fn(FetchProgress) + Send + Sync),
) -> Result<Base, RootfsError> {
    let source = FlistSource::parse(text).map_err(|error| refused(&error))?;
    if let Some(grant) = grant {
        return fetch_granted(&source, grant, cache, progress);
    }
    let shown = source.to_string();
    match &source {
        FlistSource::Directory(path) => directory(path).map(Base::Directory),
        FlistSource::File(path) if path.is_relative() => {
            let source = ApiError::new(ErrorKind::InvalidArgument, "the path is relative")
                .with_hint("give the absolute path: the daemon has another working directory than you");
            Err(RootfsError::Flist { flist: shown, source })
        }
        FlistSource::File(_) | FlistSource::Http(_) => {
            let step = steps(&shown, progress);
            let fetched = contd_flist::fetch(&source, cache, &step);
            as_base(fetched, &shown)
        }
    }
}

/// Brings what a caller with limited rights may have: local files and directories opened with its own rights, by descriptor,
/// and nothing but what was judged, whatever the text says.
fn fetch_granted(
    source: &FlistSource,
    grant: &Grant,
    cache: &Path,
    progress: &(dyn Fn(FetchProgress) + Send + Sync),
) -> Result<Base, RootfsError> {
    let shown = source.to_string();
    let step = steps(&shown, progress);
    let fetched = match (&grant.flist, source) {
        (FlistGrant::Directory(place), _) => {
            return contd_access::open_dir_as(&grant.caller, place).map(Base::Opened).map_err(RootfsError::Source);
        }
        (FlistGrant::File(place), _) => {
            let file = contd_access::open_file_as(&grant.caller, place).map_err(RootfsError::Source)?;
            contd_flist::fetch_opened(&file, &place.path(), cache, &step)
        }
        (FlistGrant::Url(allowed), FlistSource::Http(url)) => contd_flist::fetch_permitted(url, allowed, cache, &step),
        (FlistGrant::Url(_), _) => {
            let source = ApiError::new(ErrorKind::Internal, "a URL was judged, and this is none");
            return Err(RootfsError::Flist { flist: shown.clone(), source });
        }
    };
    as_base(fetched, &shown)
}

fn steps(shown: &str, progress: &(dyn Fn(FetchProgress) + Send + Sync)) -> impl Fn(contd_flist::FetchProgress) {
    let what = format!("fetch {shown}");
    move |step| {
        progress(FetchProgress { what: what.clone(), done_bytes: step.received_bytes, total_bytes: step.total_bytes });
    }
}

fn as_base(fetched: Result<FetchedFlist, FetchError>, shown: &str) -> Result<Base, RootfsError> {
    match fetched {
        Ok(fetched) => Ok(Base::Flist { fetched, shown: shown.to_owned() }),
        Err(error) => {
            let source = ApiError::flatten(error.kind().into(), &error, error.hint());
            Err(RootfsError::Flist { flist: shown.to_owned(), source })
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
        source: ApiError::flatten(kind.into(), error, hint),
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
    let source = ApiError::flatten(error.kind().into(), error, error.hint());
    RootfsError::Flist { flist: flist.to_owned(), source }
}

fn directory(path: &Path) -> Result<PathBuf, RootfsError> {
    let failed = |source| RootfsError::Directory { path: path.to_owned(), source };
    let path = std::fs::canonicalize(path).map_err(failed)?;
    if path.is_dir() { Ok(path) } else { Err(failed(io::ErrorKind::NotADirectory.into())) }
}
