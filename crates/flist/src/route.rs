//! The routes of a flist, which name the stores of its blocks: checks them before they are written, and replaces them.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, fchown};
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OpenFlags};

use crate::atomic::{self, TempFile};
use crate::error::FlistErrorKind;
use crate::hash::hash_file;
use crate::metadata::{Flist, MAX_ROUTES, MetadataError, Route, is_database};
use crate::pack::write_routes;
use crate::regular;
use crate::store::{RoutePolicy, StoreError, connect};
use crate::url;

/// The longest URL that the schema of `rfs` declares.
const MAX_URL_BYTES: usize = 2048;

/// Routes could not be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RouteError {
    /// The text before the URL is not a range.
    #[error("use {text:?} as a route: a range is the first and the last value of a byte, as in 00-7f=URL")]
    Range {
        /// The text before the URL.
        text: String,
    },
    /// No store accepts the URL.
    #[error("use {url:?} as a route")]
    Url {
        /// The URL, redacted.
        url: String,
        /// The fault.
        source: Box<StoreError>,
    },
    /// The URL is too long.
    #[error("use {url:?} as a route: it has more than {MAX_URL_BYTES} bytes")]
    TooLong {
        /// The URL, redacted.
        url: String,
    },
    /// No route covers some blocks.
    #[error("route the blocks: no route covers ids that start with {first:02x}")]
    Uncovered {
        /// The first byte not covered.
        first: u8,
    },
    /// There are more routes than readers accept.
    #[error("route the blocks: more than {MAX_ROUTES} routes")]
    TooMany,
    /// The flist has no such route.
    #[error("remove route {url:?}: the flist has none like it")]
    NoSuch {
        /// The route given, redacted.
        url: String,
    },
    /// The flist cannot be read.
    #[error(transparent)]
    Flist(#[from] MetadataError),
    /// The flist has another format.
    #[error("change the routes of {}: only a .fl can be changed", path.display())]
    OtherFormat {
        /// The flist.
        path: PathBuf,
    },
    /// The tables could not be changed.
    #[error("write the routes of flist {}", path.display())]
    Database {
        /// The flist.
        path: PathBuf,
        /// SQLite's error.
        source: rusqlite::Error,
    },
    /// The file could not be written.
    #[error("write flist {}", path.display())]
    Write {
        /// The flist, or its folder.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
}

impl RouteError {
    /// Returns the next step for the user.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Range { .. } => "leave the range out, or write it with two hex digits each: 00-7f=https://host/store",
            Self::Url { source, .. } => source.hint(),
            Self::TooLong { .. } => "use a shorter name of the store",
            Self::Uncovered { .. } => "name a route without a range, or one for the missing range as xx-yy=URL",
            Self::TooMany => "use fewer routes",
            Self::NoSuch { .. } => "list its routes: contd flist route ls",
            Self::Flist(source) => source.hint(),
            Self::OtherFormat { .. } => "unpack it and pack it again",
            Self::Database { .. } | Self::Write { .. } => "check the permissions and the free space of its folder",
        }
    }

    /// Returns the category of the error.
    #[must_use]
    pub fn kind(&self) -> FlistErrorKind {
        match self {
            Self::Url { source, .. } => source.kind(),
            Self::NoSuch { .. } => FlistErrorKind::NotFound,
            Self::Flist(source) => source.kind(),
            Self::OtherFormat { .. } => FlistErrorKind::Unsupported,
            Self::Database { .. } | Self::Write { .. } => FlistErrorKind::Io,
            Self::Range { .. } | Self::TooLong { .. } | Self::Uncovered { .. } | Self::TooMany => {
                FlistErrorKind::Invalid
            }
        }
    }
}

/// Parses `[xx-yy=]URL`, and checks that a store accepts the URL. Does not connect.
///
/// # Errors
/// The fault in the text.
pub fn parse(text: &str, keep_password: bool) -> Result<Route, RouteError> {
    let mut route = Route::parse(text);
    let before_scheme = route.url.find("://").unwrap_or(0);
    if let Some(range) =
        route.url.get(..before_scheme).and_then(|before| before.split_once('=')).map(|(range, _)| range)
    {
        return Err(RouteError::Range { text: range.chars().take(MAX_SHOWN_CHARS).collect() });
    }
    let shown = || url::redact(&route.url);
    if route.url.len() > MAX_URL_BYTES {
        return Err(RouteError::TooLong { url: shown() });
    }
    connect(&route.url, &RoutePolicy::default())
        .map_err(|source| RouteError::Url { url: shown(), source: Box::new(source) })?;
    if !keep_password {
        route.url = url::strip_password(&route.url);
    }
    Ok(route)
}

/// The most characters of a wrong range in an error.
const MAX_SHOWN_CHARS: usize = 32;

/// Checks that the routes together cover every block.
///
/// # Errors
/// There are too many routes, or some blocks are not covered.
pub fn check(routes: &[Route]) -> Result<(), RouteError> {
    if routes.len() > MAX_ROUTES {
        return Err(RouteError::TooMany);
    }
    let covered = routes.iter().flat_map(|route| route.start..=route.end).collect::<BTreeSet<_>>();
    match (0..=u8::MAX).find(|first| !covered.contains(first)) {
        Some(first) => Err(RouteError::Uncovered { first }),
        None => Ok(()),
    }
}

