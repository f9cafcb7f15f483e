//! The part of a container's spec that a caller with limited rights may have: paths as they were judged, to be opened
//! below the directories that a rule allows.

use std::collections::BTreeMap;
use std::path::PathBuf;

use contd_access::Below;
use contd_flist::UrlPrefix;
use contd_protocol::flistfs::LimitedRoutes;
use contd_types::Caller;

/// One container's; made anew, by the rules of the day, before each start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// The caller, with whose rights its own files are opened.
    pub caller: Caller,
    /// Its root.
    pub flist: FlistGrant,
    /// The sources of its binds, by the position of the mount in the spec.
    pub binds: BTreeMap<usize, BindGrant>,
    /// The directory for its writable layer, if it names one.
    pub upper: Option<Below>,
    /// The stores that the routes of its flist may name.
    pub routes: LimitedRoutes,
}

/// The allowed root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FlistGrant {
    /// A local flist, which the caller must be able to read itself.
    File(Below),
    /// A plain directory, which the caller must be able to list itself.
    Directory(Below),
    /// A URL that lies, with all it redirects to, at or below one of these.
    Url(Vec<UrlPrefix>),
}

/// The source of a bind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BindGrant {
    /// Where it is.
    pub place: Below,
    /// Whether it is attached read-only, with all that is mounted below.
    pub is_read_only: bool,
}

/// Where the sources of a container's binds are attached, by the position of the mount in the spec.
pub type Sources = BTreeMap<usize, PathBuf>;
