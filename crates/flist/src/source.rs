//! Fetches flists into the cache: whole, stored once per content, named by hash.

mod error;
mod kept;
mod memo;

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

pub use error::{FetchError, SourceError};

use crate::allow::{self, UrlPrefix};
use crate::atomic::{self, TempFile};
use crate::cache::{self, FLIST_SUFFIX, FLISTS};
use crate::hash::{finish, hasher, hex};
use crate::http::{self, Bounds, HttpFailure};
use crate::net::NetRoutes;
use crate::regular::{self, Opened};
use crate::url;
use memo::Identity;
use ureq::http::header::LOCATION;

/// The largest `.fl` accepted: 3 MB hold 20,000 inodes, so this is some seven million.
pub const MAX_FLIST_BYTES: u64 = 1 << 30;

/// The longest time for a whole download.
const DOWNLOAD_TIMEOUT: Duration = Duration::from_secs(10 * 60);

/// The longest time without a byte from the server.
const SILENCE_TIMEOUT: Duration = Duration::from_secs(15);

/// The most attempts of a download whose failures look transient.
const MAX_ATTEMPTS: u32 = 3;

/// The pause before the second attempt; it doubles for each further one.
const FIRST_PAUSE: Duration = Duration::from_millis(200);

/// Bytes copied between two reports of progress.
const COPY_CHUNK: usize = 64 * 1024;

/// The root of a container, as the user names it. `Display` never shows a password.
#[derive(Clone, PartialEq, Eq)]
pub enum FlistSource {
    /// A `.fl` file of this machine. A relative path is relative to this process: a client must make it absolute.
    File(PathBuf),
    /// A `.fl` file behind `http://` or `https://`. May hold credentials.
    Http(String),
    /// A plain directory, by `dir:/path`. Needs no [`fetch`].
    Directory(PathBuf),
}

impl FlistSource {
    /// Parses `path`, `file:///path`, `http(s)://host/path` and `dir:/path`.
    ///
    /// # Errors
    /// The text is empty, has a NUL or an unknown scheme, or lacks a path or host.
    pub fn parse(text: &str) -> Result<Self, SourceError> {
        let bad = |reason| SourceError::Invalid { source_text: url::redact(text), reason };
        if text.is_empty() || text.contains('\0') {
            return Err(bad("it is empty or holds a NUL"));
        }
        if let Some((scheme, rest)) = url::split_scheme(text) {
            return match scheme {
                "file" if rest.starts_with('/') => Ok(Self::File(PathBuf::from(rest))),
                "file" => Err(bad("a file:// URL has no host and an absolute path: file:///path")),
                "http" | "https" if http::is_valid_url(text) => Ok(Self::Http(text.to_owned())),
                "http" | "https" => Err(bad("it is not a valid http URL")),
                "dir" => Err(bad("a directory is named dir:/path; dir:///path is a block store")),
                _ => Err(SourceError::UnsupportedScheme {
                    source_text: url::redact(text),
                    scheme: scheme.chars().take(32).collect(),
                }),
            };
        }
        match text.strip_prefix("dir:") {
            Some(path) if path.starts_with('/') => Ok(Self::Directory(PathBuf::from(path))),
            Some(_) => Err(bad("a directory needs an absolute path: dir:/path")),
            None => Ok(Self::File(PathBuf::from(text))),
        }
    }
}

impl fmt::Display for FlistSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Http(text) => f.write_str(&url::redact(text)),
            Self::Directory(path) => write!(f, "dir:{}", path.display()),
        }
    }
}

impl fmt::Debug for FlistSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FlistSource({self})")
    }
}

/// The progress of a [`fetch`]. Starts again at 0 when a download is retried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FetchProgress {
    /// Bytes received.
    pub received_bytes: u64,
    /// Bytes in total, if the source announces them.
    pub total_bytes: Option<u64>,
}

/// A flist in the cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchedFlist {
    /// `<cache_root>/fl/<hash>.fl`.
    pub path: PathBuf,
    /// BLAKE2b-256 of the file, as 64 hex digits: the flist's identity on this node.
    pub hash: String,
}