/// Removes the routes that a text names, in the form of [`Route::parse`]: by URL, and by range if the text has one.
///
/// # Errors
/// There is no such route.
pub fn without(routes: Vec<Route>, text: &str) -> Result<Vec<Route>, RouteError> {
    let named = Route::parse(text);
    let has_range = named.url != text;
    let is_named = |route: &Route| {
        let is_same = route.url == named.url || route.shown_url() == named.url;
        is_same && (!has_range || (route.start, route.end) == (named.start, named.end))
    };
    let before = routes.len();
    let left = routes.into_iter().filter(|route| !is_named(route)).collect::<Vec<_>>();
    if left.len() == before { Err(RouteError::NoSuch { url: named.shown_url() }) } else { Ok(left) }
}

/// Replaces the routes of a flist, and returns its new hash. Readers see the old flist or the new one, never a mixture.
///
/// # Errors
/// The flist cannot be read or written, or the new routes do not cover every block.
pub fn rewrite(
    path: &Path,
    change: impl FnOnce(Vec<Route>) -> Result<Vec<Route>, RouteError>,
) -> Result<String, RouteError> {
    let failed = |source| RouteError::Write { path: path.to_owned(), source };
    // A symbolic link stays one: its target is replaced.
    let real = match fs::canonicalize(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(MetadataError::NotFound { path: path.to_owned() }.into());
        }
        real => real.map_err(failed)?,
    };
    let folder = real.parent().unwrap_or(Path::new("/"));
    let mut old = regular::open_file(&real).map_err(failed)?;
    if !is_database(&old) {
        return Err(RouteError::OtherFormat { path: path.to_owned() });
    }
    let mut temp = TempFile::create_in(folder).map_err(failed)?;
    io::copy(&mut old, temp.file()).map_err(failed)?;
    keep_owner(&old, temp.file()).map_err(failed)?;
    // Check the copy, not the original: no other process writes to the copy.
    let routes = change(Flist::open(temp.path())?.routes().to_vec())?;
    check(&routes)?;
    replace(temp.path(), &routes).map_err(|source| RouteError::Database { path: path.to_owned(), source })?;
    Flist::open(temp.path())?;
    let hash = hash_file(temp.path()).map_err(failed)?;
    temp.commit(&real).and_then(|()| atomic::sync_folder(folder)).map_err(failed)?;
    Ok(hash)
}

/// Copies the mode of the old file to the new one, and its owner if permitted.
fn keep_owner(old: &File, new: &File) -> io::Result<()> {
    let metadata = old.metadata()?;
    match fchown(new, Some(metadata.uid()), Some(metadata.gid())) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {}
        owned => owned?,
    }
    new.set_permissions(fs::Permissions::from_mode(metadata.mode() & 0o777))
}

fn replace(path: &Path, routes: &[Route]) -> rusqlite::Result<()> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(path, flags)?;
    // Deleted rows are overwritten: an old route may hold a password. No journal: no other process knows the file yet.
    connection.execute_batch("PRAGMA secure_delete = ON; PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF;")?;
    let transaction = connection.transaction()?;
    transaction.execute("DELETE FROM route", [])?;
    write_routes(&transaction, routes)?;
    transaction.commit()?;
    connection.close().map_err(|(_connection, source)| source)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_is_a_url_that_a_store_can_have_with_or_without_a_range() {
        let route = parse("00-7f=https://me:secret@host/store", false).unwrap();
        assert_eq!((route.start, route.end, route.url.as_str()), (0, 0x7f, "https://me@host/store"));
        assert_eq!(parse("https://me:secret@host/store", true).unwrap().url, "https://me:secret@host/store");
        for bad in [
            "",
            "host/store",
            "ftp://h/x",
            "http://",
            "dir:x",
            "0-7=http://h/x",
            "7f-00=http://h/x",
            "xx-yy=http://h/x",
        ] {
            assert!(parse(bad, false).is_err(), "{bad}");
        }
        assert!(matches!(parse("7f-00=http://h/x", false), Err(RouteError::Range { .. })));
        assert!(matches!(parse(&format!("http://h/{}", "x".repeat(2048)), false), Err(RouteError::TooLong { .. })));
    }

    #[test]
    fn routes_cover_every_block_and_are_removed_by_url_or_range() {
        let all = |texts: &[&str]| texts.iter().map(|text| parse(text, true).unwrap()).collect::<Vec<_>>();
        let halves = all(&["00-7f=http://a/s", "80-ff=http://a/s"]);
        check(&halves).unwrap();
        assert!(matches!(check(&halves[..1]), Err(RouteError::Uncovered { first: 0x80 })));
        assert!(matches!(check(&[]), Err(RouteError::Uncovered { first: 0 })));
        assert!(matches!(check(&vec![halves[0].clone(); MAX_ROUTES + 1]), Err(RouteError::TooMany)));
        assert_eq!(without(halves.clone(), "http://a/s").unwrap(), []);
        assert_eq!(without(halves.clone(), "00-7f=http://a/s").unwrap(), halves[1..]);
        assert!(matches!(without(halves.clone(), "00-10=http://a/s"), Err(RouteError::NoSuch { .. })));
        assert!(matches!(without(halves, "http://b/s"), Err(RouteError::NoSuch { .. })));
        // The shown form, without the password, also names a route.
        assert_eq!(without(all(&["http://me:pw@a/s"]), "http://a/s").unwrap(), []);
    }
}
