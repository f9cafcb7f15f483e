//! The messages between the daemon, one flist's server and the server's successor.

use std::path::PathBuf;

use contd_types::RequestId;
use serde::{Deserialize, Serialize};

use crate::MAX_CONTROL_BODY_BYTES;
use crate::hello::VersionRange;
use crate::session::{self, NoItem, Protocol};

/// The versions of this module.
pub const VERSIONS: VersionRange = VersionRange { min: 1, max: 3 };
/// The first version whose [`Request::HandOver`] gives the requests that stand unanswered.
pub const HAND_OVER_SINCE: u16 = 3;
/// The version of [`ServeSpec`] as a file.
pub const SERVE_SPEC_VERSION: u32 = 1;

/// The file in the lease directory that says which process serves: a [`Process`] as JSON. The lease names its keeper.
pub const SERVER_FILE: &str = "server.json";
/// The log of keeper and servers, in the lease directory; bounded.
pub const LOG_FILE: &str = "flistfs.log";
/// Why there is no server any more: a [`contd_types::ApiError`] as JSON, left by a keeper that has given up.
pub const LAST_WORDS_FILE: &str = "last-words.json";
/// While this file is in the lease directory, no process is started there any more: all of them are being ended.
pub const ENDING_FILE: &str = "ending";

/// The flist that a server serves, and how; a JSON file in its lease directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServeSpec {
    /// [`SERVE_SPEC_VERSION`].
    pub version: u32,
    /// The fetched `.fl` file.
    pub flist: PathBuf,
    /// Its BLAKE2b-256 in hexadecimal digits.
    pub hash: String,
    /// Where it is mounted; an empty directory that exists.
    pub mount_point: PathBuf,
    /// The directory of the block cache.
    pub cache: PathBuf,
    /// Where the flist was fetched from, without credentials: one from the network may route to less than a local one.
    #[serde(default)]
    pub source: String,
    /// How large it may become.
    #[serde(default)]
    pub cache_limits: CacheLimits,
    /// Set for callers with limited rights, whatever the source: nothing but these and public addresses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limited_routes: Option<LimitedRoutes>,
    /// The operation that started the server, for its log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation: Option<RequestId>,
}

/// The folders and servers that a flist's routes may name for callers with limited rights, beside public addresses.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LimitedRoutes {
    /// Folders at or below these.
    pub dirs: Vec<PathBuf>,
    /// These servers, as `host:port`.
    pub servers: Vec<String>,
}

/// How large a cache may become; what is left out is the server's own default.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CacheLimits {
    /// The most bytes that it may take.
    pub max_bytes: Option<u64>,
    /// The bytes that must stay free on its file system.
    pub min_free_bytes: Option<u64>,
}

/// The protocol of this module.
#[derive(Debug)]
pub enum FlistSocket {}

impl Protocol for FlistSocket {
    type Request = Request;
    type Item = NoItem;
    type Response = Response;
    const VERSIONS: VersionRange = VERSIONS;
    const MAX_BODY_BYTES: usize = MAX_CONTROL_BODY_BYTES;
    // Calls are answered one after the other.
    const MAX_CALLS: usize = 1;
}

/// A request with its id.
pub type Call = session::Call<Request>;
/// The answer to a call.
pub type Reply = session::Reply<Response>;

/// The requests to a flist server. Append only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// Tells what is served. → [`Response::Status`]
    Status,
    /// Unmounts, answers, and ends. Refused with `Busy` while the mount is in use. → [`Response::Done`]
    Shutdown,
    /// Gives all that a successor needs: the device, the lock of the lease, the listening socket and the memory of the requests
    /// come with the answer, in this order. It goes on serving until the successor ends it, and waits that long with starting one of its own.
    /// → [`Response::Handover`]
    HandOver,
}

/// The answers of a flist server. Append only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Response {
    /// It was done.
    Done,
    /// The flist that is served.
    Status(Status),
    /// The state that the predecessor hands over.
    Handover(Handover),
}

/// One process of this boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Its id.
    pub pid: i32,
    /// When it started, in clock ticks since boot.
    pub start_ticks: u64,
}

/// The state that a predecessor hands over, beside the descriptors.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Handover {
    /// The process that serves now.
    pub server: Process,
    /// The parameters agreed with the kernel when the file system was mounted: JSON of the server's own.
    pub session: String,
}

/// The flist that is served, and how it goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The server's process id.
    pub pid: i32,
    /// The flist's hash.
    pub hash: String,
    /// Where it is mounted.
    pub mount_point: PathBuf,
    /// How many inodes it has.
    pub inodes: u64,
    /// Read requests answered with an error so far: blocks that could not be had.
    pub failed_reads: u64,
}