/// Copies a `.fl` file into the cache, under its hash. The same content is stored once, whatever its name.
///
/// Each call downloads again, since the file behind a URL may change. `progress` is called on the calling thread, about
/// every 64 KiB. If the disk is full, blocks of the cache are evicted. The flist is safe from eviction for ten minutes, and
/// after that as long as a server has it.
///
/// # Errors
/// The flist does not exist, is not a regular file, is too large or unreachable; or the cache cannot be written.
pub fn fetch(
    source: &FlistSource,
    cache_root: &Path,
    progress: &dyn Fn(FetchProgress),
) -> Result<FetchedFlist, FetchError> {
    bring(cache_root, expected(source), &source.to_string(), |folder| match source {
        FlistSource::File(path) => fetch_file(path, folder, progress),
        FlistSource::Http(text) => fetch_http(text, folder, progress, None),
        FlistSource::Directory(path) => Err(FetchError::IsDirectory { path: path.clone() }),
    })
}

/// As [`fetch`], for a file that the caller has opened with rights of its choice. `path` is for messages.
///
/// # Errors
/// As [`fetch`].
pub fn fetch_opened(
    file: &File,
    path: &Path,
    cache_root: &Path,
    progress: &dyn Fn(FetchProgress),
) -> Result<FetchedFlist, FetchError> {
    let expected = file.metadata().map_or(0, |metadata| metadata.len());
    bring(cache_root, expected, &path.display().to_string(), |folder| {
        let mut file = file;
        file.rewind().map_err(|source| FetchError::Read { path: path.to_owned(), source })?;
        keep_file(file, path, folder, progress)
    })
}

/// As [`fetch`], for a URL that one of the prefixes covers; redirects must be covered too. Connects only to public
/// addresses, and to the servers of the prefixes.
///
/// # Errors
/// As [`fetch`], and [`FetchError::NotPermitted`].
pub fn fetch_permitted(
    url: &str,
    allowed: &[UrlPrefix],
    cache_root: &Path,
    progress: &dyn Fn(FetchProgress),
) -> Result<FetchedFlist, FetchError> {
    bring(cache_root, 0, &url::redact(url), |folder| fetch_http(url, folder, progress, Some(allowed)))
}

/// Fetches a flist into the cache, retries after making room if the disk is full, and notes its name.
fn bring(
    cache_root: &Path,
    expected: u64,
    shown: &str,
    bring: impl Fn(&Path) -> Result<FetchedFlist, FetchError>,
) -> Result<FetchedFlist, FetchError> {
    let folder = cache_root.join(FLISTS);
    let bring = || {
        fs::create_dir_all(&folder).map_err(|source| FetchError::Keep { path: folder.clone(), source })?;
        bring(&folder)
    };
    let fetched = match bring() {
        Err(error) if error.is_full_disk() && cache::make_room_for_flist(cache_root, expected) => bring()?,
        outcome => outcome?,
    };
    kept::note_name(&fetched.path, shown);
    Ok(fetched)
}

/// Returns the size of a flist, if it is known before the fetch; otherwise 0.
fn expected(source: &FlistSource) -> u64 {
    match source {
        FlistSource::File(path) | FlistSource::Directory(path) => kept::size(path),
        FlistSource::Http(_) => 0,
    }
}

fn fetch_file(path: &Path, folder: &Path, progress: &dyn Fn(FetchProgress)) -> Result<FetchedFlist, FetchError> {
    let failed = |source| FetchError::Read { path: path.to_owned(), source };
    let odd = |what: String| FetchError::NotAFile { path: path.to_owned(), what };
    let file = match regular::open(path) {
        Ok(Opened::File(file)) => file,
        Ok(Opened::Directory(_)) => return Err(odd("a directory".to_owned())),
        Ok(Opened::Other(kind)) => return Err(odd(kind.to_string())),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Err(FetchError::NotFound { name: path.display().to_string() });
        }
        Err(error) => return Err(failed(error)),
    };
    keep_file(&file, path, folder, progress)
}

