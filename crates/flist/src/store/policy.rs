//! Restricts the routes of a flist: a flist comes from outside, and its routes make this machine read files and connect.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::net::NetRoutes;
use crate::source::FlistSource;

/// The routes of a flist that may be used. A flist comes from outside, and a `dir://` route reads this machine's files.
#[derive(Debug, Clone, Default)]
pub struct RoutePolicy {
    /// The directories that `dir://` routes may name.
    pub dir_routes: DirRoutes,
    /// The hosts that `http(s)://`, `zdb://` and `s3://` routes may connect to.
    pub net_routes: NetRoutes,
}

impl RoutePolicy {
    /// Returns the policy for a flist by its origin: a flist from the network gets no access to this machine.
    ///
    /// A flist that was fetched from this machine's own loopback, by its address or as `localhost`, may route there.
    #[must_use]
    pub fn for_source(source: &FlistSource) -> Self {
        match source {
            FlistSource::File(_) | FlistSource::Directory(_) => Self::default(),
            FlistSource::Http(url) => Self { dir_routes: DirRoutes::Never, net_routes: NetRoutes::for_flist(url) },
        }
    }

    /// Returns the policy for a flist of a limited user, of any origin: directories at or below `dirs`, public
    /// addresses, and `servers` (`host:port`).
    #[must_use]
    pub fn limited(dirs: Vec<PathBuf>, servers: Vec<String>) -> Self {
        Self { dir_routes: DirRoutes::Under(dirs), net_routes: NetRoutes::PublicAnd(Arc::from(servers)) }
    }

    /// As [`RoutePolicy::for_source`], for a source in its shown form. An empty one counts as local.
    #[must_use]
    pub fn for_source_named(shown: &str) -> Self {
        match FlistSource::parse(shown) {
            Ok(source) => Self::for_source(&source),
            Err(_empty) if shown.is_empty() => Self::default(),
            Err(_unknown) => Self { dir_routes: DirRoutes::Never, net_routes: NetRoutes::NotThisMachine },
        }
    }
}

/// The directories that `dir://` routes may name.
#[derive(Debug, Clone, Default)]
pub enum DirRoutes {
    /// Any directory: for a flist that the operator made or named by a local path.
    #[default]
    Any,
    /// Directories at or below these: for flists from the network, where the operator has local stores.
    Under(Vec<PathBuf>),
    /// No directory: for flists from the network.
    Never,
}

impl DirRoutes {
    pub(super) fn allow(&self, folder: &Path) -> bool {
        match self {
            Self::Any => true,
            Self::Under(prefixes) => prefixes.iter().any(|prefix| folder.starts_with(prefix)),
            Self::Never => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flist_is_trusted_by_where_it_comes_from() {
        let policy = |text| RoutePolicy::for_source(&FlistSource::parse(text).unwrap());
        let local = policy("/srv/x.fl");
        assert!(matches!((local.dir_routes, local.net_routes), (DirRoutes::Any, NetRoutes::Any)));
        for url in ["https://hub.example/x.fl", "http://10.0.0.1/x.fl", "http://localhost.example/x.fl"] {
            let remote = policy(url);
            let strict =
                matches!((remote.dir_routes, remote.net_routes), (DirRoutes::Never, NetRoutes::NotThisMachine));
            assert!(strict, "{url}");
            let named = RoutePolicy::for_source_named(&FlistSource::parse(url).unwrap().to_string());
            assert!(matches!((named.dir_routes, named.net_routes), (DirRoutes::Never, NetRoutes::NotThisMachine)));
        }
        for shown in ["", "/srv/x.fl", "file:///srv/x.fl"] {
            assert!(matches!(RoutePolicy::for_source_named(shown).dir_routes, DirRoutes::Any), "{shown}");
        }
        for shown in ["http://...", "ftp://h/x"] {
            assert!(matches!(RoutePolicy::for_source_named(shown).dir_routes, DirRoutes::Never), "{shown}");
        }
        for url in ["http://127.0.0.1:8080/x.fl", "http://[::1]/x.fl", "http://LOCALHOST/x.fl"] {
            let remote = policy(url);
            assert!(matches!((remote.dir_routes, remote.net_routes), (DirRoutes::Never, NetRoutes::Any)), "{url}");
        }
    }
}