/// Copies an open file, unless a copy is remembered.
fn keep_file(
    file: &File,
    path: &Path,
    folder: &Path,
    progress: &dyn Fn(FetchProgress),
) -> Result<FetchedFlist, FetchError> {
    let failed = |source| FetchError::Read { path: path.to_owned(), source };
    let metadata = file.metadata().map_err(failed)?;
    let identity = Identity::of(&metadata);
    if let Some(known) = memo::recall(folder, &identity).filter(|known| kept::claim(&known.path)) {
        // Noting the use has changed the copy's times, so remember it again.
        memo::keep(folder, identity, &known);
        progress(FetchProgress { received_bytes: metadata.len(), total_bytes: Some(metadata.len()) });
        return Ok(known);
    }
    let mut copy = Copy { name: path.display().to_string(), folder, total: Some(metadata.len()), progress };
    match copy.run(file)? {
        Ok(fetched) => {
            memo::keep(folder, identity, &fetched);
            Ok(fetched)
        }
        Err(error) => Err(failed(error)),
    }
}

fn fetch_http(
    text: &str,
    folder: &Path,
    progress: &dyn Fn(FetchProgress),
    allowed: Option<&[UrlPrefix]>,
) -> Result<FetchedFlist, FetchError> {
    let https_only = text.starts_with("https://");
    let bounds = |hosts| Bounds { whole: DOWNLOAD_TIMEOUT, silence: SILENCE_TIMEOUT, https_only, hosts };
    let agent = match allowed {
        // An operator named the flist, so any host is allowed; its routes are checked separately.
        None => http::agent(bounds(NetRoutes::Any)),
        Some(allowed) => {
            let servers = allowed.iter().map(UrlPrefix::host_and_port).collect();
            http::agent_without_redirects(bounds(NetRoutes::PublicAnd(servers)))
        }
    };
    let mut attempt = 1;
    loop {
        let outcome = download(&agent, text, folder, progress, allowed);
        match outcome {
            Err(error) if attempt < MAX_ATTEMPTS && error.is_transient() => {
                tracing::debug!(%error, attempt, "download failed, retried");
                thread::sleep(FIRST_PAUSE * 2_u32.pow(attempt - 1));
                attempt += 1;
            }
            outcome => return outcome,
        }
    }
}

fn download(
    agent: &ureq::Agent,
    text: &str,
    folder: &Path,
    progress: &dyn Fn(FetchProgress),
    allowed: Option<&[UrlPrefix]>,
) -> Result<FetchedFlist, FetchError> {
    let name = url::redact(text);
    let failed = |source| FetchError::Exchange { url: name.clone(), source };
    let mut response = match allowed {
        None => agent.get(text).call().map_err(|error| failed(HttpFailure::from_client(error)))?,
        Some(allowed) => ask_permitted(agent, text, allowed)?,
    };
    match response.status().as_u16() {
        200 => {}
        404 | 410 => return Err(FetchError::NotFound { name }),
        status => return Err(FetchError::Status { url: name, status }),
    }
    let total = response.body().content_length();
    let mut copy = Copy { name: name.clone(), folder, total, progress };
    // The client's limit is one above ours, so that the copy detects the excess.
    match copy.run(response.body_mut().with_config().limit(MAX_FLIST_BYTES + 1).reader())? {
        Ok(fetched) => Ok(fetched),
        Err(error) => Err(failed(HttpFailure::from_client(ureq::Error::from(error)))),
    }
}

/// Requests a URL and follows redirects, as long as each URL is permitted.
fn ask_permitted(
    agent: &ureq::Agent,
    text: &str,
    allowed: &[UrlPrefix],
) -> Result<ureq::http::Response<ureq::Body>, FetchError> {
    let name = || url::redact(text);
    let refused = |what| FetchError::NotPermitted { url: name(), what };
    let failed = |source| FetchError::Exchange { url: name(), source };
    let mut next = allow::permitted(text, allowed).ok_or_else(|| refused("it"))?;
    for _ in 0..=http::MAX_REDIRECTS {
        let response = agent.get(&next).call().map_err(|error| failed(HttpFailure::from_client(error)))?;
        if !response.status().is_redirection() {
            return Ok(response);
        }
        let location = response.headers().get(LOCATION).and_then(|value| value.to_str().ok());
        let location = location.ok_or_else(|| failed(HttpFailure::Redirect))?;
        next = allow::redirected(&next, location, allowed).ok_or_else(|| refused("what it redirects to"))?;
    }
    Err(failed(HttpFailure::Redirect))
}

/// Copies a stream into the cache, and hashes it on the way.
struct Copy<'a> {
    name: String,
    folder: &'a Path,
    total: Option<u64>,
    progress: &'a dyn Fn(FetchProgress),
}

impl Copy<'_> {
    /// Copies the whole stream. The inner error is the source's, for which the caller has the right name.
    fn run(&mut self, from: impl Read) -> Result<io::Result<FetchedFlist>, FetchError> {
        self.check_cap(self.total.unwrap_or(0))?;
        let keep = |source| FetchError::Keep { path: self.folder.to_owned(), source };
        let mut temp = TempFile::create_in(self.folder).map_err(keep)?;
        let (mut from, mut state) = (from.take(MAX_FLIST_BYTES + 1), hasher());
        let (mut chunk, mut received) = (vec![0; COPY_CHUNK], 0_u64);
        loop {
            (self.progress)(FetchProgress { received_bytes: received, total_bytes: self.total });
            let read = match from.read(&mut chunk) {
                Ok(0) => break,
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Ok(Err(error)),
            };
            let bytes = chunk.get(..read).unwrap_or_default();
            state.update(bytes);
            temp.file().write_all(bytes).map_err(keep)?;
            received += read as u64;
            self.check_cap(received)?;
        }
        if let Some(announced) = self.total.filter(|announced| *announced != received) {
            return Err(FetchError::CutShort { name: self.name.clone(), received, announced });
        }
        let hash = hex(&finish(&state));
        let path = self.folder.join(format!("{hash}.{FLIST_SUFFIX}"));
        if !holds(&path, &hash) || !kept::claim(&path) {
            temp.commit(&path).and_then(|()| atomic::sync_folder(self.folder)).map_err(keep)?;
            cache::note_flist(self.folder.parent().unwrap_or(self.folder), received);
        }
        Ok(Ok(FetchedFlist { path, hash }))
    }

    fn check_cap(&self, len: u64) -> Result<(), FetchError> {
        if len <= MAX_FLIST_BYTES {
            return Ok(());
        }
        Err(FetchError::TooLarge { name: self.name.clone(), limit: MAX_FLIST_BYTES })
    }
}

/// Tells whether the file exists and its content matches its name.
fn holds(path: &Path, hash: &str) -> bool {
    let Ok(mut file) = OpenOptions::new().read(true).custom_flags(nix::libc::O_NOFOLLOW).open(path) else {
        return false;
    };
    let (mut state, mut chunk) = (hasher(), vec![0; COPY_CHUNK]);
    loop {
        match file.read(&mut chunk) {
            Ok(0) => return hex(&finish(&state)) == hash,
            Ok(read) => {
                state.update(chunk.get(..read).unwrap_or_default());
            }
            Err(_unreadable) => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_to_name_a_flist_is_told_apart() {
        let parse = |text| FlistSource::parse(text).unwrap();
        assert_eq!(parse("/a/b.fl"), FlistSource::File("/a/b.fl".into()));
        assert_eq!(parse("b.fl"), FlistSource::File("b.fl".into()));
        assert_eq!(parse("file:///a/b.fl"), FlistSource::File("/a/b.fl".into()));
        assert_eq!(parse("https://h/b.fl"), FlistSource::Http("https://h/b.fl".into()));
        assert_eq!(parse("dir:/srv/root"), FlistSource::Directory("/srv/root".into()));
    }

    #[test]
    fn a_source_that_cannot_be_a_flist_is_refused_with_its_kind() {
        let kind = |text| FlistSource::parse(text).unwrap_err().kind();
        use crate::FlistErrorKind::{Invalid, Unsupported};
        for text in ["", "a\0b", "dir:relative", "dir:///x", "file://host/x", "http://", "http:///x", "http://h/a b"] {
            assert_eq!(kind(text), Invalid, "{text:?}");
        }
        for text in ["ftp://h/x.fl", "docker://busybox", "zdb://h/x"] {
            assert_eq!(kind(text), Unsupported, "{text:?}");
        }
    }

    #[test]
    fn a_source_is_shown_without_its_password() {
        let source = FlistSource::parse("https://me:secret@h/b.fl?token=t").unwrap();
        assert_eq!(source.to_string(), "https://h/b.fl?...");
        assert!(!format!("{source:?}").contains("secret"));
    }
}
